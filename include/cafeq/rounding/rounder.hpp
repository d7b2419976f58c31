/// What a rounder is: it chooses the codes of X, and may adapt the parameters, so that the error is
/// small in a metric.
#pragma once

#include <concepts>

#include "cafeq/core/executor.hpp"
#include "cafeq/linalg/metric.hpp"
#include "cafeq/quant/encoding.hpp"

namespace cafeq {

/// round(X, metric, side, encoding, executor) reads the parameters in `encoding` (its fit, or those
/// of an earlier round) and leaves codes, and perhaps better parameters, there. X [rows, cols] has
/// contiguous rows; the metric's dimension is cols on the input side, rows on the output side.
template <class R, class Q>
concept RounderFor = Quantizer<Q> && requires(const R& r, View<const float> X, const Metric& metric,
                                              Side side, Encoding<Q>& encoding) {
  r.round(X, metric, side, encoding, ExecutorRef{});
};

/// Whether a rounder looks at the metric at all; one that does not says so with `static constexpr
/// bool uses_metric = false`.
template <class R>
inline constexpr bool uses_metric = true;
template <class R>
  requires(!R::uses_metric)
inline constexpr bool uses_metric<R> = false;

/// Whether, on the input side, rows may be rounded in any portions with the same result; a rounder
/// says so with `static constexpr bool row_by_row = true`, which lets pipelines work without a copy
/// of the matrix.
template <class R>
inline constexpr bool rounds_row_by_row = false;
template <class R>
  requires(R::row_by_row)
inline constexpr bool rounds_row_by_row<R> = true;

namespace rounding {

/// Raises invalid_shape where a metric is not one of that side of X.
inline void check_metric(View<const float> X, const Metric& metric, Side side) {
  const Index n = side == Side::input ? X.cols : X.rows;
  if (metric.dim() != n)
    raise(ErrorCode::invalid_shape,
          message("metric: dimension ", metric.dim(), " does not fit X of ", X.rows, " x ", X.cols,
                  " on its ", side == Side::input ? "input" : "output", " side"));
}

}  // namespace rounding

/// Fits the quantizer to X [rows, cols], of any strides, and rounds: codes and parameters from
/// nothing. Raises invalid_shape where the metric is not one of that side of X.
template <class Q, RounderFor<Q> R>
Encoding<Q> round(const R& rounder, View<const float> X, const Q& quantizer, const Metric& metric,
                  Side side = Side::input, ExecutorRef executor = {}) {
  rounding::check_metric(X, metric, side);
  if (!X.rows_contiguous()) {
    const Matrix<float> dense = to_matrix<float>(X);
    return round(rounder, dense.view(), quantizer, metric, side, executor);
  }

  Encoding<Q> encoding(quantizer, X.rows, X.cols);
  encoding.fit(X, executor);
  rounder.round(X, metric, side, encoding, executor);
  return encoding;
}

}  // namespace cafeq
