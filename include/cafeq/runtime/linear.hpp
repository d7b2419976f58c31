/// Linear: packed weights times activations.
#pragma once

#include <array>
#include <utility>
#include <vector>

#include "cafeq/pipeline/quantized.hpp"

namespace cafeq {

/// y = Ŵ x straight from packed codes: the transform is undone on x (or on y, for an output-side transform), once a call; a linear grid's scale multiplies
/// a group's sum. fp32 activations; sums of a group in fp64. Owns the quantized matrix.
template <Transform T, Quantizer Q>
class Linear {
 public:
  explicit Linear(Quantized<T, Q> weights) : weights_(std::move(weights)) {}

  Index in() const noexcept { return weights_.cols(); }
  Index out() const noexcept { return weights_.rows(); }
  const Quantized<T, Q>& weights() const noexcept { return weights_; }

  /// y ← Ŵ x for vectors x [in] and y [out]: spans, contiguous containers, or one-row or one-column matrices, float elements.
  template <class X, class Y>
  void multiply(X&& x, Y&& y, ExecutorRef executor = {}) const {
    const auto from = as_vector(std::forward<X>(x));
    const auto to = as_vector(std::forward<Y>(y));
    multiply_batch(View<const float>{from.data, 1, from.size, from.size * from.stride, from.stride},
                   View<float>{to.data, 1, to.size, to.size * to.stride, to.stride}, executor);
  }

  /// Y ← X Ŵᵀ: one activation a row, X [n, in], Y [n, out]. Memory: X in fp32 and one row of codes a worker.
  void multiply_batch(View<const float> X, View<float> Y, ExecutorRef executor = {}) const {
    check_view(X, "x");
    check_view(Y, "y");
    if (X.cols != in()) raise(ErrorCode::invalid_shape, message("multiply: x has ", X.cols, " entries, the weights ", in(), " columns"));
    if (Y.cols != out() || Y.rows != X.rows)
      raise(ErrorCode::invalid_shape, message("multiply: y is ", Y.rows, " x ", Y.cols, ", expected ", X.rows, " x ", out()));
    Matrix<float> inputs = to_matrix<float>(X);
    // (M⁻¹ x)ᵀ = xᵀ M⁻ᵀ
    if (weights_.side() == Side::input) weights_.transform().apply(inputs.view(), Op::inverse_transpose);
    executor.parallel_for(out(), std::max<Index>(1, 65536 / std::max<Index>(1, in())), [&](Index begin, Index end, Index) {
      std::vector<std::uint8_t> codes(static_cast<std::size_t>(in()));
      for (Index i = begin; i < end; ++i) {
        weights_.codes().unpack_row(i, codes);
        for (Index n = 0; n < X.rows; ++n) Y(n, i) = float(std::ldexp(dot(i, codes, inputs.row(n)), weights_.exponent()));
      }
    });
    if (weights_.side() == Side::output) weights_.transform().apply(Y, Op::inverse);  // (M⁻ᵀ z)ᵀ = zᵀ M⁻¹
  }

 private:
  double dot(Index row, std::span<const std::uint8_t> codes, std::span<const float> x) const {
    const Q& q = weights_.quantizer();
    const Grouping& grouping = weights_.grouping();
    double sum = 0;
    for (Index j = 0; j < in(); j += grouping.width()) {
      const Index end = std::min(j + grouping.width(), in());
      const auto& params = weights_.params()[std::size_t(grouping.index(row, j))];
      double group = 0;
      if constexpr (LinearGrid<Q>) {
        double total = 0;
        for (Index l = j; l < end; ++l) {
          group += double(q.level(codes[std::size_t(l)])) * double(x[std::size_t(l)]);
          if constexpr (Q::has_offset) total += double(x[std::size_t(l)]);
        }
        sum += double(q.scale(params)) * group;
        if constexpr (Q::has_offset) sum += double(q.offset(params)) * total;
      } else {
        for (Index l = j; l < end; ++l) group += double(q.decode(codes[std::size_t(l)], params)) * double(x[std::size_t(l)]);
        sum += group;
      }
    }
    return sum;
  }

  Quantized<T, Q> weights_;
};

}  // namespace cafeq
