/// The steps of the Viterbi search for the states of a trellis code (trellis/code.hpp): given
/// targets x, the chain of states with small Σ (x_t − level · unit)².
///
/// With v_t[p] the least cost of a chain up to weight t − 1 whose next state begins with the bits p
/// (window − k_t of them; k_t new bits come with weight t), and d_t(s) = (x_t − level(s) · unit)²:
///
///     v_{t+1}[p] = min over the states s that end with p of v_t[s >> k_t] + d_t(s)
///
/// Only v is kept, one row a weight. What preceded p is found again on the way back, from 2^k sums
/// a weight, which costs less than to note it for every p on the way there; and d is computed where
/// it is added, so that a step reads v_t and the levels and writes v_{t+1}, all in L1.
///
/// Costs are whole numbers: targets and levels are rounded to units of 2^-13, squares to units of
/// 2^-10, 2^-12 and 2^-14 for codes of at most 2, of 3 and of 4 bits. They saturate where a weight
/// is off by 4, 2 and 1. From each v the least one of the row before is subtracted, and it is
/// capped so that no sum overflows: at 48, 12 and 3 times the variance of the targets. Of equal
/// sums the smallest predecessor wins. So every architecture gives the same states.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>

#include "cafeq/core/numeric.hpp"
#include "cafeq/simd/words16.hpp"

namespace cafeq::kernel::detail {

/// A target or a level in units of 2^-13; what is no number counts as +4.
inline std::int16_t fixed_point(float value) noexcept {
  const float units = std::max(-32767.0f, std::min(32767.0f, value * 8192.0f));
  return std::int16_t(units < 0 ? units - 0.5f : units + 0.5f);
}

/// Squares of 4-bit codes are of four times a difference, which saturates where it is 1. So only
/// levels near a target matter, and their doubles fit into 16 bits when they are counted from the
/// nearest of 0, 2 and −2. That is one doubling less in the innermost loop.
inline std::int16_t near(int value, int centre) noexcept {
  constexpr std::array<int, 3> origin{0, 2 << 13, -(2 << 13)};
  return std::int16_t(std::clamp(2 * (value - origin[std::size_t(centre)]), -32768, 32767));
}
/// Which of 0, 2 and −2 is nearest.
inline int centre_of(int target) noexcept {
  return target >= 1 << 13 ? 1 : target < -(1 << 13) ? 2 : 0;
}

/// The largest v: a square, at most 2^14, added to it does not overflow.
inline constexpr std::uint16_t most_cost = 0xffff - (1 << 14);

/// v + d of as many states as there are lanes: costs, and the squares of the differences of target
/// and levels. Doubles: of twice the differences.
template <bool Doubles, class Arch>
inline simd::Words<Arch> costs_with(simd::Words<Arch> cost, simd::SignedWords<Arch> level,
                                    simd::SignedWords<Arch> target) noexcept {
  simd::SignedWords<Arch> difference = simd::ssub(target, level);
  if constexpr (Doubles) difference = simd::sadd(difference, difference);
  return cost + simd::square_high<Arch>(difference);
}

/// A step forward: `after`, v_{t+1} of `states` >> Next words, from `before`, v_t of `states` >>
/// Shift. `least` is the smallest word of `before`; returns the smallest of `after`.
template <bool Doubles, int Shift, int Next, class Arch>
std::uint16_t step_forward(const std::uint16_t* before, std::uint16_t* after,
                           const std::int16_t* levels, Index states, std::int16_t target,
                           std::uint16_t least) noexcept {
  using simd::Words, simd::SignedWords;
  // Four vectors of prefixes at a time, which hide each other's latency, but no more than there
  // are: a code has 1,024 states or more.
  constexpr Index w = Index(Words<Arch>::size);
  constexpr Index some = std::max(w, std::min<Index>(4 * w, 1024 >> Next));
  constexpr int vectors = int(some / w);
  static_assert(some % (Index(1) << Shift) == 0 || (Index(1) << Shift) % some == 0);

  const SignedWords<Arch> x(target);
  const Words<Arch> base(least), most(most_cost);
  Words<Arch> smallest(std::uint16_t(0xffff));
  const Index prefixes = states >> Next;
  for (Index p = 0; p < prefixes; p += some) {
    // State s = p + j · prefixes ends with the bits p, and s >> Shift is what it begins with.
    Words<Arch> best[vectors];
    const auto join = [&](Index j) {
      const Index s = p + j * prefixes;
      const std::uint16_t* cost = before + (s >> Shift);
      CAFEQ_UNROLL
      for (int v = 0; v < vectors; ++v) {
        const Words<Arch> sum =
            costs_with<Doubles, Arch>(simd::load_repeated<Shift, Arch>(cost + (v * w >> Shift)),
                                      SignedWords<Arch>::load_aligned(levels + s + v * w), x);
        best[v] = j == 0 ? sum : simd::min_words<Arch>(best[v], sum);
      }
    };
    constexpr int some_states = std::min(4, 1 << Next);
    CAFEQ_UNROLL
    for (int j = 0; j < some_states; ++j) join(j);
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

/// A step back: the state of the best chain through v_t = `costs` to the states after it that begin
/// with the bits `prefix`. `shift` bits came with this weight, Next come with the one after it.
template <bool Doubles, int Next, class Arch>
std::uint32_t step_back(const std::uint16_t* costs, const std::int16_t* levels, Index states,
                        std::int16_t target, int shift, std::uint32_t prefix) noexcept {
  const std::uint16_t* v = costs + (prefix >> shift);
  const std::int16_t* level = levels + prefix;
  const Index stride = states >> Next;
  const Index v_stride = stride >> shift;

  // A sum and its predecessor are one number: of equal sums the smallest predecessor has the least.
  std::uint32_t best = std::numeric_limits<std::uint32_t>::max();
  using Narrow = simd::few_words<Arch, 1 << Next>;
  constexpr int w = int(simd::Words<Narrow>::size);
  if constexpr ((1 << Next) % w == 0) {
    const simd::SignedWords<Narrow> x(target);
    CAFEQ_UNROLL
    for (int j = 0; j < 1 << Next; j += w) {
      const auto sum =
          costs_with<Doubles, Narrow>(simd::load_strided<Narrow>(v + j * v_stride, v_stride),
                                      simd::load_strided<Narrow>(level + j * stride, stride), x);
      const auto [value, lane] = simd::smallest_lane<Narrow>(sum);
      best = std::min(best, value * 32 + std::uint32_t(j) + lane);
    }
  } else {
    constexpr std::uint32_t some_states = std::min(4u, 1u << Next);
    for (std::uint32_t j = 0; j < 1u << Next; j += some_states) {
      CAFEQ_UNROLL
      for (std::uint32_t i = 0; i < some_states; ++i) {
        const int difference =
            std::clamp((int(target) - level[i * stride]) * (Doubles ? 2 : 1), -32768, 32767);
        best = std::min(
            best, (v[i * v_stride] + (std::uint32_t(difference * difference) >> 16)) * 32 + j + i);
      }
      level += some_states * stride;
      v += some_states * v_stride;
    }
  }
  return (best & 31) * std::uint32_t(stride) + prefix;
}

}  // namespace cafeq::kernel::detail
