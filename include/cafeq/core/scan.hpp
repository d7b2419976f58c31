/// What has to be known about a matrix before it is quantized, in one pass over it.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <type_traits>
#include <vector>

#include "cafeq/core/executor.hpp"
#include "cafeq/core/view.hpp"

namespace cafeq {

/// What scan_weights() finds.
struct WeightScan {
  double largest = 0;     ///< max |W_ij|; infinity or NaN where an element is
  bool finite = true;     ///< no element is infinite or NaN
  bool constant = false;  ///< as is_constant() says: several elements, all equal and not zero
};

/// One pass over a view of any strides, chunks of about 2^18 elements in parallel. An empty view is
/// finite and not constant.
template <class T>
WeightScan scan_weights(View<T> view, ExecutorRef executor = {}) {
  if (view.empty()) return {};
  if (std::abs(view.col_stride) > std::abs(view.row_stride))
    view = view.transposed();  // chunks are whole lines of memory
  const Index grain = std::max<Index>(1, (Index(1) << 18) / view.cols);
  std::vector<detail::BitScan<std::remove_const_t<T>>> partial(
      std::size_t(ceil_div(view.rows, grain)));
  executor.parallel_for(view.rows, grain, [&](Index begin, Index end, Index) {
    partial[std::size_t(begin / grain)] = detail::scan_bits(view.row_block(begin, end - begin));
  });
  auto all = partial.front();
  for (const auto& scan : partial) all.merge(scan);
  return {all.largest_value(), all.finite(), view.size() > 1 && all.constant()};
}

}  // namespace cafeq
