/// Products with trellis codes: they are decoded in registers and meet integer activations.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cafeq/product/joint_product.hpp"
#include "cafeq/trellis/row_product.hpp"
#include "cafeq/trellis/trellis.hpp"

namespace cafeq {

/// Y ← X X̂ᵀ · unit. Activations are rounded to int16, one step a vector (precision fp32: |Δy_i| <=
/// .506 step Σ_j |x̂_ij|, step = absmax/32767), or to int8, one step for 64 entries; see
/// trellis/row_product.hpp for the errors of both. Sequences along columns are decoded to fp32, as
/// those of any joint quantizer.
template <class Arch>
class Trellis::ProductOn : private JointProduct<Trellis> {
 public:
  explicit ProductOn(const Codes<Trellis>& codes) : JointProduct<Trellis>(codes) {
    for (Index i = 0; i < codes.chunks().lines(); ++i) scales_.push_back(codes.scales()[i]);
  }

  /// As they are: each product rounds them for itself, which takes little beside it.
  using JointProduct<Trellis>::arrange;

  void multiply(const Codes<Trellis>& codes, const Activations& x, ActivationFormat format,
                PowerOfTwo unit, View<float> Y, ExecutorRef executor) const {
    if (along_columns(codes.quantizer().sequence))
      multiply_columns(codes, x.values(), unit, Y, executor);
    else if (format.precision == ActivationPrecision::int8)
      multiply_rounded<std::int8_t>(codes, x.values(), unit, Y, executor);
    else multiply_rounded<std::int16_t>(codes, x.values(), unit, Y, executor);
  }

 private:
  template <class E>
  void multiply_rounded(const Codes<Trellis>& codes, View<const float> X, PowerOfTwo unit,
                        View<float> Y, ExecutorRef executor) const {
    const kernel::TrellisActivations<E, Arch> x(X);
    const Chunks<Trellis>& chunks = codes.chunks();

    executor.parallel_for(chunks.count(), 8, [&](Index begin, Index end, Index) {
      for (Index c = begin; c < end; ++c) {
        const Index first = chunks.first_line(c), n = chunks.lines_of(c);
        const auto scales = std::span(scales_).subspan(std::size_t(first), std::size_t(n));
        kernel::multiply_trellis_rows(codes.decoder(), codes.chunk(c).data(), 0, scales, x,
                                      Y.col_block(first, n));
      }
      for (Index k = 0; k < Y.rows; ++k)
        for (Index i = chunks.first_line(begin); i < chunks.first_line(end); ++i)
          Y(k, i) = float(unit(double(Y(k, i))));
    });
  }

  std::vector<float> scales_;
};

}  // namespace cafeq
