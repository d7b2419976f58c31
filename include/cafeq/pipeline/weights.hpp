/// How weights are read on their way to a grid: checked, brought to a common magnitude,
/// transformed.
#pragma once

#include <algorithm>
#include <optional>
#include <string_view>
#include <vector>

#include "cafeq/core/scale.hpp"
#include "cafeq/core/scan.hpp"
#include "cafeq/linalg/metric.hpp"
#include "cafeq/quant/encode_rows.hpp"
#include "cafeq/transform/transform.hpp"

namespace cafeq::detail {

/// What keeps W from being read, if anything: no elements, an unsound layout.
template <class T>
std::optional<Error> layout_fault(View<T> W, std::string_view name) {
  if (auto fault = view_fault(W, name)) return fault;
  if (W.empty())
    return Error(ErrorCode::invalid_shape,
                 message(name, " is ", W.rows, " x ", W.cols, ": there is nothing to quantize"));
  return std::nullopt;
}

/// The exponent of the largest magnitude of W, found in the one pass over W that also sees what is
/// not finite: that comes back as the Error.
template <class E>
Result<int> exponent_of(View<const E> W, std::string_view name, ExecutorRef executor) {
  const WeightScan scan = scan_weights(W, executor);
  if (!scan.finite) return *finite_fault(W, name);
  return floor_log2(scan.largest);
}

/// The power of two that brings a largest magnitude into [2^12, 2^13), where the scales of every
/// grid are normal halves.
inline int exponent_for_grid(double largest) noexcept { return 12 - floor_log2(largest); }

/// X ← X·2^e with the largest magnitude in [2^12, 2^13); returns e.
inline int scale_for_grid(View<float> X, ExecutorRef executor) {
  const int e = exponent_for_grid(largest_magnitude(X));
  const PowerOfTwo scale(e);
  executor.parallel_for(X.rows, 64, [&](Index begin, Index end, Index) {
    for (Index i = begin; i < end; ++i)
      for (float& x : X.row(i)) x = float(scale(double(x)));
  });
  return e;
}

/// The rows of X = W·2^exponent·M, written where they are asked for.
template <class E, Transform M>
struct TransformedRows {
  View<const E> W;
  int exponent;
  const M& transform;

  /// A panel, on the thread that asks.
  void operator()(Index begin, View<float> X) const {
    copy_scaled(W.row_block(begin, X.rows), exponent, X);
    transform.apply(X, Op::forward);
  }
  /// A strip of many rows, on all threads.
  void operator()(Index begin, View<float> X, ExecutorRef executor) const {
    executor.parallel_for(X.rows, 48, [&](Index first, Index last, Index) {
      copy_scaled(W.row_block(begin + first, last - first), exponent,
                  X.row_block(first, last - first));
    });
    apply_right(transform, X, Op::forward, executor);
  }

  /// max |X_ij|.
  double largest(ExecutorRef executor) const {
    std::vector<double> of_panel(static_cast<std::size_t>(W.rows));
    for_each_panel(W.rows, W.cols, *this, executor, [&](Index begin, View<float> X) {
      of_panel[std::size_t(begin)] = largest_magnitude(X);
    });
    return *std::max_element(of_panel.begin(), of_panel.end());
  }
};

/// The transform fitted to X, or to Xᵀ on the output side, and applied: X ← X M or Mᵀ X.
template <TransformSpec T>
FittedTransform<T> fit_and_apply(const T& spec, View<float> X, Side side, ExecutorRef executor) {
  if (side == Side::input) {
    auto fitted = fit_transform(spec, View<const float>(X), executor);
    apply_right(fitted, X, Op::forward, executor);
    return fitted;
  }
  auto fitted = [&] {
    const Matrix<float> transposed = to_matrix<float>(View<const float>(X).transposed());
    return fit_transform(spec, transposed.view(), executor);
  }();
  apply_left(fitted, X, Op::transpose, executor);
  return fitted;
}

}  // namespace cafeq::detail
