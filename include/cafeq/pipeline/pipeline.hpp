/// Pipeline: a transform, a quantizer and a rounder, composed.
#pragma once

#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

#include "cafeq/core/scan.hpp"
#include "cafeq/kernel/gram.hpp"
#include "cafeq/pipeline/quantized.hpp"
#include "cafeq/rounding/nearest.hpp"
#include "cafeq/rounding/strips.hpp"

namespace cafeq {

namespace detail {

/// X ← X·2^e with the largest magnitude in [2^12, 2^13), where the scales of every grid are normal
/// halves; returns e.
inline int scale_for_grid(View<float> X, ExecutorRef executor) {
  const int e = 12 - floor_log2(largest_magnitude(X));
  const PowerOfTwo scale(e);
  executor.parallel_for(X.rows, 64, [&](Index begin, Index end, Index) {
    for (Index i = begin; i < end; ++i)
      for (float& x : X.row(i)) x = float(scale(double(x)));
  });
  return e;
}

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

}  // namespace detail

/// What keeps W from being read, if anything: no elements, an unsound layout.
template <class T>
std::optional<Error> layout_fault(View<T> W, std::string_view name) {
  if (auto fault = view_fault(W, name)) return fault;
  if (W.empty())
    return Error(ErrorCode::invalid_shape,
                 message(name, " is ", W.rows, " x ", W.cols, ": there is nothing to quantize"));
  return std::nullopt;
}

/// What keeps W from being quantized, if anything: what layout_fault() finds, or a value that is
/// not finite.
template <class T>
std::optional<Error> weights_fault(View<T> W, std::string_view name) {
  if (auto fault = layout_fault(W, name)) return fault;
  return finite_fault(W, name);
}

namespace detail {

template <class T>
View<const std::remove_const_t<T>> readable(View<T> W) noexcept {
  return W;
}

/// The largest magnitude of W, which raises what weights_fault() finds.
template <class E>
double checked_largest(View<const E> W, ExecutorRef executor) {
  if (auto fault = layout_fault(W, "W")) raise(*fault);
  const WeightScan scan = scan_weights(W, executor);
  if (!scan.finite) raise(*finite_fault(W, "W"));
  return scan.largest;
}

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

/// Rows that a worker transforms at once: what stays in L2 and is little beside the matrix, a few
/// at least so that a transform can share its loads.
inline Index panel_rows(Index rows, Index cols) noexcept {
  return std::min(rows, std::clamp<Index>(std::min((Index(1) << 16) / cols, rows / 32), 4, 64));
}

/// f(first row, X) for panels of X = W·2^e·M, rows in parallel. Memory: a panel a worker.
template <class T, Transform M, class F>
void for_each_panel(View<const T> W, int e, const M& transform, ExecutorRef executor, F&& f) {
  const Index step = panel_rows(W.rows, W.cols);
  std::vector<Matrix<float>> panels(std::size_t(executor.concurrency()));
  for (auto& panel : panels) panel = Matrix<float>(step, W.cols);
  executor.parallel_for(W.rows, step, [&](Index begin, Index end, Index worker) {
    const View<float> X = panels[std::size_t(worker)].view().row_block(0, end - begin);
    copy_scaled(W.row_block(begin, end - begin), e, X);
    transform.apply(X, Op::forward);
    f(begin, X);
  });
}

}  // namespace detail

/// W → transform → grid → rounding → packed result. Parts are specs: a transform without a
/// dimension, a quantizer without scales.
template <TransformSpec T, Quantizer Q, class R = Nearest>
struct Pipeline;

template <TransformSpec T, ScalarQuantizer Q, RounderFor<Q> R>
struct Pipeline<T, Q, R> {
  T transform;
  Q quantizer;
  R rounder{};
  Side side = Side::input;  ///< which dimension of W the transform acts on: W M (input) or Mᵀ W
                            ///< (output), M fitted to W or to Wᵀ

  /// Quantizes W [out, in]. On the input side, with a rounder that works row by row and no state
  /// for the whole tensor, W is read in panels: memory beyond the result is a panel of rows a
  /// worker (or a strip of some hundred rows, for rounders that use a metric) and what fitting the
  /// transform takes. Otherwise, or while a transform is fitted that does not read weights where
  /// they lie (FitsAnyView), W in fp32 besides; on the output side that twice, and where all rows
  /// are rounded at once a byte a weight for their codes.
  template <MatrixView M>
  auto quantize(M&& W, ExecutorRef executor = {}) const {
    const auto input = detail::readable(as_view(W));
    const int exponent = floor_log2(detail::checked_largest(input, executor));
    check_quantizer(quantizer);
    if constexpr (rounds_row_by_row<R>)
      if (side == Side::input && !couples_rows(quantizer))
        return quantize_rows(input, exponent, executor);
    return quantize_whole(input, exponent, executor);
  }

  /// The bits that quantize() will store for a matrix of that shape. (A constant matrix may take
  /// less.)
  std::int64_t storage_bits(Index rows, Index cols) const
    requires(PlansStorage<T>)
  {
    return detail::storage_bits(quantizer, {rows, cols, quantizer.group}) +
           transform.storage_bits(side == Side::input ? cols : rows);
  }

 private:
  using Fitted = FittedTransform<T>;

  template <class E>
  Quantized<Fitted, Q> quantize_rows(View<const E> W, int exponent, ExecutorRef executor) const {
    Fitted fitted = fit_to_weights(transform, W, executor);
    const int e = 12 - floor_log2(largest_transformed(W, exponent, fitted, executor));
    PackedCodes codes(W.rows, W.cols, quantizer.bits);
    if constexpr (std::is_same_v<R, Nearest>) {
      const Grouping grouping{W.rows, W.cols, quantizer.group};
      std::vector<typename Q::Params> params(std::size_t(grouping.count()));
      detail::for_each_panel(W, e - exponent, fitted, executor, [&](Index begin, View<float> X) {
        for (Index i = 0; i < X.rows; ++i) {
          const auto p = std::span(params).subspan(std::size_t(grouping.index(begin + i, 0)),
                                                   std::size_t(grouping.per_row_count()));
          fit_row(quantizer, std::span<const float>(X.row(i)), grouping.width(), p);
          pack_row(quantizer, std::span<const float>(X.row(i)), grouping.width(),
                   std::span<const typename Q::Params>(p), codes.row(begin + i));
        }
      });
      return {quantizer,         W.cols, std::move(codes), std::move(params),
              std::move(fitted), side,   exponent - e};
    } else {
      const Metric metric =
          uses_metric<R> ? detail::induced_metric(fitted) : Metric::identity(fitted.dim());
      auto encodings = StripEncoding<Q>::for_rounder(rounder, quantizer, W.rows, W.cols, executor);
      Matrix<float> strip(encodings.step(), W.cols);
      encodings.for_each([&](Index begin, Index n, Encoding<Q>& encoding) {
        const View<float> X = strip.view().row_block(0, n);
        executor.parallel_for(n, 48, [&](Index first, Index last, Index) {
          copy_scaled(W.row_block(begin + first, last - first), e - exponent,
                      X.row_block(first, last - first));
        });
        apply_right(fitted, X, Op::forward, executor);
        encoding.fit(X, executor);
        rounder.round(View<const float>(X), metric, Side::input, encoding, executor);
        executor.parallel_for(n, 16, [&](Index first, Index last, Index) {
          for (Index i = first; i < last; ++i) codes.pack_row(begin + i, encoding.codes(i));
        });
      });
      return {quantizer,         W.cols, std::move(codes), std::move(encodings).take_params(),
              std::move(fitted), side,   exponent - e};
    }
  }

  /// max |W M|, W scaled to a largest magnitude in [1, 2).
  template <class E>
  static double largest_transformed(View<const E> W, int exponent, const Fitted& fitted,
                                    ExecutorRef executor) {
    std::vector<double> largest(static_cast<std::size_t>(W.rows));
    detail::for_each_panel(W, -exponent, fitted, executor, [&](Index begin, View<float> X) {
      largest[std::size_t(begin)] = largest_magnitude(X);
    });
    return *std::max_element(largest.begin(), largest.end());
  }

  template <class E>
  Quantized<Fitted, Q> quantize_whole(View<const E> weights, int exponent,
                                      ExecutorRef executor) const {
    Matrix<float> X = scaled_down(weights, exponent, executor);
    Fitted fitted = detail::fit_and_apply(transform, X.view(), side, executor);
    exponent -= detail::scale_for_grid(X.view(), executor);
    const Metric metric =
        uses_metric<R> ? detail::induced_metric(fitted) : Metric::identity(fitted.dim());
    const auto encoding =
        round(rounder, View<const float>(X.view()), quantizer, metric, side, executor);
    return Quantized<Fitted, Q>(encoding, std::move(fitted), side, exponent);
  }
};

template <class T, class Q>
Pipeline(T, Q) -> Pipeline<T, Q>;
template <class T, class Q, class R>
Pipeline(T, Q, R) -> Pipeline<T, Q, R>;
template <class T, class Q, class R>
Pipeline(T, Q, R, Side) -> Pipeline<T, Q, R>;

}  // namespace cafeq
