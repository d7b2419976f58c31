/// View<T>: a matrix that somebody else owns, and VectorView<T>, the same for a vector.
///
/// as_view() in core/as_view.hpp makes one of whatever holds a matrix.
#pragma once

#include <span>
#include <type_traits>

#include "cafeq/core/numeric.hpp"

namespace cafeq {

/// rows × cols elements at data[i * row_stride + j * col_stride]; strides count elements and may be
/// negative. Non-owning, cheap to copy.
template <class T>
struct View {
  using value_type = std::remove_const_t<T>;

  T* data = nullptr;
  Index rows = 0;
  Index cols = 0;
  Index row_stride = 0;
  Index col_stride = 1;

  T& operator()(Index i, Index j) const noexcept {
    CAFEQ_ASSERT(i >= 0 && i < rows && j >= 0 && j < cols);
    return data[i * row_stride + j * col_stride];
  }
  Index size() const noexcept { return rows * cols; }
  bool empty() const noexcept { return rows == 0 || cols == 0; }
  bool rows_contiguous() const noexcept { return col_stride == 1 || cols <= 1; }
  bool contiguous() const noexcept {
    return rows_contiguous() && (row_stride == cols || rows <= 1);
  }

  View transposed() const noexcept { return {data, cols, rows, col_stride, row_stride}; }
  View block(Index i, Index j, Index block_rows, Index block_cols) const noexcept {
    CAFEQ_ASSERT(i >= 0 && j >= 0 && i + block_rows <= rows && j + block_cols <= cols);
    return {data == nullptr ? nullptr : data + i * row_stride + j * col_stride, block_rows,
            block_cols, row_stride, col_stride};
  }
  View row_block(Index i, Index count) const noexcept { return block(i, 0, count, cols); }
  View col_block(Index j, Index count) const noexcept { return block(0, j, rows, count); }
  /// Row i as a span; only where rows are contiguous.
  std::span<T> row(Index i) const noexcept {
    CAFEQ_ASSERT(rows_contiguous());
    return {data + i * row_stride, std::size_t(cols)};
  }

  /// To be read only.
  View<const T> as_const() const noexcept { return {data, rows, cols, row_stride, col_stride}; }
  operator View<const T>() const noexcept  // NOLINT(google-explicit-constructor)
    requires(!std::is_const_v<T>)
  {
    return as_const();
  }
};

/// size elements at data[i * stride]: an activation, a bias.
template <class T>
struct VectorView {
  using value_type = std::remove_const_t<T>;

  T* data = nullptr;
  Index size = 0;
  Index stride = 1;

  T& operator[](Index i) const noexcept {
    CAFEQ_ASSERT(i >= 0 && i < size);
    return data[i * stride];
  }
  operator VectorView<const T>() const noexcept  // NOLINT(google-explicit-constructor)
    requires(!std::is_const_v<T>)
  {
    return {data, size, stride};
  }
};

}  // namespace cafeq
