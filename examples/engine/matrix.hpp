/// Matrices of floats, and the one place where activations meet weights.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "threads.hpp"

namespace engine {

/// Rows one after another.
struct Matrix {
  std::size_t rows = 0;
  std::size_t cols = 0;
  std::vector<float> values;

  Matrix() = default;
  Matrix(std::size_t rows_, std::size_t cols_) : rows(rows_), cols(cols_), values(rows_ * cols_) {}

  std::span<float> row(std::size_t i) { return {values.data() + i * cols, cols}; }
  std::span<const float> row(std::size_t i) const { return {values.data() + i * cols, cols}; }
};

/// a · b, in eight sums that do not wait for each other.
inline float dot(const float* a, const float* b, std::size_t n) {
  float sums[8] = {};
  std::size_t j = 0;
  for (; j + 8 <= n; j += 8)
    for (std::size_t k = 0; k < 8; ++k) sums[k] += a[j + k] * b[j + k];
  for (; j < n; ++j) sums[0] += a[j] * b[j];
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

/// Weights W [out, in] of the model.
class Linear {
 public:
  Linear() = default;
  explicit Linear(Matrix weights) : Linear(std::make_shared<const Matrix>(std::move(weights))) {}
  /// Weights that serve elsewhere too.
  explicit Linear(std::shared_ptr<const Matrix> weights) : weights_(std::move(weights)) {}
  /// Weights of another kind, which know how to multiply.
  explicit Linear(std::function<Matrix(const Matrix& x, const Threads& threads)> multiply)
      : multiply_(std::move(multiply)) {}

  /// y [n, out] = x [n, in] · Wᵀ, one activation a row.
  Matrix multiply(const Matrix& x, const Threads& threads) const {
    if (multiply_) return multiply_(x, threads);
    Matrix y(x.rows, weights_->rows);
    // Enough to be worth a thread; rows of weights that stay in the cache while x passes by.
    const std::size_t grain = std::max<std::size_t>(16, (1 << 18) / (x.values.size() + 1));
    threads.parallel_for(y.cols, grain, [&](std::size_t begin, std::size_t end, std::size_t) {
      for (std::size_t n = 0; n < x.rows; ++n)
        for (std::size_t i = begin; i < end; ++i)
          y.row(n)[i] = dot(x.row(n).data(), weights_->row(i).data(), x.cols);
    });
    return y;
  }

 private:
  std::shared_ptr<const Matrix> weights_;
  std::function<Matrix(const Matrix&, const Threads&)> multiply_;
};

}  // namespace engine
