/// copy(): from one view to another, of any element types and strides.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <type_traits>

#include "cafeq/core/view_fault.hpp"

namespace cafeq {

namespace detail {

/// n elements, converted through Wide. Steps of 1 that the compiler sees become vectors.
template <class Wide, class T, class U, class FromStep, class ToStep>
void copy_line(const T* from, FromStep from_step, U* to, ToStep to_step, Index n) noexcept {
  for (Index j = 0; j < n; ++j)
    to[j * to_step] = static_cast<U>(static_cast<Wide>(from[j * from_step]));
}

}  // namespace detail

/// Copies element by element, converting through float (or double where both ends hold it); shapes
/// must agree, and the two must not overlap.
template <class T, class U>
void copy(View<T> from, View<U> to) {
  check_same_shape(from, "from", to, "to");
  using Wide = std::conditional_t<
      std::is_same_v<std::remove_const_t<T>, double> && std::is_same_v<U, double>, double, float>;
  using Dense = std::integral_constant<Index, 1>;
  if (from.empty()) return;

  // Rows become what runs along the memory that is written.
  if (std::abs(to.col_stride) > std::abs(to.row_stride)) {
    from = from.transposed();
    to = to.transposed();
  }

  if (from.col_stride == 1 && to.col_stride == 1) {
    for (Index i = 0; i < from.rows; ++i)
      detail::copy_line<Wide>(from.data + i * from.row_stride, Dense{}, to.data + i * to.row_stride,
                              Dense{}, from.cols);
    return;
  }

  // The two memory orders differ: in tiles, so that neither side is read a cache line an element.
  constexpr Index tile = 16;
  for (Index i = 0; i < from.rows; i += tile)
    for (Index j = 0; j < from.cols; j += tile) {
      const Index n = std::min(tile, from.cols - j);
      for (Index l = i; l < std::min(i + tile, from.rows); ++l)
        detail::copy_line<Wide>(from.data + l * from.row_stride + j * from.col_stride,
                                from.col_stride, to.data + l * to.row_stride + j * to.col_stride,
                                to.col_stride, n);
    }
}

}  // namespace cafeq
