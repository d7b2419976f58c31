/// Rounding to nearest: each weight by itself, whatever the metric.
#pragma once

#include "cafeq/rounding/rounder.hpp"

namespace cafeq {

/// The codes that the quantizer finds nearest. Parameters stay as they are fitted.
struct Nearest {
  static constexpr bool uses_metric = false;
  static constexpr bool row_by_row = true;

  template <class Q>
  void round(View<const float> X, const Metric&, Side, Encoding<Q>& encoding,
             ExecutorRef executor = {}) const {
    encoding.encode(X, executor);
  }
};

}  // namespace cafeq
