/// Coordinate descent from the nearest codes.
#pragma once

#include "cafeq/rounding/error_feedback.hpp"

namespace cafeq {

/// Nearest codes, then `sweeps` sweeps of exact minimisation over one line at a time in the metric.
/// Never worse than nearest in that metric for given parameters; usually worse than ErrorFeedback,
/// which starts from better codes.
struct CoordinateDescent {
  static constexpr bool row_by_row = true;

  int sweeps = 4;

  template <ScalarQuantizer Q>
  void round(View<const float> X, const Metric& metric, Side side, Encoding<Q>& encoding,
             ExecutorRef executor = {}) const {
    ErrorFeedback{.sweeps = sweeps, .feedback = false}.round(X, metric, side, encoding, executor);
  }
};

}  // namespace cafeq
