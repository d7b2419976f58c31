/// The search for the states of a trellis code (trellis/code.hpp): given targets x, the cyclic
/// chain of states with small Σ (x_t − level · unit)².
///
/// Viterbi's algorithm. With v_t[p] the least cost of a chain up to weight t − 1 whose next state
/// begins with the bits p (window − k_t of them; k_t new bits come with weight t), and d_t(s) =
/// (x_t − level(s) · unit)²:
///
///     v_{t+1}[p] = min over the states s that end with p of v_t[s >> k_t] + d_t(s)
///
/// Only v is kept, one row a weight. What preceded p is found again on the way back, from 2^k sums
/// a weight, which costs less than to note it for every p on the way there; and d is computed where
/// it is added, so that a step reads v_t and the levels and writes v_{t+1}, all in L1.
///
/// A cycle must end where it begins. The bits that cross the seam are taken from an open search of
/// the last 96 and the first 96 weights, and the main search is held to them at both ends. It runs
/// in pieces of 1,024 weights that look 64 further, where chains have met almost surely.
///
/// Costs are whole numbers: targets and levels are rounded to units of 2^-13, squares to units of
/// 2^-10, 2^-12 and 2^-14 for codes of 2, 3 and 4 bits. They saturate where a weight is off by 4, 2
/// and 1. From each v the least one of the row before is subtracted, and it is capped so that no
/// sum overflows: at 48, 12 and 3 times the variance of the targets. Of equal sums the smallest
/// predecessor wins. So every architecture gives the same states.
/// Longer than most headers: the two directions of one search, and the plain loops that say what
/// they must find.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "cafeq/core/matrix.hpp"
#include "cafeq/simd/words16.hpp"
#include "cafeq/trellis/code.hpp"
#include "cafeq/trellis/pack.hpp"

namespace cafeq::kernel {

namespace detail {

/// Bits that come with weight t of a cycle of n.
constexpr int trellis_shift(Index t, Index n, TrellisRate rate) noexcept {
  const Index after = t == 0 ? n : t;
  return int(rate.begin(after) - rate.begin(after - 1));
}

/// The largest v: a square, at most 2^14, added to it does not overflow.
inline constexpr std::uint16_t trellis_most = 0xffff - (1 << 14);

/// Costs and the squares of the differences of target and levels; Doubles: of twice the
/// differences.
template <bool Doubles, class Arch>
inline simd::Words<Arch> trellis_sums(simd::Words<Arch> cost, simd::SignedWords<Arch> level,
                                      simd::SignedWords<Arch> target) noexcept {
  simd::SignedWords<Arch> difference = simd::ssub(target, level);
  if constexpr (Doubles) difference = simd::sadd(difference, difference);
  return cost + simd::square_high<Arch>(difference);
}

/// v_{t+1} of `states` >> Next words from v_t of `states` >> Shift: rows of the comment above.
/// `least` is the smallest word of `before`; returns the smallest of `after`. Doubles: squares are
/// of twice the difference of level and target.
template <bool Doubles, int Shift, int Next, class Arch>
std::uint16_t trellis_step(const std::uint16_t* before, std::uint16_t* after,
                           const std::int16_t* levels, Index states, std::int16_t target,
                           std::uint16_t least) noexcept {
  using simd::Words, simd::SignedWords;
  constexpr Index w = Index(Words<Arch>::size);
  constexpr Index block =
      std::max(w, std::min<Index>(4 * w, 1024 >> Next));  // there are at least 1,024 states
  constexpr int vectors = int(block / w);
  static_assert(block % (Index(1) << Shift) == 0 || (Index(1) << Shift) % block == 0);
  const SignedWords<Arch> x(target);
  const Words<Arch> base(least), most(trellis_most);
  Words<Arch> smallest(std::uint16_t(0xffff));
  const Index prefixes = states >> Next;
  for (Index p = 0; p < prefixes; p += block) {
    Words<Arch> best[vectors];
    const auto join = [&](Index j) {
      const Index s = p + j * prefixes;
      const std::uint16_t* cost = before + (s >> Shift);
      CAFEQ_UNROLL
      for (int v = 0; v < vectors; ++v) {
        const Words<Arch> sum =
            trellis_sums<Doubles, Arch>(simd::load_repeated<Shift, Arch>(cost + (v * w >> Shift)),
                                        SignedWords<Arch>::load_aligned(levels + s + v * w), x);
        best[v] = j == 0 ? sum : simd::min_words<Arch>(best[v], sum);
      }
    };
    CAFEQ_UNROLL
    for (int j = 0; j < 4; ++j) join(j);
    for (Index j = 4; j < Index(1) << Next; j += 4) {
      CAFEQ_UNROLL
      for (int i = 0; i < 4; ++i) join(j + i);
    }
    CAFEQ_UNROLL
    for (int v = 0; v < vectors; ++v) {
      best[v] = simd::min_words<Arch>(best[v] - base, most);
      best[v].store_aligned(after + p + v * w);
      smallest = simd::min_words<Arch>(smallest, best[v]);
    }
  }
  return simd::smallest_word<Arch>(smallest);
}

}  // namespace detail

/// Searches chunks, one after another. One object serves one worker; it owns 1,089 rows of costs,
/// 2^(window + 1 − ⌊R⌋) bytes each (2.2 MB for a window of 12 bits and 2 bits a weight, .14 MB for
/// 10 and 4), and asks for no memory after it is made.
template <class Arch = DefaultArch>
class TrellisSearch {
 public:
  /// `code` has a window of 10 to 16 bits, and levels · unit within ±4.
  TrellisSearch(const TrellisCode& code, TrellisRate rate)
      : rate_(rate),
        window_(code.window),
        states_of_code_(Index(code.states())),
        levels_(code.states() * (rate.code_class() == 4 ? 3 : 1)),
        costs_(std::size_t(longest + 1) * (code.states() >> rate.code_class())) {
    CAFEQ_ASSERT(rate.is_valid() && code.window >= 10 && code.window <= 16);
    for (std::size_t i = 0; i < levels_.size(); ++i) {
      const int level =
          fixed_point(float(code.level(std::uint32_t(i) % code.states())) * code.unit);
      levels_[i] =
          rate.code_class() == 4 ? near(level, int(i / code.states())) : std::int16_t(level);
    }
  }

  /// The states of a chunk whose targets are x, one or more of them: weights divided by the scale
  /// of their row, so that their variance is near 1. Targets beyond ±4 count as ±4. A chunk whose
  /// bits are fewer than a window's is followed by targets of 0 (see trellis_bits()).
  void tail_biting(std::span<const float> x, std::span<std::uint16_t> states) noexcept {
    CAFEQ_ASSERT(!x.empty() && states.size() == x.size());
    search(x, [&](Index first, std::span<const std::uint16_t> found) {
      const Index count = std::min(Index(found.size()), Index(x.size()) - first);
      if (count > 0) std::copy_n(found.begin(), count, states.begin() + first);
    });
  }

  /// Searches and writes the chunk as pack_trellis() does, `chunk` having
  /// trellis_chunk_bytes(trellis_bits(x.size(), …), window) bytes or more.
  void encode(std::span<const float> x, std::span<std::uint8_t> chunk) noexcept {
    CAFEQ_ASSERT(!x.empty() &&
                 Index(chunk.size()) >=
                     trellis_chunk_bytes(trellis_bits(Index(x.size()), rate_, window_), window_));
    detail::TrellisWriter writer(rate_, window_, chunk);
    search(x, [&](Index, std::span<const std::uint16_t> found) { writer.write(found); });
    writer.close();
  }

 private:
  static constexpr Index seam = 96, piece = 1024, look_ahead = 64, longest = piece + look_ahead;
  static constexpr int open = -1;

  /// Units of 2^-13; what is no number counts as +4.
  static std::int16_t fixed_point(float value) noexcept {
    const float units = std::max(-32767.0f, std::min(32767.0f, value * 8192.0f));
    return std::int16_t(units < 0 ? units - 0.5f : units + 0.5f);
  }

  /// Squares of 4-bit codes are of four times a difference, which saturates where it is 1. So only
  /// levels near a target matter, and their doubles fit into 16 bits when they are counted from the
  /// nearest of 0, 2 and −2. That is one doubling less in the innermost loop.
  static std::int16_t near(int value, int centre) noexcept {
    constexpr std::array<int, 3> origin{0, 2 << 13, -(2 << 13)};
    return std::int16_t(std::clamp(2 * (value - origin[std::size_t(centre)]), -32768, 32767));
  }
  static int centre_of(int target) noexcept {
    return target >= 1 << 13 ? 1 : target < -(1 << 13) ? 2 : 0;
  }

  std::uint16_t* row(Index i) noexcept {
    return costs_.data() + i * (states_of_code_ >> rate_.code_class());
  }
  const std::int16_t* levels(Index i) const noexcept {
    return levels_.data() + centre_[std::size_t(i)] * states_of_code_;
  }

  /// Hands the states of all weights to `take(first, states)`, a piece at a time.
  template <class Take>
  void search(std::span<const float> x, Take&& take) noexcept {
    x_ = x;
    n_ = trellis_padded(Index(x.size()), rate_, window_);
    const Index half = std::min(seam, n_ / 2);
    chain(n_ - half, 2 * half, open, open);
    const int across = states_[std::size_t(half)] >> detail::trellis_shift(0, n_, rate_);
    int before = across;
    for (Index t = 0; t < n_;) {
      const bool last = n_ - t <= longest;
      chain(t, last ? n_ - t : longest, before, last ? across : open);
      const Index kept = last ? n_ - t : piece;
      take(t, std::span<const std::uint16_t>(states_.data(), std::size_t(kept)));
      t += kept;
      before = states_[std::size_t(kept - 1)] & ((1 << (window_ - shift_[std::size_t(kept)])) - 1);
    }
  }

  /// states_ of `count` weights from `first` on. `begin` are the bits before the new ones of the
  /// first state, `end` those that the state behind the last begins with, or open.
  void chain(Index first, Index count, int begin, int end) noexcept {
    for (Index i = 0, t = first; i <= count; ++i, ++t) {
      if (t >= n_) t -= n_;
      shift_[std::size_t(i)] = std::uint8_t(detail::trellis_shift(t, n_, rate_));
      const std::int16_t target =
          t < Index(x_.size()) ? fixed_point(x_[std::size_t(t)]) : std::int16_t(0);
      const int centre = rate_.code_class() == 4 ? centre_of(target) : 0;
      centre_[std::size_t(i)] = std::uint8_t(centre);
      target_[std::size_t(i)] = rate_.code_class() == 4 ? near(target, centre) : target;
    }
    std::fill_n(row(0), states_of_code_ >> shift_[0],
                begin == open ? std::uint16_t(0) : detail::trellis_most);
    if (begin != open) row(0)[begin] = 0;

    const Index steps = end == open ? count : count - 1;
    switch (rate_.code_class()) {
      case 2: forward<2>(steps); break;
      case 3: forward<3>(steps); break;
      default: forward<4>(steps); break;
    }
    if (end == open) {
      const std::uint16_t* v = row(count);
      end = int(std::min_element(v, v + (states_of_code_ >> shift_[std::size_t(count)])) - v);
    }
    if (rate_.code_class() == 2) trace_back<false>(count, end);
    else trace_back<true>(count, end);
    if (begin != open) begin_with(begin, count);
  }

  template <int Class>
  void forward(Index steps) noexcept {
    std::uint16_t least = 0;
    for (Index i = 0; i < steps; ++i) {
      const auto step = [&]<int Shift, int Next>() {
        return detail::trellis_step<(Class > 2), Shift, Next, Arch>(
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

  template <bool Doubles>
  void trace_back(Index count, int end) noexcept {
    std::uint32_t prefix = std::uint32_t(end);
    for (Index i = count - 1; i >= 0; --i) {
      const int shift = shift_[std::size_t(i)];
      std::uint32_t s = 0;
      switch (shift_[std::size_t(i + 1)]) {
        case 2: s = predecessor<Doubles, 2>(i, prefix); break;
        case 3: s = predecessor<Doubles, 3>(i, prefix); break;
        case 4: s = predecessor<Doubles, 4>(i, prefix); break;
        default: s = predecessor<Doubles, 5>(i, prefix); break;
      }
      states_[std::size_t(i)] = std::uint16_t(s);
      prefix = s >> shift;
    }
  }

  /// The state of weight t of the best chain to those after it that begin with `prefix`.
  template <bool Doubles, int Next>
  std::uint32_t predecessor(Index t, std::uint32_t prefix) noexcept {
    const int target = target_[std::size_t(t)];
    const int shift = shift_[std::size_t(t)];
    const std::uint16_t* v = row(t) + (prefix >> shift);
    const std::int16_t* level = levels(t) + prefix;
    const Index stride = states_of_code_ >> Next;
    const Index v_stride = stride >> shift;
    using Narrow = simd::few_words<Arch, 1 << Next>;
    constexpr int w = int(simd::Words<Narrow>::size);
    if constexpr ((1 << Next) % w == 0) {
      const simd::SignedWords<Narrow> x(target_[std::size_t(t)]);
      std::uint32_t best = std::numeric_limits<std::uint32_t>::max();
      CAFEQ_UNROLL
      for (int j = 0; j < 1 << Next; j += w) {
        const auto sum = detail::trellis_sums<Doubles, Narrow>(
            simd::load_strided<Narrow>(v + j * v_stride, v_stride),
            simd::load_strided<Narrow>(level + j * stride, stride), x);
        const auto [value, lane] = simd::smallest_lane<Narrow>(sum);
        best = std::min(best, value * 32 + std::uint32_t(j) + lane);
      }
      return (best & 31) * std::uint32_t(stride) + prefix;
    }
    // A sum and its predecessor in one number: of equal sums the smallest predecessor has the
    // least.
    std::uint32_t best = std::numeric_limits<std::uint32_t>::max();
    for (std::uint32_t j = 0; j < 1u << Next; j += 4) {
      CAFEQ_UNROLL
      for (std::uint32_t i = 0; i < 4; ++i) {
        const int difference =
            std::clamp((target - level[i * stride]) * (Doubles ? 2 : 1), -32768, 32767);
        best = std::min(
            best, (v[i * v_stride] + (std::uint32_t(difference * difference) >> 16)) * 32 + j + i);
      }
      level += 4 * stride;
      v += 4 * v_stride;
    }
    return (best & 31) * std::uint32_t(stride) + prefix;
  }

  /// The bits before the first weight are given. A chain has them already, unless all of those that
  /// had were so far off that their costs were saturated.
  void begin_with(int begin, Index count) noexcept {
    int taken = 0;
    for (Index i = 0; i < count && (taken += shift_[std::size_t(i)]) < window_; ++i) {
      const int given = begin << taken & int(states_of_code_ - 1);
      states_[std::size_t(i)] =
          std::uint16_t(given | (states_[std::size_t(i)] & ((1 << taken) - 1)));
    }
  }

  TrellisRate rate_;
  int window_;
  Index states_of_code_;
  Buffer<std::int16_t>
      levels_;  // of each state, in units of 2^-13; for 4-bit codes near() 0, 2 and −2
  Buffer<std::uint16_t> costs_;  // v, a row a weight
  std::span<const float> x_;
  Index n_ = 0;
  std::array<std::uint8_t, longest + 1>
      shift_{};  // of the weights of a chain and the one behind them
  std::array<std::uint8_t, longest + 1> centre_{};  // which levels
  std::array<std::int16_t, longest + 1> target_{};
  std::array<std::uint16_t, longest> states_{};
};

/// The meaning of TrellisSearch: the least Σ (x_t − level · unit)² of all cycles whose first state
/// begins with the bits `across`, or of all chains, open at both ends, where `across` is negative.
/// x has all weights of the chunk, also those that nobody reads. Plain loops in double, n ·
/// 2^window of memory.
inline double trellis_search_reference(const TrellisCode& code, TrellisRate rate,
                                       std::span<const double> x, int across,
                                       std::span<std::uint16_t> states) {
  const Index n = Index(x.size());
  const std::uint32_t count = code.states();
  const double infinity = std::numeric_limits<double>::infinity();
  std::vector<double> cost(count), best(count);
  std::vector<std::vector<std::uint8_t>> predecessor(x.size());
  for (Index t = 0; t < n; ++t) {
    const int shift = detail::trellis_shift(t, n, rate);
    const std::uint32_t prefixes = count >> shift;
    if (t == 0) {
      for (std::uint32_t p = 0; p < prefixes; ++p)
        best[p] = across < 0 || p == std::uint32_t(across) ? 0 : infinity;
    } else {
      auto& from = predecessor[std::size_t(t)];
      from.assign(prefixes, 0);
      for (std::uint32_t p = 0; p < prefixes; ++p) {
        best[p] = cost[p];
        for (std::uint32_t j = 1; j < 1u << shift; ++j)
          if (cost[j * prefixes + p] < best[p]) {
            best[p] = cost[j * prefixes + p];
            from[p] = std::uint8_t(j);
          }
      }
    }
    for (std::uint32_t s = 0; s < count; ++s) {
      const double difference = x[std::size_t(t)] - code.level(s) * double(code.unit);
      cost[s] = best[s >> shift] + difference * difference;
    }
  }
  const std::uint32_t prefixes = count >> detail::trellis_shift(0, n, rate);
  std::uint32_t s = across < 0 ? 0 : std::uint32_t(across);
  for (std::uint32_t other = s; other < count; other += across < 0 ? 1 : prefixes)
    if (cost[other] < cost[s]) s = other;
  const double total = cost[s];
  for (Index t = n - 1; t >= 0; --t) {
    states[std::size_t(t)] = std::uint16_t(s);
    if (t == 0) break;
    const int shift = detail::trellis_shift(t, n, rate);
    s >>= shift;
    s |= std::uint32_t(predecessor[std::size_t(t)][s]) << (code.window - shift);
  }
  return total;
}

}  // namespace cafeq::kernel
