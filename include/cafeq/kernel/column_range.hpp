/// The smooth ranges of smooth_range.hpp for sets that are columns: whole rows of vectors at a
/// time, a parameter for each column.
///
/// Four rows are taken together, so that what belongs to a column is loaded and stored once for the
/// four.
#pragma once

#include <algorithm>
#include <type_traits>

#include "cafeq/core/view.hpp"
#include "cafeq/kernel/smooth_range.hpp"

namespace cafeq::kernel {

namespace detail {

inline constexpr Index rows_at_a_time = 4;

/// f(rows, j, n) for n columns from j on: n the width of a vector, less at the end.
template <class Arch, class F>
inline void for_each_column_vector(Index cols, F&& f) noexcept {
  constexpr Index w = Index(Batch<float, Arch>::size);
  Index j = 0;
  for (; j + w <= cols; j += w) f(j, std::integral_constant<Index, w>{});
  if (j < cols) f(j, cols - j);
}

/// n floats, the other lanes zero; n is the width of a vector where the compiler knows it.
template <class Arch, class N>
inline Batch<float, Arch> load_columns(const float* x, N n) noexcept {
  using V = Batch<float, Arch>;
  if constexpr (std::is_same_v<N, Index>) {
    alignas(64) float lane[V::size] = {};
    std::copy_n(x, n, lane);
    return V::load_aligned(lane);
  } else {
    return V::load_unaligned(x);
  }
}
template <class V, class N>
inline void store_columns(float* x, const V& v, N n) noexcept {
  if constexpr (std::is_same_v<N, Index>) {
    alignas(64) float lane[V::size];
    v.store_aligned(lane);
    std::copy_n(lane, n, x);
  } else {
    v.store_unaligned(x);
  }
}

/// f(first row, how many) for groups of rows_at_a_time rows, a number that the compiler knows, and
/// for each of the rows that are left.
template <class F>
inline void for_each_row_group(Index rows, F&& f) noexcept {
  Index i = 0;
  for (; i + rows_at_a_time <= rows; i += rows_at_a_time)
    f(i, std::integral_constant<Index, rows_at_a_time>{});
  for (; i < rows; ++i) f(i, std::integral_constant<Index, 1>{});
}

}  // namespace detail

/// a_j and b_j of every column's peak.
template <class Phi>
void prepare_columns(const Phi& phi, const float* peak, Index n, float* a, float* b) noexcept {
  for (Index j = 0; j < n; ++j) {
    const PeakParameters parameters = phi.prepare(peak[j]);
    a[j] = parameters.a;
    b[j] = parameters.b;
  }
}

/// sum_j = Σ_i φ(X_ij), all in fp32, row after row: for up to about a hundred rows. X is
/// replaced by the slopes. a and b hold the parameters of each column's peak.
template <class Arch = DefaultArch, class Phi>
void column_sums(const Phi& phi, View<float> X, const float* a, const float* b,
                 float* sum) noexcept {
  CAFEQ_ASSERT(X.rows_contiguous());
  using V = Batch<float, Arch>;
  std::fill_n(sum, X.cols, 0.0f);
  detail::with_term(phi, [&](const auto& term) {
    detail::for_each_row_group(X.rows, [&](Index i, auto count) {
      float* x = X.data + i * X.row_stride;
      detail::for_each_column_vector<Arch>(X.cols, [&](Index j, auto n) {
        const V aj = detail::load_columns<Arch>(a + j, n);
        const V bj = detail::load_columns<Arch>(b + j, n);
        V total = detail::load_columns<Arch>(sum + j, n);
        V slope;
        for (Index r = 0; r < count; ++r) {
          term(detail::load_columns<Arch>(x + r * X.row_stride + j, n), aj, bj, total, slope);
          detail::store_columns(x + r * X.row_stride + j, slope, n);
        }
        detail::store_columns(sum + j, total, n);
      });
    });
  });
}

/// X_ij ← X_ij c_j.
template <class Arch = DefaultArch>
void scale_columns(View<float> X, const float* c) noexcept {
  CAFEQ_ASSERT(X.rows_contiguous());
  using V = Batch<float, Arch>;
  detail::for_each_row_group(X.rows, [&](Index i, auto count) {
    float* x = X.data + i * X.row_stride;
    detail::for_each_column_vector<Arch>(X.cols, [&](Index j, auto n) {
      const V factor = detail::load_columns<Arch>(c + j, n);
      for (Index r = 0; r < count; ++r) {
        float* at = x + r * X.row_stride + j;
        detail::store_columns(at, V(detail::load_columns<Arch>(at, n) * factor), n);
      }
    });
  });
}

/// The meaning of column_sums() for one column of given peak, in fp64.
template <class Phi>
double column_sum_reference(const Phi& phi, View<const float> X, Index j, float peak,
                            double* slope) noexcept {
  double sum = 0;
  for (Index i = 0; i < X.rows; ++i) {
    sum += phi.value_reference(double(X(i, j)), double(peak));
    slope[i] = phi.slope_reference(double(X(i, j)), double(peak));
  }
  return sum;
}

}  // namespace cafeq::kernel
