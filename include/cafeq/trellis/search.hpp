/// The search for the states of a trellis code (trellis/code.hpp): given targets x, the cyclic
/// chain of states with small Σ (x_t − level · unit)², by the steps of trellis/viterbi.hpp.
///
/// A cycle must end where it begins. The bits that cross the seam are taken from an open search of
/// the last 96 and the first 96 weights, and the main search is held to them at both ends. It runs
/// in pieces of 1,024 weights that look 64 further, where chains have met almost surely; below 2
/// bits a weight 160, and the seam is as wide.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

#include "cafeq/core/matrix.hpp"
#include "cafeq/trellis/code.hpp"
#include "cafeq/trellis/pack.hpp"
#include "cafeq/trellis/stream.hpp"
#include "cafeq/trellis/viterbi.hpp"

namespace cafeq::kernel {

/// Searches chunks, one after another. One object serves one worker; it owns a row of costs for
/// each weight of a chain, 2^(window + 1 − ⌊R⌋) bytes each (4.8 MB for a window of 12 bits and 1
/// bit a weight, .14 MB for 10 and 4), and asks for no memory after it is made.
template <class Arch = DefaultArch>
class TrellisSearch {
 public:
  /// `code` has a window of 10 to 16 bits, and levels · unit within ±4.
  TrellisSearch(const TrellisCode& code, TrellisRate rate)
      : stream_{rate, code.window},
        states_of_code_(Index(code.states())),
        levels_(code.states() * (rate.code_class() == 4 ? 3 : 1)),
        costs_(std::size_t(longest() + 1) * (code.states() >> rate.code_class())) {
    CAFEQ_ASSERT(rate.is_valid() && code.window >= 10 && code.window <= 16);
    for (std::size_t i = 0; i < levels_.size(); ++i) {
      const int level =
          detail::fixed_point(float(code.level(std::uint32_t(i) % code.states())) * code.unit);
      levels_[i] = rate.code_class() == 4 ? detail::near(level, int(i / code.states()))
                                          : std::int16_t(level);
    }
  }

  /// The states of a chunk whose targets are x, one or more of them: weights divided by the scale
  /// of their row, so that their variance is near 1. Targets beyond ±4 count as ±4. A chunk whose
  /// bits are fewer than a window's is followed by targets of 0 (see
  /// TrellisStream::padded()).
  void tail_biting(std::span<const float> x, std::span<std::uint16_t> states) noexcept {
    CAFEQ_ASSERT(!x.empty() && states.size() == x.size());
    search(x, [&](Index first, std::span<const std::uint16_t> found) {
      const Index count = std::min(Index(found.size()), Index(x.size()) - first);
      if (count > 0) std::copy_n(found.begin(), count, states.begin() + first);
    });
  }

  /// Searches and writes the chunk as pack_trellis() does, `chunk` having
  /// TrellisStream::bytes(x.size()) bytes or more.
  void encode(std::span<const float> x, std::span<std::uint8_t> chunk) noexcept {
    CAFEQ_ASSERT(!x.empty() && Index(chunk.size()) >= stream_.bytes(Index(x.size())));
    detail::TrellisWriter writer(stream_, chunk);
    search(x, [&](Index, std::span<const std::uint16_t> found) { writer.write(found); });
    writer.close();
  }

 private:
  static constexpr Index piece = 1024, most_look_ahead = 160,
                         most_weights = piece + most_look_ahead;
  static constexpr int open = -1;

  /// Weights on either side of the seam, and in a chain: the fewer bits come with a weight, the
  /// later chains meet.
  bool is_below_two_bits() const noexcept { return stream_.rate.code_class() == 1; }
  Index seam() const noexcept { return is_below_two_bits() ? 160 : 96; }
  Index longest() const noexcept { return piece + (is_below_two_bits() ? most_look_ahead : 64); }

  std::uint16_t* row(Index i) noexcept {
    return costs_.data() + i * (states_of_code_ >> stream_.rate.code_class());
  }
  const std::int16_t* levels(Index i) const noexcept {
    return levels_.data() + centre_[std::size_t(i)] * states_of_code_;
  }

  /// Hands the states of all weights to `take(first, states)`, a piece at a time.
  template <class Take>
  void search(std::span<const float> x, Take&& take) noexcept {
    x_ = x;
    n_ = stream_.padded(Index(x.size()));

    // What crosses the seam.
    const Index half = std::min(seam(), n_ / 2);
    chain(n_ - half, 2 * half, open, open);
    const int across = states_[std::size_t(half)] >> stream_.new_bits(0, n_);

    int before = across;
    for (Index t = 0; t < n_;) {
      const bool last = n_ - t <= longest();
      chain(t, last ? n_ - t : longest(), before, last ? across : open);
      const Index kept = last ? n_ - t : piece;
      take(t, std::span<const std::uint16_t>(states_.data(), std::size_t(kept)));

      t += kept;
      before = states_[std::size_t(kept - 1)] &
               ((1 << (stream_.window - shift_[std::size_t(kept)])) - 1);
    }
  }

  /// states_ of `count` weights from `first` on. `begin` are the bits before the new ones of the
  /// first state, `end` those that the state behind the last begins with, or open.
  void chain(Index first, Index count, int begin, int end) noexcept {
    for (Index i = 0, t = first; i <= count; ++i, ++t) {
      if (t >= n_) t -= n_;
      shift_[std::size_t(i)] = std::uint8_t(stream_.new_bits(t, n_));
      const std::int16_t target =
          t < Index(x_.size()) ? detail::fixed_point(x_[std::size_t(t)]) : std::int16_t(0);
      const int centre = stream_.rate.code_class() == 4 ? detail::centre_of(target) : 0;
      centre_[std::size_t(i)] = std::uint8_t(centre);
      target_[std::size_t(i)] =
          stream_.rate.code_class() == 4 ? detail::near(target, centre) : target;
    }

    // Where it may begin, and from there the costs of all ways on.
    std::fill_n(row(0), states_of_code_ >> shift_[0],
                begin == open ? std::uint16_t(0) : detail::most_cost);
    if (begin != open) row(0)[begin] = 0;
    const Index steps = end == open ? count : count - 1;
    switch (stream_.rate.code_class()) {
      case 1: forward<1>(steps); break;
      case 2: forward<2>(steps); break;
      case 3: forward<3>(steps); break;
      default: forward<4>(steps); break;
    }

    // The cheapest end, and the way back.
    if (end == open) {
      const std::uint16_t* v = row(count);
      end = int(std::min_element(v, v + (states_of_code_ >> shift_[std::size_t(count)])) - v);
    }
    if (stream_.rate.code_class() <= 2) trace_back<false>(count, end);
    else trace_back<true>(count, end);
    if (begin != open) begin_with(begin, count);
  }

  /// The costs of a chain.
  template <int Class>
  void forward(Index steps) noexcept {
    std::uint16_t least = 0;
    for (Index i = 0; i < steps; ++i) {
      const auto step = [&]<int Shift, int Next>() {
        return detail::step_forward<(Class > 2), Shift, Next, Arch>(
            row(i), row(i + 1), levels(i), states_of_code_, target_[std::size_t(i)], least);
      };
      const bool more = shift_[std::size_t(i)] != Class,
                 next_more = shift_[std::size_t(i + 1)] != Class;
      if (more)
        least = next_more ? step.template operator()<Class + 1, Class + 1>()
                          : step.template operator()<Class + 1, Class>();
      else
        least = next_more ? step.template operator()<Class, Class + 1>()
                          : step.template operator()<Class, Class>();
    }
  }

  /// The states of a chain whose costs are known, the last one first.
  template <bool Doubles>
  void trace_back(Index count, int end) noexcept {
    std::uint32_t prefix = std::uint32_t(end);
    for (Index i = count - 1; i >= 0; --i) {
      const int shift = shift_[std::size_t(i)];
      std::uint32_t s = 0;
      switch (shift_[std::size_t(i + 1)]) {
        case 1: s = predecessor<Doubles, 1>(i, prefix); break;
        case 2: s = predecessor<Doubles, 2>(i, prefix); break;
        case 3: s = predecessor<Doubles, 3>(i, prefix); break;
        case 4: s = predecessor<Doubles, 4>(i, prefix); break;
        default: s = predecessor<Doubles, 5>(i, prefix); break;
      }
      states_[std::size_t(i)] = std::uint16_t(s);
      prefix = s >> shift;
    }
  }

  template <bool Doubles, int Next>
  std::uint32_t predecessor(Index t, std::uint32_t prefix) noexcept {
    return detail::step_back<Doubles, Next, Arch>(row(t), levels(t), states_of_code_,
                                                  target_[std::size_t(t)], shift_[std::size_t(t)],
                                                  prefix);
  }

  /// The bits before the first weight are given. A chain has them already, unless all of those that
  /// had were so far off that their costs were saturated.
  void begin_with(int begin, Index count) noexcept {
    int taken = 0;
    for (Index i = 0; i < count && (taken += shift_[std::size_t(i)]) < stream_.window; ++i) {
      const int given = begin << taken & int(states_of_code_ - 1);
      states_[std::size_t(i)] =
          std::uint16_t(given | (states_[std::size_t(i)] & ((1 << taken) - 1)));
    }
  }

  TrellisStream stream_;
  Index states_of_code_;
  // Of each state, in units of 2^-13; for 4-bit codes near() 0, 2 and −2.
  Buffer<std::int16_t> levels_;
  Buffer<std::uint16_t> costs_;  // v, a row a weight

  // The chunk that is searched, and how many weights it has with those that nobody reads.
  std::span<const float> x_;
  Index n_ = 0;

  // Of the weights of a chain, and but for the states of the one behind them: the bits that come
  // with a weight, which levels it is compared with, and what it should be.
  std::array<std::uint8_t, most_weights + 1> shift_{};
  std::array<std::uint8_t, most_weights + 1> centre_{};
  std::array<std::int16_t, most_weights + 1> target_{};
  std::array<std::uint16_t, most_weights> states_{};
};

}  // namespace cafeq::kernel
