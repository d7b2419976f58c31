/// GPTQ: E. Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
/// Transformers", 2022.
#pragma once

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "accuracy/peers/affine_groups.hpp"

namespace cafeq::accuracy::peers {

/// Column after column is rounded, and its error, by the Gram matrix of the inputs, made up for by
/// those that follow. Groups have their range once it is their turn; 1 % damping, columns in order.
struct Gptq {
  using Gram = Eigen::MatrixXf;  ///< Σ x xᵀ of inputs x [cols]

  int bits = 4;
  Index group = 64;

  std::string name() const { return message("GPTQ g", group); }
  double bits_per_weight(Index, Index) const { return affine_bits(bits, group); }

  Matrix<float> operator()(View<const float> W, const Gram& gram) const {
    // [rows, cols] by columns, so that one column's errors are a contiguous vector.
    Eigen::MatrixXf w(W.rows, W.cols);
    for (Index i = 0; i < W.rows; ++i)
      for (Index j = 0; j < W.cols; ++j) w(i, j) = W(i, j);
    const Eigen::MatrixXf U = upper_factor(gram);
    Matrix<float> result(W.rows, W.cols);
    std::vector<AffineGroup> q(std::size_t(W.rows));
    std::vector<float> weights;
    for (Index begin = 0; begin < W.cols; begin += group) {
      const Index count = std::min(group, W.cols - begin);
      for (Index i = 0; i < W.rows; ++i) {
        weights.assign(std::size_t(count), 0);
        for (Index j = 0; j < count; ++j) weights[std::size_t(j)] = w(i, begin + j);
        q[std::size_t(i)] = min_max(weights, bits).rounded();
      }
      Eigen::MatrixXf errors(W.rows, count);
      for (Index j = begin; j < begin + count; ++j) {
        for (Index i = 0; i < W.rows; ++i) {
          result(i, j) = q[std::size_t(i)](w(i, j));
          errors(i, j - begin) = (w(i, j) - result(i, j)) / U(j, j);
        }
        const Index left = begin + count - j - 1;
        w.middleCols(j + 1, left).noalias() -=
            errors.col(j - begin) * U.row(j).segment(j + 1, left);
      }
      const Index rest = W.cols - begin - count;
      w.rightCols(rest).noalias() -= errors * U.block(begin, begin + count, count, rest);
    }
    return result;
  }

 private:
  /// U of H⁻¹ = Uᵀ U, H the damped Gram matrix.
  static Eigen::MatrixXf upper_factor(const Gram& gram) {
    constexpr double damping = 0.01;
    Eigen::MatrixXd H = gram.cast<double>();
    const double mean = std::max(H.diagonal().mean(), 1e-30);
    for (Index j = 0; j < H.rows(); ++j)
      if (H(j, j) == 0) H(j, j) = mean;
    H.diagonal().array() += damping * mean;
    const Eigen::MatrixXd inverse = H.llt().solve(Eigen::MatrixXd::Identity(H.rows(), H.cols()));
    return Eigen::MatrixXd(inverse.llt().matrixU()).cast<float>();
  }
};

}  // namespace cafeq::accuracy::peers
