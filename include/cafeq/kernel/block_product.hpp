/// Products that replace one factor: X ← X·M and X ← A·X for small square M and A, through a panel of scratch.
///
/// Every element is the chain of fused multiply-adds of kernel::multiply, so neither strides nor panels change a bit.
#pragma once

#include <algorithm>
#include <span>

#include "cafeq/core/matrix.hpp"
#include "cafeq/kernel/product.hpp"

namespace cafeq::kernel {

namespace detail {

inline constexpr Index in_place_rows = 96;  // rows of X that share one packed panel of M
inline constexpr Index in_place_cols = 64;  // columns of X that are replaced at a time from the left

}  // namespace detail

/// Elements of scratch that the in-place products ask for, with M or A [k, k].
template <class T, class Arch = DefaultArch>
constexpr Index in_place_scratch(Index k) noexcept {
  return k * (std::max(detail::in_place_rows, detail::in_place_cols) + 2 * Index(Batch<T, Arch>::size));
}

/// X ← X·M for X [n, k] and M [k, k], both of any strides.
template <class T, class Arch = DefaultArch>
void multiply_right_in_place(View<T> X, View<const T> M, std::span<T> scratch) noexcept {
  const Index k = M.rows;
  CAFEQ_ASSERT(X.cols == k && M.cols == k && Index(scratch.size()) >= in_place_scratch<T>(k));
  constexpr Index width = 2 * Index(Batch<T, Arch>::size);
  constexpr Index direct_rows = 24;  // rows that kernel::multiply takes without packing a full panel
  const View<T> panel{scratch.data(), k, width, width, 1};
  const View<T> result{scratch.data() + k * width, detail::in_place_rows, k, k, 1};
  for (Index i = 0; i < X.rows; i += detail::in_place_rows) {
    const Index n = std::min(detail::in_place_rows, X.rows - i);
    const View<T> rows = X.row_block(i, n);
    for (Index j = 0; j < k; j += width) {
      const Index nc = std::min(width, k - j);
      const bool pack = nc == width && n > direct_rows;
      if (pack) copy(M.col_block(j, width), panel);
      const View<const T> factor = pack ? View<const T>(panel) : M.col_block(j, nc);
      for (Index r = 0; r < n; r += direct_rows) {
        const Index m = std::min(direct_rows, n - r);
        multiply<T, Arch>(rows.row_block(r, m), factor, result.block(r, j, m, nc));
      }
    }
    copy(result.row_block(0, n), rows);
  }
}

/// X ← A·X for A [k, k] and X [k, n], both of any strides.
template <class T, class Arch = DefaultArch>
void multiply_left_in_place(View<const T> A, View<T> X, std::span<T> scratch) noexcept {
  const Index k = A.rows;
  CAFEQ_ASSERT(X.rows == k && A.cols == k && Index(scratch.size()) >= in_place_scratch<T>(k));
  for (Index j = 0; j < X.cols; j += detail::in_place_cols) {
    const Index n = std::min(detail::in_place_cols, X.cols - j);
    const View<T> columns = X.col_block(j, n);
    const View<T> result{scratch.data(), k, n, detail::in_place_cols, 1};
    multiply<T, Arch>(A, columns, result);
    copy(result, columns);
  }
}

/// The meaning of multiply_right_in_place().
template <class T>
void multiply_right_in_place_reference(View<T> X, View<const T> M) noexcept {
  Matrix<T> result(X.rows, X.cols);
  multiply_reference<T>(X, M, result.view());
  copy(result.view(), X);
}

/// The meaning of multiply_left_in_place().
template <class T>
void multiply_left_in_place_reference(View<const T> A, View<T> X) noexcept {
  Matrix<T> result(X.rows, X.cols);
  multiply_reference<T>(A, X, result.view());
  copy(result.view(), X);
}

}  // namespace cafeq::kernel
