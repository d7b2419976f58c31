/// Weights seen in units of a scale: which level is nearest, and how far away.
///
/// A weight in units of the scale is u = fma(y, 1/s, shift) with y = x − pivot: its level c is the
/// nearest, its error (u − c)·s. `levels` is a function object as kernel/codec.hpp has them; those
/// of a uniform grid are counted from zero, so their clamp needs no sign.
#pragma once

#include <cmath>

#include "cafeq/kernel/codec.hpp"
#include "cafeq/kernel/group_span.hpp"

namespace cafeq::kernel {

/// What takes the levels that these kernels count to those of the grid; −bias is the shift without
/// an offset.
template <class Levels>
float level_bias(const Levels& levels) noexcept {
  if constexpr (requires { levels.bias(); }) return levels.bias();
  else return 0.0f;
}

/// How the groups are seen at a candidate: u = fma(y, inverse, shift). Without an offset the shift
/// is −level_bias() and not read. Nothing is cleared: only what belongs to a group is read.
struct Units {
  alignas(each_alignment) Each<float> inverse;
  alignas(each_alignment) Each<float> shift;
};

namespace detail {

/// Levels that are counted from zero, so that their clamp needs no sign.
template <class Levels>
concept Counted = requires(const Levels& levels, float u) { levels.nearest(u); };

/// y of a weight x: how far it is above the pivot, or its magnitude where levels are symmetric.
template <class Levels, class V>
V relative(const Levels& levels, const V& x, const V& pivot) noexcept {
  if constexpr (Levels::has_offset) return x - pivot;
  else if constexpr (Counted<Levels>) return levels.fold(x);
  else return x;
}
/// The level nearest to u, as these kernels count levels.
template <class Levels, class V>
V nearest(const Levels& levels, const V& u) noexcept {
  if constexpr (Counted<Levels>) return levels.nearest(u);
  else return levels(u);
}

/// f(lane, y, level, u) for the weights of a group seen at a candidate; after each piece of 4096,
/// and at the end, done().
template <class Levels, class F, class Done>
void for_each_weight(const GroupSpan& groups, std::size_t g, const Levels& levels,
                     const Units& units, F&& f, Done&& done) noexcept {
  const float pivot = Levels::has_offset ? groups.pivot[g] : 0.0f;
  const float shift = Levels::has_offset ? units.shift[g] : -level_bias(levels);
  for_each_piece(groups.group(Index(g)), [&](std::span<const float> piece) {
    for (std::size_t i = 0; i < piece.size(); ++i) {
      const float y = relative(levels, piece[i], pivot);
      const float u = std::fma(y, units.inverse[g], shift);
      f(i % std::size_t(lanes), y, nearest(levels, u), u);
    }
    done();
  });
}

}  // namespace detail

}  // namespace cafeq::kernel
