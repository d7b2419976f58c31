/// Quantized: the owning result of quantizing one matrix, whatever its quantizer and its transform.
#pragma once

#include <cmath>
#include <string_view>
#include <type_traits>
#include <utility>

#include "cafeq/core/scale.hpp"
#include "cafeq/linalg/metric.hpp"
#include "cafeq/loss/reconstruction.hpp"
#include "cafeq/quant/codes.hpp"
#include "cafeq/transform/transform.hpp"

namespace cafeq {

/// Codes of X̂, one power-of-two exponent and the fitted transform M. It stands for
///   Ŵ = 2^exponent · X̂ M⁻¹     (input side)
///   Ŵ = 2^exponent · M⁻ᵀ X̂     (output side)
template <Transform T, class Q>
class Quantized {
 public:
  static_assert(StoredCodes<Codes<Q>>);

  /// Raises corrupt where the transform does not fit the codes.
  Quantized(Codes<Q> codes, T transform, Side side, int exponent)
      : codes_(std::move(codes)),
        transform_(std::move(transform)),
        side_(side),
        exponent_(exponent) {
    if (transform_.dim() != (side == Side::input ? cols() : rows()))
      raise(ErrorCode::corrupt, message("Quantized: a transform of dimension ",
                                        Index(transform_.dim()), " on ", rows(), " x ", cols()));
  }
  /// The same matrix by types that hold this one, as AnyQuantized does.
  template <Transform U, class P>
    requires(!std::is_same_v<Quantized<U, P>, Quantized> && std::is_constructible_v<T, U> &&
             std::is_constructible_v<Codes<Q>, Codes<P>>)
  Quantized(Quantized<U, P> other)  // NOLINT(google-explicit-constructor)
      : codes_(std::move(other).codes()),
        transform_(std::move(other).transform()),
        side_(other.side()),
        exponent_(other.exponent()) {}

  Index rows() const noexcept { return codes_.rows(); }
  Index cols() const noexcept { return codes_.cols(); }
  const Codes<Q>& codes() const& noexcept { return codes_; }
  Codes<Q>&& codes() && noexcept { return std::move(codes_); }
  decltype(auto) quantizer() const { return codes_.quantizer(); }
  const T& transform() const& noexcept { return transform_; }
  T&& transform() && noexcept { return std::move(transform_); }
  Side side() const noexcept { return side_; }
  int exponent() const noexcept { return exponent_; }

  /// Everything that inference needs, in bits: codes with their scales, exponent (16), and what
  /// undoes the transform.
  std::int64_t storage_bits() const {
    return codes_.storage_bits() + exponent_bits + std::int64_t(transform_.storage_bits());
  }
  double bits_per_weight() const {
    return double(storage_bits()) / (double(rows()) * double(cols()));
  }
  static constexpr std::int64_t exponent_bits = 16;

  /// X̂ of rows [begin, begin + out.rows), before exponent and transform.
  void decode_rows(Index begin, View<float> out) const {
    if (begin < 0 || begin + out.rows > rows() || out.cols != cols())
      raise(ErrorCode::invalid_shape,
            message("decode_rows: rows ", begin, " to ", begin + out.rows, " of ", out.cols,
                    " columns, the result is ", rows(), " x ", cols()));
    codes_.decode_rows(begin, out);
  }

  /// Ŵ into `out` [rows, cols], any strides and element type. Memory: a few rows (input side), or
  /// one fp32 matrix (output side).
  template <MatrixView M>
  void dequantize(M&& out, ExecutorRef executor = {}) const {
    dequantize_view(as_view(out), executor);
  }

  /// ‖W − Ŵ‖²_F / ‖W‖²_F, summed in fp64 (0 where W is zero and reproduced).
  template <MatrixView M>
  double error(M&& W, ExecutorRef executor = {}) const {
    return error_and_norm(W, executor).relative();
  }
  /// tr(E H Eᵀ) / tr(W H Wᵀ) for E = W − Ŵ and the metric H of what W takes in, of dimension
  /// cols(): what quantize() in that metric minimises, and what the outputs are off by in the mean
  /// where H is of their inputs. Raises invalid_shape.
  template <MatrixView M>
  double error(M&& W, const Metric& metric, ExecutorRef executor = {}) const {
    if (metric.dim() != cols())
      raise(ErrorCode::invalid_shape, message("error: a metric of dimension ", metric.dim(),
                                              " does not fit the ", cols(), " columns of W"));
    return compare_view(as_view(W).as_const(), &metric, executor).relative();
  }
  /// ‖W − Ŵ‖²_F and ‖W‖²_F, both in units of 4^exponent, so that those of weights near 1e±300
  /// neither overflow nor vanish.
  template <MatrixView M>
  ErrorAndNorm error_and_norm(M&& W, ExecutorRef executor = {}) const {
    return compare_view(as_view(W).as_const(), nullptr, executor);
  }

 private:
  template <class E>
  void dequantize_view(View<E> out, ExecutorRef executor) const;
  template <class E>
  ErrorAndNorm compare_view(View<const E> W, const Metric* metric, ExecutorRef executor) const;

  template <class E>
  static void store(double value, E& out) noexcept {
    if constexpr (std::is_same_v<E, double>) out = value;
    else out = E(float(value));
  }

  template <class E>
  void check_shape(View<E> view, std::string_view name) const {
    if (view.rows != rows() || view.cols != cols())
      raise(ErrorCode::invalid_shape, message(name, " is ", view.rows, " x ", view.cols,
                                              ", the result ", rows(), " x ", cols()));
  }

  /// f(first row, X̂ M⁻¹ or M⁻ᵀ X̂ of some rows), its results summed in the order of the rows.
  template <class F>
  ErrorAndNorm for_each_panel(ExecutorRef executor, F&& f) const {
    if (side_ == Side::input)
      return detail::sum_over_rows(rows(), cols(), executor, [&](Index begin, Index end) {
        Matrix<float> panel(end - begin, cols());
        codes_.decode_rows(begin, panel.view());
        transform_.apply(panel.view(), Op::inverse);
        return f(begin, View<const float>(panel.view()));
      });

    Matrix<float> all(rows(), cols());
    executor.parallel_for(rows(), 16, [&](Index begin, Index end, Index) {
      codes_.decode_rows(begin, all.view().row_block(begin, end - begin));
    });
    apply_left(transform_, all.view(), Op::inverse_transpose, executor);
    return detail::sum_over_rows(rows(), cols(), executor, [&](Index begin, Index end) {
      return f(begin, View<const float>(all.view()).row_block(begin, end - begin));
    });
  }

  Codes<Q> codes_;
  T transform_;
  Side side_;
  int exponent_;
};

template <Transform T, class Q>
template <class E>
void Quantized<T, Q>::dequantize_view(View<E> out, ExecutorRef executor) const {
  check_view(out, "out");
  check_shape(out, "dequantize: out");

  const PowerOfTwo scale(exponent_);
  for_each_panel(executor, [&](Index begin, View<const float> panel) {
    for (Index i = 0; i < panel.rows; ++i)
      for (Index j = 0; j < panel.cols; ++j) store(scale(double(panel(i, j))), out(begin + i, j));
    return ErrorAndNorm{};
  });
}

template <Transform T, class Q>
template <class E>
ErrorAndNorm Quantized<T, Q>::compare_view(View<const E> W, const Metric* metric,
                                           ExecutorRef executor) const {
  check_shape(W, "error: W");
  check_view(W, "W");
  check_finite(W, "W");

  return for_each_panel(executor, [&](Index begin, View<const float> panel) {
    Matrix<float> rows(panel.rows, panel.cols);
    detail::copy_scaled(W.row_block(begin, panel.rows), -exponent_, rows.view());
    const View<const float> before = rows.view();
    return metric ? detail::metric_error(before, panel, *metric, Side::input, {})
                  : detail::plain_rows(before, panel);
  });
}

template <class Q, Transform T>
Quantized(Codes<Q>, T, Side, int) -> Quantized<T, Q>;

/// Ŵ into `out`, [rows, cols] of any strides and element type.
template <Transform T, class Q, MatrixView M>
void dequantize(const Quantized<T, Q>& quantized, M&& out, ExecutorRef executor = {}) {
  quantized.dequantize(out, executor);
}

}  // namespace cafeq
