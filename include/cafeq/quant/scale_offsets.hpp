/// ScaleOffsets: the scale and the offset of each of some groups, side by side, so that what is to
/// be done for one group is done for all of them in a few vectors.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>

#include "cafeq/kernel/extremes.hpp"
#include "cafeq/kernel/level_sums.hpp"
#include "cafeq/kernel/moments.hpp"
#include "cafeq/kernel/squared_error.hpp"

namespace cafeq {

/// x̂ = scale[g] · level + offset[g] for up to scale.size() groups. What belongs to no group is
/// zero.
struct ScaleOffsets {
  alignas(kernel::each_alignment) kernel::Each<float> scale{};
  alignas(kernel::each_alignment) kernel::Each<float> offset{};
};

namespace detail {

using kernel::Each;
using kernel::each_alignment;
using kernel::GroupSpan;
using kernel::ScaleOffset;

inline constexpr std::size_t groups_at_once = std::size_t(kernel::groups_at_once);

/// A number for each of as many groups as a vector has lanes.
using Lane = Batch<float>;

/// f(g) for the first group of every vector of groups.
template <class F>
void for_each_lanes(F&& f) noexcept {
  CAFEQ_UNROLL
  for (std::size_t g = 0; g < groups_at_once; g += Lane::size) f(g);
}
inline Lane load(const Each<float>& each, std::size_t g) noexcept {
  return Lane::load_unaligned(each.data() + g);
}
inline void store(Each<float>& each, std::size_t g, const Lane& v) noexcept {
  v.store_unaligned(each.data() + g);
}

inline Lane inverse_of(const Lane& scale) noexcept {
  return simd::select(scale != Lane(0.0f), Lane(1.0f) / scale, Lane(0.0f));
}

/// Copies what `count` groups have, mostly as many as usual.
template <class T>
void copy_groups(const T* from, std::size_t count, T* to) noexcept {
  if (count == groups_at_once) std::copy_n(from, groups_at_once, to);
  else std::copy_n(from, count, to);
}

/// f(number of the first group, groups) for the groups of a row, as many at once as there are in
/// ScaleOffsets, or one where groups are wide.
template <class F>
void for_each_groups(std::span<const float> x, Index width, F&& f) noexcept {
  const Index n = Index(x.size());
  const Index at_once = width <= kernel::detail::longest_piece ? kernel::groups_at_once : 1;
  for (Index j = 0, first = 0; j < n; j += at_once * width, first += at_once)
    f(std::size_t(first),
      GroupSpan{x.subspan(std::size_t(j), std::size_t(std::min(at_once * width, n - j))), width});
}

/// The nearest fp16 that is finite.
inline fp16 finite_fp16(float value) noexcept {
  return fp16(std::fmin(std::fmax(value, -fp16_max), fp16_max));
}
inline Each<fp16> finite_fp16(const Each<float>& values) noexcept {
  Each<fp16> halves;
  for_each_lanes([&](std::size_t g) {
    simd::store_float<DefaultArch>(
        halves.data() + g, simd::min(simd::max(load(values, g), Lane(-fp16_max)), Lane(fp16_max)));
  });
  return halves;
}
inline Lane load(const Each<fp16>& halves, std::size_t g) noexcept {
  return simd::load_float<DefaultArch>(halves.data() + g);
}

}  // namespace detail

}  // namespace cafeq
