/// The order in which this floor adds: 16 lanes, whatever the width of a vector.
///
/// Element i of a sum goes to lane i mod 16, by explicit fused multiply-adds in float; after each
/// piece of 4096 elements the lanes are added as a tree and the result goes to a double. So all
/// architectures that have FMA get the same bits, and the relative error of a sum of n positive
/// terms stays below (256 + 4)·2^-24 + n/4096·2^-53.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <type_traits>

#include "cafeq/core/numeric.hpp"
#include "cafeq/simd/batch.hpp"

namespace cafeq::kernel {

namespace detail {

inline constexpr Index lanes = 16;
inline constexpr Index longest_piece = 4096;
/// Floats ahead of those it reads that a walk through memory asks for: the more there is to
/// compute, the less far ahead a processor looks by itself.
inline constexpr Index look_ahead = 2048;

/// Vectors that hold the 16 lanes.
template <class Arch>
inline constexpr Index lane_parts = lanes / Index(Batch<float, Arch>::size);

struct EveryLane {
  template <class V>
  V operator()(const V& v) const noexcept {
    return v;
  }
};

/// Zero in the lanes past the end.
template <class V>
struct LanesBelow {
  typename V::batch_bool_type valid;
  V operator()(const V& v) const noexcept { return simd::select(valid, v, V(0.0f)); }
};

/// f(part, vector, keep) for every vector of n floats; `part` tells which of the 16 lanes it holds.
/// The last vectors are filled up with a copy of the last element; keep(v) is v with those lanes
/// zero. A Size that is a constant is a multiple of 16.
template <class Arch, class Size, class F>
inline void for_each_vector(const float* x, Size n, F&& f) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index w = Index(V::size);
  static_assert(lanes % w == 0, "cafeq: a vector has 1 to 16 floats");
  Index i = 0;
  for (; i + lanes <= n; i += lanes) {
    CAFEQ_UNROLL
    for (Index part = 0; part < lane_parts<Arch>; ++part)
      f(part, V::load_unaligned(x + i + part * w), EveryLane{});
  }
  if constexpr (!std::is_same_v<Size, Index>) return;
  if (i == n) return;
  alignas(64) float tail[lanes];
  alignas(64) float position[lanes];
  for (Index l = 0; l < lanes; ++l) {
    tail[l] = x[std::min<Index>(i + l, n - 1)];
    position[l] = float(l);
  }
  const V end(float(n - i));
  CAFEQ_UNROLL
  for (Index part = 0; part < lane_parts<Arch>; ++part) {
    const LanesBelow<V> keep{V::load_aligned(position + part * w) < end};
    f(part, V::load_aligned(tail + part * w), keep);
  }
}
template <class Arch, class F>
inline void for_each_vector(std::span<const float> x, F&& f) noexcept {
  for_each_vector<Arch>(x.data(), Index(x.size()), f);
}

/// The vectors that hold the 16 lanes, added: lane i plus lane i + 8, and, where vectors are
/// shorter, those plus lane i + 4.
template <class Arch>
inline Batch<float, Arch> sum_of_parts(const Batch<float, Arch>* parts) noexcept {
  using V = Batch<float, Arch>;
  V sum[lane_parts<Arch>];
  CAFEQ_UNROLL
  for (Index p = 0; p < lane_parts<Arch>; ++p) sum[p] = parts[p];
  CAFEQ_UNROLL
  for (Index half = lane_parts<Arch> / 2; half > 0; half /= 2) {
    CAFEQ_UNROLL
    for (Index p = 0; p < half; ++p) sum[p] = sum[p] + sum[p + half];
  }
  return sum[0];
}

/// Lane i plus lane i + 8, those plus lane i + 4, and so on.
template <class Arch>
inline float sum_of_lanes(const Batch<float, Arch>* parts) noexcept {
  return simd::reduce_add(sum_of_parts<Arch>(parts));
}

inline float sum_of_lanes_reference(float (&lane)[lanes]) noexcept {
  for (Index half = lanes / 2; half > 0; half /= 2)
    for (Index l = 0; l < half; ++l) lane[l] += lane[l + half];
  return lane[0];
}

/// f(piece) for consecutive pieces of at most 4096 elements.
template <class F>
inline void for_each_piece(std::span<const float> x, F&& f) noexcept {
  for (std::size_t i = 0; i < x.size(); i += std::size_t(longest_piece))
    f(x.subspan(i, std::min(std::size_t(longest_piece), x.size() - i)));
}

/// f(group, its weights) for groups [begin, ⌈n / width⌉).
template <class F>
inline void for_each_group(std::span<const float> x, Index width, Index begin, F&& f) noexcept {
  const Index n = Index(x.size());
  for (Index g = begin, at = begin * width; at < n; ++g, at += width)
    f(std::size_t(g), x.subspan(std::size_t(at), std::size_t(std::min(width, n - at))));
}

/// f(width) with the usual widths as constants, for which loops unroll.
template <class F>
inline void with_width(Index width, F&& f) noexcept {
  switch (width) {
    case 32: return f(std::integral_constant<Index, 32>{});
    case 64: return f(std::integral_constant<Index, 64>{});
    case 128: return f(std::integral_constant<Index, 128>{});
    default: return f(width);
  }
}

}  // namespace detail

}  // namespace cafeq::kernel
