/// Statistics of the columns of a row-major matrix in one pass along its rows.
///
/// Sixteen rows are read side by side, 16 columns at a time, so that what is kept for a column is
/// loaded and stored once for all of them. Results are added to what the caller's arrays hold, so
/// that a matrix may come in slabs of rows. Elements of any type, no NaN among them.
#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "cafeq/core/view.hpp"
#include "cafeq/kernel/extremes.hpp"
#include "cafeq/kernel/moments.hpp"

namespace cafeq::kernel {

namespace detail {

inline constexpr Index column_rows = 16;

/// 16 consecutive elements as floats, the vectors of `part`.
template <class Arch, class T>
inline void load_lanes_of(const T* x, Batch<float, Arch> (&part)[lane_parts<Arch>]) noexcept {
  CAFEQ_UNROLL
  for (Index p = 0; p < lane_parts<Arch>; ++p)
    part[p] = simd::load_float<Arch>(x + p * Index(Batch<float, Arch>::size));
}

/// visit(first row, how many, j, load, count) for 16 rows at a time (a number that the compiler
/// knows; 1 for each row that is left) and for every 16 columns from j on: load(r, part) gives row
/// r of the block, zeros past the `count` columns that are left at the end.
template <class Arch, class T, class F>
inline void for_each_column_block(View<const T> X, F&& visit) noexcept {
  CAFEQ_ASSERT(X.rows_contiguous());
  using V = Batch<float, Arch>;
  const auto block = [&](Index i, auto rows) {
    const T* x = X.data + i * X.row_stride;
    Index j = 0;
    for (; j + lanes <= X.cols; j += lanes) {
      visit(
          i, rows, j,
          [&](Index r, V(&part)[lane_parts<Arch>]) {
            load_lanes_of<Arch>(x + r * X.row_stride + j, part);
          },
          std::integral_constant<Index, lanes>{});
    }
    if (j == X.cols) return;
    const auto load_tail = [&](Index r, V(&part)[lane_parts<Arch>]) {
      alignas(64) T tail[lanes] = {};
      std::copy_n(x + r * X.row_stride + j, X.cols - j, tail);
      load_lanes_of<Arch>(tail, part);
    };
    visit(i, rows, j, load_tail, X.cols - j);
  };
  Index i = 0;
  for (; i + column_rows <= X.rows; i += column_rows)
    block(i, std::integral_constant<Index, column_rows>{});
  for (; i < X.rows; ++i) block(i, std::integral_constant<Index, 1>{});
}

/// kept_j ← f(kept_j, lane j) for `count` columns; count is 16 where the compiler knows it.
template <class Arch, class Count, class F>
inline void update_columns(float* kept, const Batch<float, Arch> (&part)[lane_parts<Arch>],
                           Count count, F&& f) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index w = Index(V::size);
  if constexpr (std::is_same_v<Count, Index>) {
    alignas(64) float lane[2][lanes] = {};
    std::copy_n(kept, count, lane[0]);
    for (Index p = 0; p < lane_parts<Arch>; ++p)
      f(V::load_aligned(lane[0] + p * w), part[p]).store_aligned(lane[1] + p * w);
    std::copy_n(lane[1], count, kept);
  } else {
    CAFEQ_UNROLL
    for (Index p = 0; p < lane_parts<Arch>; ++p)
      f(V::load_unaligned(kept + p * w), part[p]).store_unaligned(kept + p * w);
  }
}

/// kept_j ← kept_j + lane j in double.
template <class Arch, class Count>
inline void add_to_columns(double* kept, const Batch<float, Arch> (&part)[lane_parts<Arch>],
                           Count count) noexcept {
  using V = Batch<float, Arch>;
  using D = Batch<double, Arch>;
  constexpr Index w = Index(V::size);
  if constexpr (std::is_same_v<Count, Index>) {
    alignas(64) float lane[lanes];
    for (Index p = 0; p < lane_parts<Arch>; ++p) part[p].store_aligned(lane + p * w);
    for (Index l = 0; l < count; ++l) kept[l] += double(lane[l]);
  } else {
    CAFEQ_UNROLL
    for (Index p = 0; p < lane_parts<Arch>; ++p) {
      double* to = kept + p * w;
      const auto wide = simd::widen(part[p]);
      (D::load_unaligned(to) + wide.low).store_unaligned(to);
      (D::load_unaligned(to + w / 2) + wide.high).store_unaligned(to + w / 2);
    }
  }
}

}  // namespace detail

/// peak_j ← max(peak_j, max_i |X_ij|).
template <class Arch = DefaultArch, class T>
void column_absmax(View<const T> X, float* peak) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index parts = detail::lane_parts<Arch>;
  detail::for_each_column_block<Arch>(X, [&](Index, auto rows, Index j, auto&& load, auto count) {
    V most[parts], x[parts];
    CAFEQ_UNROLL
    for (Index p = 0; p < parts; ++p) most[p] = V(0.0f);
    for (Index r = 0; r < rows; ++r) {
      load(r, x);
      CAFEQ_UNROLL
      for (Index p = 0; p < parts; ++p) most[p] = simd::max(most[p], simd::abs(x[p]));
    }
    detail::update_columns<Arch>(peak + j, most, count,
                                 [](const V& a, const V& b) { return simd::max(a, b); });
  });
}

/// low_j ← min(low_j, min_i X_ij), high_j ← max(high_j, max_i X_ij).
template <class Arch = DefaultArch, class T>
void column_ranges(View<const T> X, float* low, float* high) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index parts = detail::lane_parts<Arch>;
  detail::for_each_column_block<Arch>(X, [&](Index, auto rows, Index j, auto&& load, auto count) {
    V least[parts], most[parts], x[parts];
    load(0, least);
    CAFEQ_UNROLL
    for (Index p = 0; p < parts; ++p) most[p] = least[p];
    for (Index r = 1; r < rows; ++r) {
      load(r, x);
      CAFEQ_UNROLL
      for (Index p = 0; p < parts; ++p) {
        least[p] = simd::min(least[p], x[p]);
        most[p] = simd::max(most[p], x[p]);
      }
    }
    detail::update_columns<Arch>(low + j, least, count,
                                 [](const V& a, const V& b) { return simd::min(a, b); });
    detail::update_columns<Arch>(high + j, most, count,
                                 [](const V& a, const V& b) { return simd::max(a, b); });
  });
}

/// sum_j ← sum_j + Σ_i f_i X_ij and squares_j ← squares_j + Σ_i (f_i X_ij)², f_i = 1 where `factor`
/// is null. Sixteen rows are added in fp32, in order, by fused multiply-adds, then in fp64: the
/// relative error of the squares is below 18·2^-24, and the same bits on every architecture that
/// has them.
template <class Arch = DefaultArch, class T>
void column_moments(View<const T> X, const float* factor, double* sum, double* squares) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index parts = detail::lane_parts<Arch>;
  detail::for_each_column_block<Arch>(X, [&](Index i, auto rows, Index j, auto&& load, auto count) {
    V total[parts], square[parts], x[parts];
    CAFEQ_UNROLL
    for (Index p = 0; p < parts; ++p) total[p] = square[p] = V(0.0f);
    for (Index r = 0; r < rows; ++r) {
      load(r, x);
      const V f(factor == nullptr ? 1.0f : factor[i + r]);
      CAFEQ_UNROLL
      for (Index p = 0; p < parts; ++p) {
        total[p] = simd::fma(x[p], f, total[p]);
        const V scaled = x[p] * f;
        square[p] = simd::fma(scaled, scaled, square[p]);
      }
    }
    detail::add_to_columns<Arch>(sum + j, total, count);
    detail::add_to_columns<Arch>(squares + j, square, count);
  });
}

/// Σ_j f_j x_j and Σ_j (f_j x_j)² of one row: 16 lanes of fused multiply-adds in fp32 over blocks
/// of 256, then fp64; the relative error of the squares is below 22·2^-24.
template <class Arch = DefaultArch, class T>
Moments scaled_row_moments(const T* x, const float* factor, Index n) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index parts = detail::lane_parts<Arch>;
  constexpr Index w = Index(V::size);
  constexpr Index block = 256;
  Moments moments;
  V v[parts], f[parts];
  for (Index begin = 0; begin < n; begin += block) {
    const Index end = std::min(n, begin + block);
    V sum[parts], squares[parts];
    CAFEQ_UNROLL
    for (Index p = 0; p < parts; ++p) sum[p] = squares[p] = V(0.0f);
    const auto add = [&] {
      CAFEQ_UNROLL
      for (Index p = 0; p < parts; ++p) {
        sum[p] = simd::fma(v[p], f[p], sum[p]);
        const V scaled = v[p] * f[p];
        squares[p] = simd::fma(scaled, scaled, squares[p]);
      }
    };
    Index j = begin;
    for (; j + detail::lanes <= end; j += detail::lanes) {
      detail::load_lanes_of<Arch>(x + j, v);
      CAFEQ_UNROLL
      for (Index p = 0; p < parts; ++p) f[p] = V::load_unaligned(factor + j + p * w);
      add();
    }
    if (j < end) {
      alignas(64) T tail[detail::lanes] = {};
      alignas(64) float factors[detail::lanes] = {};
      std::copy(x + j, x + end, tail);
      std::copy(factor + j, factor + end, factors);
      detail::load_lanes_of<Arch>(tail, v);
      detail::load_lanes_of<Arch>(factors, f);
      add();
    }
    moments.sum += double(detail::sum_of_lanes<Arch>(sum));
    moments.sum_squares += double(detail::sum_of_lanes<Arch>(squares));
  }
  return moments;
}

/// The meaning of column_absmax(), column_ranges() and column_moments() for one column.
template <class T>
float column_absmax_reference(View<const T> X, Index j, float peak) noexcept {
  for (Index i = 0; i < X.rows; ++i) peak = std::max(peak, std::abs(float(X(i, j))));
  return peak;
}
template <class T>
Range column_range_reference(View<const T> X, Index j, Range range) noexcept {
  for (Index i = 0; i < X.rows; ++i)
    range = {std::min(range.min, float(X(i, j))), std::max(range.max, float(X(i, j)))};
  return range;
}
template <class T>
Moments column_moments_reference(View<const T> X, const float* factor, Index j,
                                 Moments moments) noexcept {
  const auto add = [&](Index begin, Index end) {
    float sum = 0, squares = 0;
    for (Index i = begin; i < end; ++i) {
      const float x = float(X(i, j)), f = factor == nullptr ? 1.0f : factor[i];
      sum = std::fma(x, f, sum);
      const float scaled = x * f;
      squares = std::fma(scaled, scaled, squares);
    }
    moments.sum += double(sum);
    moments.sum_squares += double(squares);
  };
  Index i = 0;
  for (; i + detail::column_rows <= X.rows; i += detail::column_rows)
    add(i, i + detail::column_rows);
  for (; i < X.rows; ++i) add(i, i + 1);
  return moments;
}

/// The meaning of scaled_row_moments(), in fp64.
template <class T>
Moments scaled_row_moments_reference(const T* x, const float* factor, Index n) noexcept {
  Moments moments;
  for (Index j = 0; j < n; ++j) {
    const double scaled = double(float(x[j])) * double(factor[j]);
    moments.sum += scaled;
    moments.sum_squares += scaled * scaled;
  }
  return moments;
}

}  // namespace cafeq::kernel
