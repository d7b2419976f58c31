/// ErrorAndNorm: a squared error beside the squared norm that it is relative to.
#pragma once

#include <cmath>
#include <limits>

namespace cafeq {

/// ‖E‖² in a metric, and ‖W‖² in the same, for an approximation of W that is wrong by E.
struct ErrorAndNorm {
  double error = 0;
  double norm = 0;

  /// error / norm. Where the norm is zero: 0 if the error is zero too, infinity if it is not. Not a
  /// number where one of the two is not.
  double relative() const noexcept {
    if (norm > 0 || std::isnan(error) || std::isnan(norm)) return error / norm;
    return error > 0 ? std::numeric_limits<double>::infinity() : 0.0;
  }
};

}  // namespace cafeq
