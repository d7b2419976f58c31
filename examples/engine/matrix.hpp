/// Matrices of floats, and weights that know how to multiply.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "cafeq/core/executor.hpp"

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

/// Weights W [out, in] of the model, whatever they are made of: y [n, out] = x [n, in] · Wᵀ, one
/// activation a row.
using Linear = std::function<Matrix(const Matrix& x, cafeq::ExecutorRef threads)>;

}  // namespace engine
