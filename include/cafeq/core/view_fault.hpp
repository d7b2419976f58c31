/// What can be wrong with a view that a caller hands in: its layout, its elements, its shape.
///
/// Each `…_fault` says it, each `check_…` raises it.
#pragma once

#include <cmath>
#include <optional>
#include <string_view>

#include "cafeq/core/bit_scan.hpp"
#include "cafeq/core/error.hpp"
#include "cafeq/core/view.hpp"

namespace cafeq {

/// What is wrong with a view, if anything: a negative size, no data, elements that overlap.
template <class T>
std::optional<Error> view_fault(View<T> view, std::string_view name) {
  if (view.rows < 0 || view.cols < 0)
    return Error(ErrorCode::invalid_shape,
                 message(name, ": negative size ", view.rows, " x ", view.cols));
  if (view.empty()) return std::nullopt;
  if (view.data == nullptr)
    return Error(ErrorCode::invalid_stride,
                 message(name, ": no data for ", view.rows, " x ", view.cols));

  // Elements are apart where one of the strides steps over everything that the other one walks
  // through.
  const Index r = view.row_stride < 0 ? -view.row_stride : view.row_stride;
  const Index c = view.col_stride < 0 ? -view.col_stride : view.col_stride;
  const bool by_rows = (view.cols == 1 || c >= 1) && (view.rows == 1 || r > (view.cols - 1) * c);
  const bool by_cols = (view.rows == 1 || r >= 1) && (view.cols == 1 || c > (view.rows - 1) * r);
  if (by_rows || by_cols) return std::nullopt;
  return Error(ErrorCode::invalid_stride,
               message(name, ": elements overlap: ", view.rows, " x ", view.cols, " with strides ",
                       view.row_stride, " and ", view.col_stride));
}

/// The first NaN or infinity, by row and column. One pass over the bits; where it finds one, a
/// second pass looks for the place.
template <class T>
std::optional<Error> finite_fault(View<T> view, std::string_view name) {
  if (view.empty() || detail::scan_bits(view).finite()) return std::nullopt;
  for (Index i = 0; i < view.rows; ++i)
    for (Index j = 0; j < view.cols; ++j)
      if (!std::isfinite(double(view(i, j))))
        return Error(ErrorCode::non_finite,
                     message(name, ": row ", i, ", column ", j, " is ", double(view(i, j))));
  return std::nullopt;
}

template <class T>
void check_view(View<T> view, std::string_view name) {
  if (auto fault = view_fault(view, name)) raise(*fault);
}

template <class T>
void check_finite(View<T> view, std::string_view name) {
  if (auto fault = finite_fault(view, name)) raise(*fault);
}

template <class T, class U>
void check_same_shape(View<T> a, std::string_view a_name, View<U> b, std::string_view b_name) {
  if (a.rows != b.rows || a.cols != b.cols)
    raise(ErrorCode::invalid_shape, message(a_name, " is ", a.rows, " x ", a.cols, " but ", b_name,
                                            " is ", b.rows, " x ", b.cols));
}

}  // namespace cafeq
