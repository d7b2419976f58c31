/// A pipeline whose quantizer chooses codes jointly: W → transform → trellis search → packed
/// result.
#pragma once

#include <type_traits>
#include <utility>

#include "cafeq/pipeline/pipeline.hpp"
#include "cafeq/quant/trellis.hpp"

namespace cafeq {

/// Of a trellis: the bits of the chunks and a scale a line.
template <Transform T>
class Quantized<T, Trellis> : public detail::Reconstruction<Quantized<T, Trellis>> {
 public:
  /// Raises corrupt where the parts contradict each other.
  Quantized(Encoding<Trellis> encoding, T transform, Side side, int exponent)
      : encoding_(std::move(encoding)),
        transform_(std::move(transform)),
        side_(side),
        exponent_(exponent) {
    if (Index(encoding_.scales().codes().size()) != encoding_.chunks().lines)
      raise(ErrorCode::corrupt, message("Quantized: ", encoding_.scales().codes().size(),
                                        " scales for ", encoding_.chunks().lines, " sequences"));
    this->check_transform();
  }

  Index rows() const noexcept { return encoding_.rows(); }
  Index cols() const noexcept { return encoding_.cols(); }
  const Trellis& quantizer() const noexcept { return encoding_.quantizer(); }
  const Encoding<Trellis>& encoding() const noexcept { return encoding_; }
  const T& transform() const noexcept { return transform_; }
  Side side() const noexcept { return side_; }
  int exponent() const noexcept { return exponent_; }

  /// Everything that inference needs, in bits: chunks (each starts at a byte), scales, exponent
  /// (16) and what undoes the transform.
  std::int64_t storage_bits() const {
    return encoding_.storage_bits() + 16 + std::int64_t(transform_.storage_bits());
  }

  /// X̂ of rows [begin, begin + out.rows), before exponent and transform.
  void decode_rows(Index begin, View<float> out) const {
    this->check_rows(begin, out);
    encoding_.decode_rows(begin, out);
  }

 private:
  Encoding<Trellis> encoding_;
  T transform_;
  Side side_;
  int exponent_;
};

/// W → transform → trellis. Nearest does not look at the metric that a transform induces, so give
/// it an orthogonal one; a rounder that does gets one sequence a column (one a row on the output
/// side), whatever the quantizer says. A learned transform gains less here than the bits that it is
/// stored with (docs/explanation/trellis.md).
template <TransformSpec T, RounderFor<Trellis> R>
struct Pipeline<T, Trellis, R> {
  T transform;
  Trellis quantizer{};
  R rounder{};
  Side side = Side::input;

  /// Quantizes W [out, in]. On the input side, rounded to nearest, W is read chunk by chunk: memory
  /// beyond the result is what fitting the transform takes and what a TrellisEncoder has. Otherwise
  /// W in fp32 besides, on the output side and for a rounder that uses the metric twice.
  template <MatrixView M>
  Quantized<FittedTransform<T>, Trellis> quantize(M&& W, ExecutorRef executor = {}) const {
    const auto input = detail::readable(as_view(W));
    const int exponent = floor_log2(detail::checked_largest(input, executor));
    check_quantizer(quantizer);
    Encoding<Trellis> encoding(sequenced(), input.rows, input.cols);
    if (side == Side::input && !uses_metric<R> && quantizer.sequence != TrellisSequence::column) {
      auto fitted = fit_to_weights(transform, input, executor);
      encoding.encode_lines(
          [&](Index begin, View<float> X) {
            copy_scaled(input.row_block(begin, X.rows), -exponent, X);
            fitted.apply(X, Op::forward);
          },
          executor);
      return {std::move(encoding), std::move(fitted), side, exponent};
    }
    Matrix<float> X = scaled_down(input, exponent, executor);
    auto fitted = detail::fit_and_apply(transform, X.view(), side, executor);
    const Metric metric =
        uses_metric<R> ? detail::induced_metric(fitted) : Metric::identity(fitted.dim());
    rounder.round(std::as_const(X).view(), metric, side, encoding, executor);
    return {std::move(encoding), std::move(fitted), side, exponent};
  }

  /// The bits that quantize() will store for a matrix of that shape. (A constant matrix may take
  /// less.)
  std::int64_t storage_bits(Index rows, Index cols) const
    requires(PlansStorage<T>)
  {
    return Encoding<Trellis>::storage_bits(sequenced(), rows, cols) + 16 +
           transform.storage_bits(side == Side::input ? cols : rows);
  }

 private:
  Trellis sequenced() const { return uses_metric<R> ? for_lines(quantizer, side) : quantizer; }
};

}  // namespace cafeq
