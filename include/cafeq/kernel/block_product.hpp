/// Products that replace one factor: X ← X·M and X ← A·X for small square M and A, some rows or
/// columns of X at a time, through scratch that stays in cache.
///
/// Every element is the chain of fused multiply-adds of kernel::multiply, so neither strides nor
/// the number of rows at a time change a bit. M is packed once (kernel/panels.hpp).
#pragma once

#include <algorithm>
#include <span>

#include "cafeq/kernel/dense_product.hpp"

namespace cafeq::kernel {

namespace detail {

inline constexpr Index replaced_rows = 48;  // rows of X at a time, from the right
inline constexpr Index replaced_cols = 64;  // columns of X at a time, from the left
inline constexpr Index block_rows =
    192;  // rows of X that run through all blocks before the next ones

}  // namespace detail

/// Elements of scratch for a product in place by a packed M [k, k]; the same for every
/// architecture.
template <class T, class Arch = DefaultArch>
constexpr Index packed_in_place_scratch(Index k) noexcept {
  return k * 64;
}
/// The same for M or A [k, k] that is packed by the product.
template <class T, class Arch = DefaultArch>
constexpr Index in_place_scratch(Index k) noexcept {
  return packed_in_place_scratch<T>(k) + panels_size<T>(k, k);
}

namespace detail {

/// X ← X·M for contiguous rows.
template <class T, class Arch>
inline void replace_rows(View<T> X, Panels<T> M, std::span<T> scratch) noexcept {
  for (Index i = 0; i < X.rows; i += replaced_rows) {
    const View<T> rows = X.row_block(i, std::min(replaced_rows, X.rows - i));
    const View<T> before{scratch.data(), rows.rows, X.cols, X.cols, 1};
    for (Index r = 0; r < rows.rows; ++r)
      std::copy_n(rows.data + r * rows.row_stride, X.cols, before.data + r * X.cols);
    multiply<T, Arch>(View<const T>(before), M, rows);
  }
}

/// X ← A·X for contiguous rows of X; rows(p, depth, f) calls f(i, rows from i on of A's columns p …
/// p + depth) until it has gone through all.
template <class T, class Arch, class Rows>
inline void replace_columns(View<T> X, std::span<T> scratch, Rows&& rows) noexcept {
  for (Index j = 0; j < X.cols; j += replaced_cols) {
    const View<T> columns = X.col_block(j, std::min(replaced_cols, X.cols - j));
    const auto before = pack_panels<T, Arch>(View<const T>(columns), scratch.data());
    for (Index p = 0; p < X.rows; p += product_depth) {
      const Index depth = std::min(product_depth, X.rows - p);
      rows(p, depth, [&](Index i, auto A) {
        product_panels<Arch>(A, before, p, depth, columns.data + i * columns.row_stride,
                             columns.row_stride, p == 0 ? Store::overwrite : Store::add);
      });
    }
  }
}

/// X ← X·M where X has neither contiguous rows nor contiguous columns.
template <class T, class Arch>
inline void replace_strided(View<T> X, Panels<T> M, std::span<T> scratch) noexcept {
  constexpr Index step = 24;
  for (Index i = 0; i < X.rows; i += step) {
    const View<T> rows = X.row_block(i, std::min(step, X.rows - i));
    const View<T> before{scratch.data(), rows.rows, X.cols, X.cols, 1};
    const View<T> after{scratch.data() + step * X.cols, rows.rows, X.cols, X.cols, 1};
    copy(rows, before);
    multiply<T, Arch>(View<const T>(before), M, after);
    copy(after, rows);
  }
}

}  // namespace detail

/// X ← X·M for X [n, k] of any strides and packed M [k, k]; scratch: packed_in_place_scratch<T>(k).
/// Threads may share M, each with rows and scratch of its own.
template <class T, class Arch = DefaultArch>
void multiply_right_in_place(View<T> X, Panels<T> M, std::span<T> scratch) noexcept {
  CAFEQ_ASSERT(X.cols == M.rows && M.rows == M.cols &&
               Index(scratch.size()) >= packed_in_place_scratch<T>(M.rows));
  if (X.rows_contiguous()) return detail::replace_rows<T, Arch>(X, M, scratch);
  if (X.row_stride != 1) return detail::replace_strided<T, Arch>(X, M, scratch);
  // Xᵀ ← Mᵀ·Xᵀ: a panel of M holds the rows of Mᵀ side by side.
  using Width = std::integral_constant<Index, panel_width<T>>;
  detail::replace_columns<T, Arch>(X.transposed(), scratch, [&](Index p, Index, auto&& f) {
    for (Index i = 0; i < M.cols; i += Width{})
      f(i, detail::Strided<T, detail::One, Width>{
               M.at(p, i), {}, {}, std::min<Index>(Width{}, M.cols - i)});
  });
}

/// X ← A·X for A [k, k] and X [k, n], both of any strides; scratch: in_place_scratch<T>(k).
template <class T, class Arch = DefaultArch>
void multiply_left_in_place(View<const T> A, View<T> X, std::span<T> scratch) noexcept {
  CAFEQ_ASSERT(X.rows == A.rows && A.rows == A.cols &&
               Index(scratch.size()) >= in_place_scratch<T>(A.rows));
  if (X.rows_contiguous() && (A.col_stride == 1 || A.row_stride == 1)) {
    return detail::replace_columns<T, Arch>(X, scratch, [&](Index p, Index depth, auto&& f) {
      detail::as_strided(A.col_block(p, depth), [&](auto rows) { f(0, rows); });
    });
  }
  const auto At = pack_panels<T, Arch>(A.transposed(), scratch.data());
  multiply_right_in_place<T, Arch>(X.transposed(), At,
                                   scratch.subspan(std::size_t(panels_size<T>(A.rows, A.rows))));
}

/// X ← X·M for X [n, k] and M [k, k], both of any strides; scratch: in_place_scratch<T>(k).
template <class T, class Arch = DefaultArch>
void multiply_right_in_place(View<T> X, View<const T> M, std::span<T> scratch) noexcept {
  CAFEQ_ASSERT(X.cols == M.rows && M.rows == M.cols &&
               Index(scratch.size()) >= in_place_scratch<T>(M.rows));
  if (X.row_stride == 1 && !X.rows_contiguous())
    return multiply_left_in_place<T, Arch>(M.transposed(), X.transposed(), scratch);
  const auto panels = pack_panels<T, Arch>(M, scratch.data());
  multiply_right_in_place<T, Arch>(X, panels,
                                   scratch.subspan(std::size_t(panels_size<T>(M.rows, M.rows))));
}

/// X ← X·diag(M_1, …, M_b) for X [n, Σk] of any strides; block(i) gives packed M_i. Runs some
/// rows through all blocks before the next ones. Scratch: packed_in_place_scratch<T>(the largest
/// k).
template <class T, class Arch = DefaultArch, class Block>
void multiply_blocks_in_place(View<T> X, Index blocks, Block&& block,
                              std::span<T> scratch) noexcept {
  const Index step = X.rows_contiguous() ? detail::block_rows : std::max<Index>(X.rows, 1);
  for (Index i = 0; i < X.rows; i += step) {
    const View<T> rows = X.row_block(i, std::min(step, X.rows - i));
    for (Index b = 0, column = 0; b < blocks; ++b) {
      const Panels<T> M = block(b);
      multiply_right_in_place<T, Arch>(rows.col_block(column, M.cols), M, scratch);
      column += M.cols;
    }
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
