/// Range and moments of a span: what the scale of a group is found from.
///
/// Every sum of this floor runs in 16 lanes, element i in lane i mod 16, whatever the width of a vector, by explicit fused multiply-adds in
/// float; after each block of 4096 elements the lanes are added as a tree and the result goes to a double. So all architectures that have FMA get the
/// same bits, and the relative error of a sum of n positive terms stays below (256 + 4)·2^-24 + n/4096·2^-53.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>

#include "cafeq/core/numeric.hpp"
#include "cafeq/simd/arch.hpp"

namespace cafeq::kernel {

struct Range {
  float min = 0;
  float max = 0;
  float absmax() const noexcept { return std::max(-min, max); }
};

struct Moments {
  double sum = 0;
  double sum_squares = 0;
};

namespace detail {

inline constexpr Index lanes = 16;
inline constexpr Index lane_block = 4096;

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
  V operator()(const V& v) const noexcept { return xsimd::select(valid, v, V(0.0f)); }
};

/// f(part, vector, keep) for every vector of x; `part` tells which of the 16 lanes it holds. The last vectors are filled up with a copy of
/// the last element; keep(v) is v with those lanes zero.
template <class Arch, class F>
inline void for_each_vector(std::span<const float> x, F&& f) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index w = Index(V::size);
  static_assert(lanes % w == 0, "cafeq: a vector has 1 to 16 floats");
  const Index n = Index(x.size());
  Index i = 0;
  for (; i + lanes <= n; i += lanes) {
    CAFEQ_UNROLL
    for (Index part = 0; part < lane_parts<Arch>; ++part) f(part, V::load_unaligned(x.data() + i + part * w), EveryLane{});
  }
  if (i == n) return;
  alignas(64) float tail[lanes];
  alignas(64) float position[lanes];
  for (Index l = 0; l < lanes; ++l) {
    tail[l] = x[std::size_t(std::min(i + l, n - 1))];
    position[l] = float(l);
  }
  const V end(float(n - i));
  CAFEQ_UNROLL
  for (Index part = 0; part < lane_parts<Arch>; ++part) {
    const LanesBelow<V> keep{V::load_aligned(position + part * w) < end};
    f(part, V::load_aligned(tail + part * w), keep);
  }
}

/// Lane i plus lane i + 8, those plus lane i + 4, and so on.
template <class Arch>
inline float sum_of_lanes(const Batch<float, Arch>* parts) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index w = Index(V::size);
  V sum[lane_parts<Arch>];
  CAFEQ_UNROLL
  for (Index p = 0; p < lane_parts<Arch>; ++p) sum[p] = parts[p];
  CAFEQ_UNROLL
  for (Index half = lane_parts<Arch> / 2; half > 0; half /= 2) {
    CAFEQ_UNROLL
    for (Index p = 0; p < half; ++p) sum[p] = sum[p] + sum[p + half];
  }
  alignas(64) float lane[w];
  sum[0].store_aligned(lane);
  CAFEQ_UNROLL
  for (Index half = w / 2; half > 0; half /= 2) {
    CAFEQ_UNROLL
    for (Index l = 0; l < half; ++l) lane[l] += lane[l + half];
  }
  return lane[0];
}

inline float sum_of_lanes_reference(float (&lane)[lanes]) noexcept {
  for (Index half = lanes / 2; half > 0; half /= 2)
    for (Index l = 0; l < half; ++l) lane[l] += lane[l + half];
  return lane[0];
}

/// f(block) for consecutive blocks of at most 4096 elements.
template <class F>
inline void for_each_block(std::span<const float> x, F&& f) noexcept {
  for (std::size_t i = 0; i < x.size(); i += std::size_t(lane_block)) f(x.subspan(i, std::min(std::size_t(lane_block), x.size() - i)));
}

}  // namespace detail

/// Smallest and largest element; zeros for an empty span. Elements must not be NaN.
template <class Arch = DefaultArch>
Range range(std::span<const float> x) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index parts = detail::lane_parts<Arch>;
  if (x.empty()) return {};
  V low[parts], high[parts];
  CAFEQ_UNROLL
  for (Index p = 0; p < parts; ++p) low[p] = high[p] = V(x[0]);
  detail::for_each_vector<Arch>(x, [&](Index p, const V& v, auto) {
    low[p] = xsimd::min(low[p], v);
    high[p] = xsimd::max(high[p], v);
  });
  alignas(64) float lane[2][detail::lanes];
  CAFEQ_UNROLL
  for (Index p = 0; p < parts; ++p) {
    low[p].store_aligned(lane[0] + p * Index(V::size));
    high[p].store_aligned(lane[1] + p * Index(V::size));
  }
  return {*std::min_element(lane[0], lane[0] + detail::lanes), *std::max_element(lane[1], lane[1] + detail::lanes)};
}

inline Range range_reference(std::span<const float> x) noexcept {
  if (x.empty()) return {};
  Range r{x[0], x[0]};
  for (const float v : x) r = {std::min(r.min, v), std::max(r.max, v)};
  return r;
}

/// Σ x and Σ x². Infinite where a block's sum exceeds the floats.
template <class Arch = DefaultArch>
Moments moments(std::span<const float> x) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index parts = detail::lane_parts<Arch>;
  Moments total;
  detail::for_each_block(x, [&](std::span<const float> block) {
    V sum[parts], squares[parts];
    CAFEQ_UNROLL
    for (Index p = 0; p < parts; ++p) sum[p] = squares[p] = V(0.0f);
    detail::for_each_vector<Arch>(block, [&](Index p, const V& v, auto keep) {
      const V kept = keep(v);
      sum[p] = sum[p] + kept;
      squares[p] = xsimd::fma(kept, kept, squares[p]);
    });
    total.sum += double(detail::sum_of_lanes<Arch>(sum));
    total.sum_squares += double(detail::sum_of_lanes<Arch>(squares));
  });
  return total;
}

inline Moments moments_reference(std::span<const float> x) noexcept {
  Moments total;
  detail::for_each_block(x, [&](std::span<const float> block) {
    float sum[detail::lanes] = {}, squares[detail::lanes] = {};
    for (std::size_t i = 0; i < block.size(); ++i) {
      const std::size_t l = i % std::size_t(detail::lanes);
      sum[l] += block[i];
      squares[l] = std::fma(block[i], block[i], squares[l]);
    }
    total.sum += double(detail::sum_of_lanes_reference(sum));
    total.sum_squares += double(detail::sum_of_lanes_reference(squares));
  });
  return total;
}

}  // namespace cafeq::kernel
