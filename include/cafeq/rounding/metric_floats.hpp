/// A metric in fp32, as the loops over lines and the refits of scales read it.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "cafeq/core/executor.hpp"
#include "cafeq/core/numeric.hpp"
#include "cafeq/linalg/metric.hpp"

namespace cafeq::rounding {

/// The blocks of a metric, each by itself divided by a power of two that brings its largest weight
/// into [1, 2): neither rounding nor descent minds that, and a metric of any magnitude fits.
/// `scale` is that power of two relative to the largest of them, which a refit across several
/// blocks does mind. Refers to the metric's own factors; one that a block does not have yet is
/// made. Raises not_positive_definite where it has none.
struct MetricFloats {
  struct Block {
    Index offset = 0;
    Index size = 0;
    double scale = 1;
    bool is_dense = false;
    /// H = L D Lᵀ; empty unless dense. Columns are contiguous: products read Lᵀ.
    View<const float> L;
    Matrix<float> own_factor;    ///< Lᵀ where the metric does not have it
    Matrix<float> H;             ///< empty unless dense and asked for
    std::vector<float> weights;  ///< of a diagonal; empty for the identity and for dense
  };
  std::vector<Block> blocks;

  /// Without `with_H`, what error feedback alone needs.
  explicit MetricFloats(const Metric& metric, bool with_H = true, ExecutorRef executor = {}) {
    std::vector<int> exponents;
    int highest = std::numeric_limits<int>::min();
    for (const Metric::Block& block : metric.blocks()) {
      double largest = 0;
      for (Index i = 0; i < block.size; ++i) largest = std::max(largest, block.weight(i));
      exponents.push_back(floor_log2(largest));
      highest = std::max(highest, exponents.back());
    }

    for (std::size_t n = 0; n < exponents.size(); ++n)
      blocks.push_back(in_floats(metric.blocks()[n], exponents[n], highest, with_H, executor));
  }
  MetricFloats(const MetricFloats&) = delete;
  MetricFloats(Metric&&, bool = true, ExecutorRef = {}) = delete;  // the factors would be gone

  /// Of the largest block.
  Index widest() const noexcept {
    Index size = 0;
    for (const Block& block : blocks) size = std::max(size, block.size);
    return size;
  }

 private:
  static Block in_floats(const Metric::Block& block, int exponent, int highest, bool with_H,
                         ExecutorRef executor) {
    const PowerOfTwo normalize(-exponent);
    Block result;
    result.offset = block.offset;
    result.size = block.size;
    result.scale = std::ldexp(1.0, exponent - highest);
    result.is_dense = block.is_dense();
    if (block.is_dense() && block.factor.empty()) result.own_factor = block.factored(executor);
    const Matrix<float>& factor = result.own_factor.empty() ? block.factor : result.own_factor;
    result.L = factor.view().transposed();
    if (block.is_dense() && with_H) {
      result.H = Matrix<float>(block.size, block.size);
      for (Index i = 0; i < result.H.size(); ++i)
        result.H.data()[i] = float(normalize(block.dense.data()[i]));
    }
    for (const double w : block.diagonal) result.weights.push_back(float(normalize(w)));
    return result;
  }
};

}  // namespace cafeq::rounding
