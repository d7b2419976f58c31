/// Error feedback and coordinate descent inside a batch of lines, codes included.
///
/// All targets are single chains of explicit fused multiply-adds, in an order that depends on the
/// batch alone: every architecture that fuses gets the same bits, at any number of lanes.
#pragma once

#include <cmath>
#include <type_traits>

#include "cafeq/kernel/line_batch.hpp"

namespace cafeq::kernel {

namespace detail {

/// t += Σ c(i)·R_i over the lines i = first, first + step, … before last, in this order, for Count
/// vectors of lanes from l on.
template <Index Count, class V>
void add_lines(V* t, View<const float> R, Index l, Index first, Index last, Index step,
               const float* c, Index c_stride) noexcept {
  constexpr Index w = Index(V::size);
  for (Index i = first; i != last; i += step) {
    const V factor(c[i * c_stride]);
    const float* r = R.data + i * R.row_stride + l;
    CAFEQ_UNROLL
    for (Index v = 0; v < Count; ++v) t[v] = simd::fma(factor, V::load_unaligned(r + v * w), t[v]);
  }
}

/// feed_back() for Count vectors of lanes from l on.
template <bool Half, class Arch, Index Count>
inline void feed_back_lanes(const LineBatch& b, Index l) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index w = Index(V::size);
  const Index n = b.X.rows;
  for (Index j = n - 1; j >= 0; --j) {
    V t[Count];
    CAFEQ_UNROLL
    for (Index v = 0; v < Count; ++v)
      t[v] = V::load_unaligned(b.T.data + j * b.T.row_stride + l + v * w);
    add_lines<Count>(t, b.E, l, n - 1, j, -1, b.coupling.data + j * b.coupling.col_stride,
                     b.coupling.row_stride);

    CAFEQ_UNROLL
    for (Index v = 0; v < Count; ++v)
      round_lanes<Half>(b, j, l + v * w, t[v])
          .store_unaligned(b.E.data + j * b.E.row_stride + l + v * w);
  }
}

/// descend() for Count vectors of lanes from l on.
template <bool Half, class Arch, Index Count>
inline void descend_lanes(const LineBatch& b, View<float> change, Index l) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index w = Index(V::size);
  for (Index j = 0; j < b.X.rows; ++j) {
    V t[Count];
    CAFEQ_UNROLL
    for (Index v = 0; v < Count; ++v)
      t[v] = V::load_unaligned(b.T.data + j * b.T.row_stride + l + v * w);
    add_lines<Count>(t, change, l, 0, j, 1, b.coupling.data + j * b.coupling.row_stride,
                     b.coupling.col_stride);

    const V inverse(1.0f / b.coupling(j, j));
    CAFEQ_UNROLL
    for (Index v = 0; v < Count; ++v) {
      float* error = b.E.data + j * b.E.row_stride + l + v * w;
      const V before = V::load_unaligned(error);
      const V kept = V::load_unaligned(b.X.data + j * b.X.row_stride + l + v * w) - before;
      const V after = round_lanes<Half>(b, j, l + v * w, simd::fma(t[v], inverse, kept));
      after.store_unaligned(error);
      (after - before).store_unaligned(change.data + j * change.row_stride + l + v * w);
    }
  }
}

/// f(count, l) for all lanes from l on, `count` vectors of them, a constant: 32 lanes at a time
/// where there are as many, since two or four chains hide one another's latency.
template <class Arch, class F>
inline void for_each_vector(Index width, F&& f) noexcept {
  constexpr Index vectors = lane_multiple / Index(Batch<float, Arch>::size);
  CAFEQ_ASSERT(width % lane_multiple == 0);
  Index l = 0;
  for (; l + 2 * lane_multiple <= width; l += 2 * lane_multiple)
    f(std::integral_constant<Index, 2 * vectors>{}, l);
  if (l < width) f(std::integral_constant<Index, vectors>{}, l);
}

}  // namespace detail

/// Error feedback inside the batch, last line first: t_j = T_j + Σ_{i>j} L_ij e_i, i descending, is
/// rounded and leaves e_j = x_j − x̂_j. T holds X and what lines outside add to it. Lanes a multiple
/// of lane_multiple.
template <bool Half, class Arch = DefaultArch>
void feed_back(const LineBatch& batch) noexcept {
  detail::for_each_vector<Arch>(batch.X.cols, [&](auto count, Index l) {
    detail::feed_back_lanes<Half, Arch, decltype(count)::value>(batch, l);
  });
}

/// Coordinate descent inside the batch, first line first: g_j = T_j + Σ_{i<j} H_ji Δ_i, i
/// ascending, t_j = x_j − e_j + g_j/H_jj is rounded; e_j becomes x_j − x̂_j and Δ_j, line j of
/// `change` [n, m], what that differs by. T is H·E before the batch.
template <bool Half, class Arch = DefaultArch>
void descend(const LineBatch& batch, View<float> change) noexcept {
  detail::for_each_vector<Arch>(batch.X.cols, [&](auto count, Index l) {
    detail::descend_lanes<Half, Arch, decltype(count)::value>(batch, change, l);
  });
}

/// The meaning of feed_back(), lane by lane.
template <bool Half>
void feed_back_reference(const LineBatch& b) noexcept {
  for (Index j = b.X.rows - 1; j >= 0; --j)
    for (Index l = 0; l < b.X.cols; ++l) {
      float t = b.T(j, l);
      for (Index i = b.X.rows - 1; i > j; --i) t = std::fma(b.coupling(i, j), b.E(i, l), t);
      b.E(j, l) = detail::round_lane_reference<Half>(b, j, l, t);
    }
}

/// The meaning of descend(), lane by lane.
template <bool Half>
void descend_reference(const LineBatch& b, View<float> change) noexcept {
  for (Index j = 0; j < b.X.rows; ++j)
    for (Index l = 0; l < b.X.cols; ++l) {
      float g = b.T(j, l);
      for (Index i = 0; i < j; ++i) g = std::fma(b.coupling(j, i), change(i, l), g);
      const float before = b.E(j, l);
      b.E(j, l) = detail::round_lane_reference<Half>(
          b, j, l, std::fma(g, 1.0f / b.coupling(j, j), b.X(j, l) - before));
      change(j, l) = b.E(j, l) - before;
    }
}

}  // namespace cafeq::kernel
