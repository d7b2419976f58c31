/// Linear for trellis codes: they are decoded in registers and meet integer activations.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "cafeq/kernel/trellis_product.hpp"
#include "cafeq/pipeline/trellis_pipeline.hpp"
#include "cafeq/runtime/linear.hpp"

namespace cafeq {

/// y = Ŵ x. Activations are rounded to int16, one step a vector (precision fp32: |Δy_i| <= .506
/// step Σ_j |ŵ_ij|, step = absmax/32767), or to int8, one step for 64 entries; see
/// kernel/trellis_product.hpp for the errors of both. Sequences along columns are decoded to fp32
/// and meet x as it is: |error| <= in · 2^-24 Σ_j |ŵ_ij x_j|. The same bits for any number of
/// threads and of vectors together.
template <Transform T>
class Linear<T, Trellis> : public detail::LinearBase<Linear<T, Trellis>, T, Trellis> {
  using Base = detail::LinearBase<Linear<T, Trellis>, T, Trellis>;

 public:
  explicit Linear(Quantized<T, Trellis> weights, ActivationFormat format = {})
      : Base(std::move(weights), format) {
    for (Index i = 0; i < weights_.encoding().chunks().lines; ++i)
      scales_.push_back(weights_.encoding().scales()[i]);
  }
  using Base::in, Base::out;

 private:
  friend Base;
  using Base::weights_, Base::format_;

  /// As they are: each product rounds them for itself, which takes little beside it.
  Activations arrange(View<const float> X) const { return Activations(X, 8, {}); }
  void multiply_arranged(const Activations& x, View<float> Y, ExecutorRef executor) const {
    if (weights_.quantizer().sequence == TrellisSequence::column)
      multiply_columns(x.values(), Y, executor);
    else if (format_.precision == ActivationPrecision::int8)
      multiply_rounded<std::int8_t>(x.values(), Y, executor);
    else multiply_rounded<std::int16_t>(x.values(), Y, executor);
  }

  template <class E>
  void multiply_rounded(View<const float> X, View<float> Y, ExecutorRef executor) const {
    const kernel::TrellisActivations<E> x(X);
    const Encoding<Trellis>& encoding = weights_.encoding();
    const TrellisChunks& chunks = encoding.chunks();
    const PowerOfTwo unit(weights_.exponent());
    executor.parallel_for(chunks.count(), 8, [&](Index begin, Index end, Index) {
      for (Index c = begin; c < end; ++c) {
        const Index first = chunks.first_line(c), n = chunks.lines_of(c);
        const auto scales = std::span(scales_).subspan(std::size_t(first), std::size_t(n));
        kernel::multiply_trellis_rows(encoding.decoder(), encoding.chunk(c).data(), 0, scales, x,
                                      Y.col_block(first, n));
      }
      for (Index k = 0; k < Y.rows; ++k)
        for (Index i = chunks.first_line(begin); i < chunks.first_line(end); ++i)
          Y(k, i) = float(unit(double(Y(k, i))));
    });
  }

  /// Columns of X̂, decoded a stretch at a time, are added up.
  void multiply_columns(View<const float> X, View<float> Y, ExecutorRef executor) const {
    const Encoding<Trellis>& encoding = weights_.encoding();
    const PowerOfTwo unit(weights_.exponent());
    executor.parallel_for(out(), 256, [&](Index begin, Index end, Index) {
      Buffer<float> column(static_cast<std::size_t>(end - begin));
      Matrix<float> sums(X.rows, end - begin);
      for (Index j = 0; j < in(); ++j) {
        encoding.decode_line(j, begin, column);
        for (Index n = 0; n < X.rows; ++n) {
          const float x = X(n, j);
          float* sum = sums.row(n).data();
          for (std::size_t i = 0; i < column.size(); ++i) sum[i] += x * column[i];
        }
      }
      for (Index n = 0; n < X.rows; ++n)
        for (Index i = begin; i < end; ++i) Y(n, i) = float(unit(double(sums(n, i - begin))));
    });
  }

  std::vector<float> scales_;
};

}  // namespace cafeq
