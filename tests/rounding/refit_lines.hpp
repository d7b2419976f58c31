// refit_slab() for a few rows of any linear grid, which are handed over as lines.
#pragma once

#include "cafeq/rounding/refit.hpp"
#include "cafeq/rounding/row_slab.hpp"

namespace cafeq::test {

/// Of rows [row, row + X.cols).
template <LinearGrid Q>
void refit_lines(View<const float> X, View<float> E, const rounding::MetricFloats& metric,
                 Encoding<Q>& encoding, Index row, Workspace& workspace) {
  const Workspace::Frame frame(workspace);
  rounding::ScalarSlab<Q> slab(encoding, row, X.cols, workspace);
  rounding::refit_slab(X, E, metric, slab, workspace);
}

}  // namespace cafeq::test
