/// Pipeline: a transform, a quantizer and a rounder, composed.
#pragma once

#include <optional>
#include <type_traits>
#include <utility>

#include "cafeq/kernel/gram.hpp"
#include "cafeq/pipeline/quantized.hpp"
#include "cafeq/pipeline/weights.hpp"
#include "cafeq/rounding/nearest.hpp"
#include "cafeq/rounding/strips.hpp"

namespace cafeq {

namespace detail {

/// The metric in which rounding errors of W M, or of Mᵀ W on the output side, count: N Nᵀ, N = M⁻¹;
/// the identity for orthogonal M. A transform that knows it better has metric(); for any other N is
/// formed, which takes dim² doubles three times.
template <Transform T>
Metric induced_metric(const T& t) {
  if (t.is_orthogonal()) return Metric::identity(t.dim());
  if constexpr (requires {
                  { t.metric() } -> std::same_as<Metric>;
                }) {
    return t.metric();
  } else {
    const auto N = to_dense<double>(t, Op::inverse);
    return Metric::dense(kernel::gram<double>(View<const double>(N.view()).transposed()));
  }
}

/// M⁻¹ H M⁻ᵀ: the metric in which rounding errors of W M count where those of W count in H. Not
/// factored where it is dense.
template <Transform T>
Metric metric_behind(const T& t, const Metric& H, ExecutorRef executor) {
  if (H.is_identity()) return induced_metric(t);
  if constexpr (std::is_same_v<T, Identity::Fitted>) return H;
  Matrix<double> G = H.to_dense();
  apply_right(t, G.view(), Op::inverse_transpose, executor);
  apply_left(t, G.view(), Op::inverse, executor);
  for (Index i = 0; i < G.rows(); ++i)
    for (Index j = 0; j < i; ++j) G(i, j) = G(j, i) = (G(i, j) + G(j, i)) / 2;
  return Metric::unfactored(std::move(G));
}

}  // namespace detail

/// W → transform → codes → packed result. Parts are specs: a transform without a dimension, a
/// quantizer without scales. The quantizer may be of either kind: a scalar one has its weights
/// brought to a magnitude that suits 16-bit scales, a joint one scales its lines itself.
///
/// A rounder that does not look at the metric which the transform induces (Nearest) wants an
/// orthogonal transform. A rounder that does gets a joint quantizer with its sequences along the
/// lines that errors are fed back between, whatever the quantizer says (for_lines).
template <TransformSpec T, Quantizer Q, RounderFor<Q> R = Nearest>
struct Pipeline {
  T transform;
  Q quantizer{};
  R rounder{};
  Side side = Side::input;  ///< which dimension of W the transform acts on: W M (input) or Mᵀ W
                            ///< (output), M fitted to W or to Wᵀ

  /// Quantizes W [out, in]. On the input side, with a rounder that works row by row and no state
  /// that ties the rows together, W is read in panels: memory beyond the result is a panel of rows
  /// a worker (a strip of some hundred rows for rounders that use a metric, a chunk and what
  /// searches it for joint quantizers) and what fitting the transform takes. Otherwise, or while a
  /// transform is fitted that does not read weights where they lie (FitsAnyView), W in fp32
  /// besides; on the output side that twice, and where all rows are rounded at once a byte a weight
  /// for their codes. Raises what try_quantize() returns.
  template <MatrixView M>
  Quantized<FittedTransform<T>, Q> quantize(M&& W, ExecutorRef executor = {}) const {
    return try_quantize(W, executor).value();
  }

  /// The same for callers without exceptions. An empty or overlapping W, what fault() says and a
  /// value that is not finite come back as an Error before any work is done. What only the work
  /// itself finds does where there are exceptions, and is raised where there are none: a learned
  /// transform that becomes singular, a spec of the caller's own that fits a transform of another
  /// dimension.
  template <MatrixView M>
  Result<Quantized<FittedTransform<T>, Q>> try_quantize(M&& W, ExecutorRef executor = {}) const {
    return try_quantize_view(as_view(W).as_const(), executor);
  }

  /// The same where errors of W count in a metric of its inputs, ‖E‖² = tr(E H Eᵀ): the rounder's
  /// metric is M⁻¹ H M⁻ᵀ, M fitted to W alone. Error feedback reaches the geometric mean of H's
  /// spectrum in any basis, so that M's part is to make rows of W M easy to round; scaling columns
  /// by the roots of H's diagonal first loses (KL .43 instead of .29 on SmolLM2 at 3.3 bits).
  /// Exactly the result without a metric where H is the identity. Memory: W in fp32, and H twice in
  /// fp64 unless it stays a diagonal. Raises invalid_shape for a metric of another dimension than
  /// W's columns, and invalid_argument for a transform on the output side.
  template <MatrixView M>
  Quantized<FittedTransform<T>, Q> quantize(M&& W, const Metric& metric,
                                            ExecutorRef executor = {}) const {
    return try_quantize(W, metric, executor).value();
  }
  template <MatrixView M>
  Result<Quantized<FittedTransform<T>, Q>> try_quantize(M&& W, const Metric& metric,
                                                        ExecutorRef executor = {}) const {
    if (metric.is_identity() && metric.dim() == as_view(W).cols) return try_quantize(W, executor);
    return try_quantize_in(as_view(W).as_const(), metric, executor);
  }

  /// A pipeline is the recipe that is the same for every shape.
  const Pipeline& pipeline(Index, Index) const noexcept { return *this; }

  /// What is wrong with one of the parts for W [rows, cols], if anything.
  std::optional<Error> fault(Index rows, Index cols) const;

  /// The bits that quantize() will store for a matrix of that shape. (A constant matrix may take
  /// less.)
  std::int64_t storage_bits(Index rows, Index cols) const
    requires(PlansStorage<T>)
  {
    return Codes<Q>::storage_bits(oriented(), rows, cols) +
           Quantized<FittedTransform<T>, Q>::exponent_bits +
           transform.storage_bits(side == Side::input ? cols : rows);
  }

 private:
  using Fitted = FittedTransform<T>;
  /// Whether rows can be rounded a few at a time, as far as the types tell.
  static constexpr bool reads_rows =
      std::is_same_v<R, Nearest> || (ScalarQuantizer<Q> && rounds_row_by_row<R>);

  /// The quantizer as the rounder takes it.
  Q oriented() const { return uses_metric<R> ? detail::for_lines(quantizer, side) : quantizer; }

  Metric metric_of(const Fitted& fitted) const {
    return uses_metric<R> ? detail::induced_metric(fitted) : Metric::identity(fitted.dim());
  }

  template <class E>
  Result<Quantized<Fitted, Q>> try_quantize_view(View<const E> W, ExecutorRef executor) const;

  template <class E>
  Result<Quantized<Fitted, Q>> try_quantize_in(View<const E> W, const Metric& metric,
                                               ExecutorRef executor) const;
  /// X = W · 2^-exponent, which it may overwrite.
  Quantized<Fitted, Q> quantize_in(View<float> X, int exponent, const Metric& metric,
                                   ExecutorRef executor) const;

  template <class E>
  Quantized<Fitted, Q> quantize_checked(View<const E> W, int exponent, ExecutorRef executor) const {
    if constexpr (reads_rows)
      if (side == Side::input && !detail::couples_rows(oriented()))
        return quantize_rows(W, exponent, executor);
    return quantize_whole(W, exponent, executor);
  }

  template <class E>
  Quantized<Fitted, Q> quantize_rows(View<const E> W, int exponent, ExecutorRef executor) const {
    Fitted fitted = detail::fit_to_weights(transform, W, executor);

    detail::TransformedRows<E, Fitted> rows{W, -exponent, fitted};
    if constexpr (ScalarQuantizer<Q>)
      rows.exponent += detail::exponent_for_grid(rows.largest(executor));

    Codes<Q> codes = [&] {
      if constexpr (std::is_same_v<R, Nearest>)
        return detail::encode_rows(oriented(), W.rows, W.cols, rows, executor);
      else
        return rounding::round_rows(rounder, quantizer, metric_of(fitted), W.rows, rows, executor);
    }();
    return {std::move(codes), std::move(fitted), side, -rows.exponent};
  }

  template <class E>
  Quantized<Fitted, Q> quantize_whole(View<const E> W, int exponent, ExecutorRef executor) const {
    Matrix<float> X = detail::scaled_down(W, exponent, executor);
    Fitted fitted = detail::fit_and_apply(transform, X.view(), side, executor);

    if constexpr (ScalarQuantizer<Q>) exponent -= detail::scale_for_grid(X.view(), executor);

    Codes<Q> codes =
        round(rounder, std::as_const(X).view(), oriented(), metric_of(fitted), side, executor)
            .pack(executor);
    return {std::move(codes), std::move(fitted), side, exponent};
  }
};

template <TransformSpec T, Quantizer Q, RounderFor<Q> R>
std::optional<Error> Pipeline<T, Q, R>::fault(Index rows, Index cols) const {
  const bool on_input = side == Side::input;
  if (auto fault = fault_of(transform, on_input ? rows : cols, on_input ? cols : rows))
    return fault;
  if (auto fault = fault_of(quantizer, rows, cols)) return fault;
  return fault_of(rounder, rows, cols);
}

template <TransformSpec T, Quantizer Q, RounderFor<Q> R>
template <class E>
auto Pipeline<T, Q, R>::try_quantize_view(View<const E> W, ExecutorRef executor) const
    -> Result<Quantized<Fitted, Q>> {
  if (auto fault = detail::layout_fault(W, "W")) return *fault;
  if (auto fault = this->fault(W.rows, W.cols)) return *fault;
  const auto exponent = detail::exponent_of(W, "W", executor);
  if (!exponent) return exponent.error();
  return catch_error([&] { return quantize_checked(W, exponent.value(), executor); });
}

template <TransformSpec T, Quantizer Q, RounderFor<Q> R>
template <class E>
auto Pipeline<T, Q, R>::try_quantize_in(View<const E> W, const Metric& metric,
                                        ExecutorRef executor) const
    -> Result<Quantized<Fitted, Q>> {
  if (auto fault = detail::layout_fault(W, "W")) return *fault;
  if (auto fault = this->fault(W.rows, W.cols)) return *fault;
  if (side == Side::output)
    return Error(ErrorCode::invalid_argument,
                 "metric: inputs have one, and the transform is on the output side");
  if (metric.dim() != W.cols)
    return Error(ErrorCode::invalid_shape,
                 message("metric: dimension ", metric.dim(), " does not fit W of ", W.rows, " x ",
                         W.cols, " on its input side"));
  const auto exponent = detail::exponent_of(W, "W", executor);
  if (!exponent) return exponent.error();
  return catch_error([&] {
    Matrix<float> X = detail::scaled_down(W, exponent.value(), executor);
    return quantize_in(X.view(), exponent.value(), metric, executor);
  });
}

template <TransformSpec T, Quantizer Q, RounderFor<Q> R>
auto Pipeline<T, Q, R>::quantize_in(View<float> X, int exponent, const Metric& metric,
                                    ExecutorRef executor) const -> Quantized<Fitted, Q> {
  Fitted fitted = detail::fit_and_apply(transform, X, side, executor);
  if constexpr (ScalarQuantizer<Q>) exponent -= detail::scale_for_grid(X, executor);
  const Metric behind = uses_metric<R> ? detail::metric_behind(fitted, metric, executor)
                                       : Metric::identity(fitted.dim());
  Codes<Q> codes =
      round(rounder, View<const float>(X), oriented(), behind, side, executor).pack(executor);
  return {std::move(codes), std::move(fitted), side, exponent};
}

template <class T, class Q>
Pipeline(T, Q) -> Pipeline<T, Q>;
template <class T, class Q, class R>
Pipeline(T, Q, R) -> Pipeline<T, Q, R>;
template <class T, class Q, class R>
Pipeline(T, Q, R, Side) -> Pipeline<T, Q, R>;

}  // namespace cafeq
