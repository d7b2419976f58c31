/// Weights of any element type, layout and magnitude as floats that no later step takes out of
/// range.
#pragma once

#include <cmath>
#include <type_traits>

#include "cafeq/core/executor.hpp"
#include "cafeq/core/matrix.hpp"
#include "cafeq/core/scan.hpp"

namespace cafeq::detail {

/// to = from·2^e, rounded to floats once.
template <class T>
void copy_scaled(View<const T> from, int e, View<float> to) {
  // In double where the element or the factor does not fit a float.
  if (std::is_same_v<T, double> || std::abs(e) > 100) {
    const PowerOfTwo scale(e);
    for (Index i = 0; i < to.rows; ++i)
      for (Index j = 0; j < to.cols; ++j) to(i, j) = float(scale(double(from(i, j))));
    return;
  }

  copy(from, to);
  const float factor = std::ldexp(1.0f, e);
  for (Index i = 0; i < to.rows; ++i)
    for (float& x : to.row(i)) x *= factor;
}

/// W·2^-exponent, dense.
template <class T>
Matrix<float> scaled_down(View<T> W, int exponent, ExecutorRef executor = {}) {
  const View<const T> from = W;
  Matrix<float> X(W.rows, W.cols);
  executor.parallel_for(W.rows, 64, [&](Index begin, Index end, Index) {
    copy_scaled(from.row_block(begin, end - begin), -exponent,
                X.view().row_block(begin, end - begin));
  });
  return X;
}

/// A dense copy of W in floats, times the power of two that brings its largest magnitude into [1,
/// 2).
template <class T>
Matrix<float> normalized(View<T> W, ExecutorRef executor = {}) {
  return scaled_down(W, floor_log2(scan_weights(W, executor).largest), executor);
}

/// Whether squares and products of floats with largest magnitude about 2^exponent stay in range.
inline constexpr bool is_moderate(int exponent) noexcept {
  return -40 <= exponent && exponent <= 40;
}

}  // namespace cafeq::detail
