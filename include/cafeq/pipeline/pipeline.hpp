/// Pipeline: a transform, a quantizer and a rounder, composed.
#pragma once

#include "cafeq/kernel/gram.hpp"
#include "cafeq/pipeline/quantized.hpp"
#include "cafeq/rounding/nearest.hpp"

namespace cafeq {

namespace detail {

/// W·2^-e as fp32, e such that the largest magnitude lies in [1, 2): every later step is free of overflow.
template <class T>
Matrix<float> normalized(View<T> W, int& exponent) {
  exponent = floor_log2(largest_magnitude(W));
  const PowerOfTwo scale(-exponent);
  Matrix<float> X(W.rows, W.cols);
  for (Index i = 0; i < W.rows; ++i)
    for (Index j = 0; j < W.cols; ++j) X(i, j) = float(scale(double(W(i, j))));
  return X;
}

/// X ← X·2^e with the largest magnitude in [2^12, 2^13), where the scales of every grid are normal halves; returns e.
inline int scale_for_grid(View<float> X, ExecutorRef executor) {
  const int e = 12 - floor_log2(largest_magnitude(X));
  const PowerOfTwo scale(e);
  executor.parallel_for(X.rows, 64, [&](Index begin, Index end, Index) {
    for (Index i = begin; i < end; ++i)
      for (float& x : X.row(i)) x = float(scale(double(x)));
  });
  return e;
}

/// The metric in which rounding errors of W M, or of Mᵀ W on the output side, count: N Nᵀ, N = M⁻¹; the identity for orthogonal M. A transform that knows
/// it better has metric(); for any other N is formed, which takes dim² doubles three times.
template <Transform T>
Metric induced_metric(const T& t) {
  if (t.is_orthogonal()) return Metric::identity(t.dim());
  if constexpr (requires { { t.metric() } -> std::same_as<Metric>; }) {
    return t.metric();
  } else {
    const auto N = to_dense<double>(t, Op::inverse);
    return Metric::dense(kernel::gram<double>(View<const double>(N.view()).transposed()));
  }
}

}  // namespace detail

/// What keeps W from being quantized, if anything: no elements, an unsound layout, a value that is not finite.
template <class T>
std::optional<Error> weights_fault(View<T> W, std::string_view name) {
  if (auto fault = view_fault(W, name)) return fault;
  if (W.empty()) return Error(ErrorCode::invalid_shape, message(name, " is ", W.rows, " x ", W.cols, ": there is nothing to quantize"));
  return finite_fault(W, name);
}

/// W → transform → grid → rounding → packed result. Parts are specs: a transform without a dimension, a quantizer without scales.
template <TransformSpec T, Quantizer Q, RounderFor<Q> R = Nearest>
struct Pipeline {
  T transform;
  Q quantizer;
  R rounder{};
  Side side = Side::input;  ///< which dimension of W the transform acts on: W M (input) or Mᵀ W (output), M fitted to W or to Wᵀ

  /// Quantizes W [out, in]. Memory beyond the result: W in fp32, and what the parts state.
  template <MatrixView M>
  auto quantize(M&& W, ExecutorRef executor = {}) const {
    const auto weights = as_view(W);
    if (auto fault = weights_fault(weights, "W")) raise(*fault);
    check_quantizer(quantizer);
    int exponent = 0;
    Matrix<float> X = detail::normalized(weights, exponent);
    auto fitted = side == Side::input ? fit_transform(transform, X.view(), executor) : fit_output_side(X, executor);
    if (side == Side::input) apply_right(fitted, X.view(), Op::forward, executor);
    else apply_left(fitted, X.view(), Op::transpose, executor);
    exponent -= detail::scale_for_grid(X.view(), executor);
    const Metric metric = uses_metric<R> ? detail::induced_metric(fitted) : Metric::identity(fitted.dim());
    const auto encoding = round(rounder, View<const float>(X.view()), quantizer, metric, side, executor);
    return Quantized<FittedTransform<T>, Q>(encoding, std::move(fitted), side, exponent);
  }

 private:
  FittedTransform<T> fit_output_side(const Matrix<float>& X, ExecutorRef executor) const {
    const Matrix<float> transposed = to_matrix<float>(X.view().transposed());
    return fit_transform(transform, transposed.view(), executor);
  }
};

template <class T, class Q>
Pipeline(T, Q) -> Pipeline<T, Q>;
template <class T, class Q, class R>
Pipeline(T, Q, R) -> Pipeline<T, Q, R>;
template <class T, class Q, class R>
Pipeline(T, Q, R, Side) -> Pipeline<T, Q, R>;

}  // namespace cafeq
