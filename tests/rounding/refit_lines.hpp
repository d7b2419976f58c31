// refit_tile() for a few rows of any linear grid, which are handed over as lines.
#pragma once

#include "cafeq/rounding/refit.hpp"
#include "cafeq/rounding/row_tile.hpp"

namespace cafeq::test {

/// Of rows [row, row + X.cols).
template <LinearGrid Q>
void refit_lines(View<const float> X, View<float> E, const rounding::MetricFloats& metric,
                 Encoding<Q>& encoding, Index row, Workspace& workspace) {
  const Workspace::Frame frame(workspace);
  rounding::ScalarTile<Q> tile(encoding, row, X.cols, workspace);
  rounding::refit_tile(X, E, metric, tile, workspace);
}

}  // namespace cafeq::test
