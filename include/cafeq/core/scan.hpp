/// What has to be known about a matrix before it is quantized: its largest magnitude, whether all
/// of it is finite, whether all of it is one number.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <type_traits>
#include <vector>

#include "cafeq/core/bit_scan.hpp"
#include "cafeq/core/executor.hpp"
#include "cafeq/core/view.hpp"

namespace cafeq {

/// The largest magnitude, in double; 0 for an empty view, NaN passed over.
template <class T>
double largest_magnitude(View<T> view) noexcept {
  if (view.empty()) return 0;
  const auto scan = detail::scan_bits(view);
  if (!scan.has_nan()) return scan.largest_value();
  double largest = 0;
  for (Index i = 0; i < view.rows; ++i)
    for (Index j = 0; j < view.cols; ++j) largest = std::max(largest, std::abs(double(view(i, j))));
  return largest;
}

namespace detail {

/// Whether all of several elements are equal and not zero: one level holds them all as they are,
/// where a rotation would spread them.
template <class T>
bool is_constant(View<T> view) noexcept {
  if (view.empty() || view.size() == 1) return false;
  if (double(view(0, 0)) != double(view(view.rows - 1, view.cols - 1)) ||
      double(view(0, 0)) != double(view(view.rows / 2, view.cols / 2)))
    return false;  // which is as far as nearly every matrix comes
  return scan_bits(view).constant();
}

/// What scan_weights() finds.
struct WeightScan {
  double largest = 0;     ///< max |W_ij|; infinity or NaN where an element is
  bool finite = true;     ///< no element is infinite or NaN
  bool constant = false;  ///< as is_constant() says: several elements, all equal and not zero
};

/// One pass over a view of any strides, portions of about 2^18 elements in parallel. An empty view
/// is finite and not constant.
template <class T>
WeightScan scan_weights(View<T> view, ExecutorRef executor = {}) {
  if (view.empty()) return {};
  // Portions are rows, which should run along memory.
  if (std::abs(view.col_stride) > std::abs(view.row_stride)) view = view.transposed();

  const Index grain = std::max<Index>(1, (Index(1) << 18) / view.cols);
  std::vector<BitScan<std::remove_const_t<T>>> partial(std::size_t(ceil_div(view.rows, grain)));
  executor.parallel_for(view.rows, grain, [&](Index begin, Index end, Index) {
    partial[std::size_t(begin / grain)] = scan_bits(view.row_block(begin, end - begin));
  });

  auto all = partial.front();
  for (const auto& scan : partial) all.merge(scan);
  return {all.largest_value(), all.finite(), view.size() > 1 && all.constant()};
}

}  // namespace detail

}  // namespace cafeq
