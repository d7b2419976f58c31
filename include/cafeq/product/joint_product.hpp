/// The product of any joint quantizer: lines of X̂ are decoded to floats and meet activations as
/// they are.
#pragma once

#include <vector>

#include "cafeq/core/scale.hpp"
#include "cafeq/product/activations.hpp"
#include "cafeq/quant/joint_codes.hpp"
#include "cafeq/simd/fma.hpp"
#include "cafeq/simd/lanes.hpp"

namespace cafeq {

/// Y ← X X̂ᵀ · unit. Rows are dot products in fp32 lanes, columns are added up one after the other:
/// |error| <= in · 2^-24 Σ_j |x̂_ij x_j|. The same bits for any number of threads and of vectors
/// together.
template <JointQuantizer Q>
class JointProduct {
 public:
  explicit JointProduct(const Codes<Q>&) noexcept {}

  /// As they are.
  Activations arrange(const Codes<Q>&, View<const float> X, ActivationFormat) const {
    return Activations(X, 8, {});
  }
  void multiply(const Codes<Q>& codes, const Activations& x, ActivationFormat, PowerOfTwo unit,
                View<float> Y, ExecutorRef executor) const {
    if (along_columns(codes.quantizer().sequence))
      multiply_columns(codes, x.values(), unit, Y, executor);
    else multiply_rows(codes, x.values(), unit, Y, executor);
  }

 protected:
  static void multiply_rows(const Codes<Q>& codes, View<const float> X, PowerOfTwo unit,
                            View<float> Y, ExecutorRef executor) {
    executor.parallel_for(codes.rows(), 16, [&](Index begin, Index end, Index) {
      Buffer<float> row(static_cast<std::size_t>(codes.cols()));
      for (Index i = begin; i < end; ++i) {
        codes.decode_line(i, 0, row);
        for (Index n = 0; n < X.rows; ++n)
          Y(n, i) = float(unit(double(dot(row, X.data + n * X.row_stride))));
      }
    });
  }

  /// Columns of X̂ are decoded some rows at a time, and added up.
  static void multiply_columns(const Codes<Q>& codes, View<const float> X, PowerOfTwo unit,
                               View<float> Y, ExecutorRef executor) {
    executor.parallel_for(codes.rows(), 256, [&](Index begin, Index end, Index) {
      Buffer<float> column(static_cast<std::size_t>(end - begin));
      Matrix<float> sums(X.rows, end - begin);

      for (Index j = 0; j < codes.cols(); ++j) {
        codes.decode_line(j, begin, column);
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

 private:
  static float dot(std::span<const float> a, const float* b) noexcept {
    using V = Batch<float>;
    V sum(0.0f);
    std::size_t j = 0;
    for (; j + V::size <= a.size(); j += V::size)
      sum = simd::fma(V::load_unaligned(a.data() + j), V::load_unaligned(b + j), sum);
    float total = simd::reduce_add(sum);
    for (; j < a.size(); ++j) total += a[j] * b[j];
    return total;
  }
};

}  // namespace cafeq
