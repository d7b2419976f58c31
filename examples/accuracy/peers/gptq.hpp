/// GPTQ: E. Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
/// Transformers", 2022.
#pragma once

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "accuracy/peers/affine_groups.hpp"

namespace cafeq::accuracy::peers {

/// Column after column is rounded, and its error, by the Gram matrix of the inputs, made up for by
/// those that follow: the inputs with the most energy first ("activation order"), groups in the
/// order of the weights, their ranges those of the weights as they are ("static groups"); 1 %
/// damping. With columns in order and ranges as their turn comes SmolLM2 loses more than by
/// rounding to nearest, most of it through the value and output projections.
struct Gptq {
  using Gram = Eigen::MatrixXf;  ///< Σ x xᵀ of inputs x [cols]

  int bits = 4;
  Index group = 64;

  std::string name() const { return message("GPTQ g", group); }
  double bits_per_weight(Index, Index) const { return affine_bits(bits, group); }

  Matrix<float> operator()(View<const float> W, const Gram& gram) const {
    const std::vector<AffineGroup> groups = ranges(W);
    const auto group_of = [&](Index i, Index column) {
      return groups[std::size_t(i * ceil_div(W.cols, group) + column / group)];
    };
    std::vector<Index> order(std::size_t(W.cols));
    std::iota(order.begin(), order.end(), Index(0));
    std::stable_sort(order.begin(), order.end(),
                     [&](Index a, Index b) { return gram(a, a) > gram(b, b); });
    Gram sorted(W.cols, W.cols);
    // [rows, cols] by columns, so that one column's errors are a contiguous vector.
    Eigen::MatrixXf w(W.rows, W.cols);
    for (Index j = 0; j < W.cols; ++j) {
      const Index from = order[std::size_t(j)];
      for (Index k = 0; k < W.cols; ++k) sorted(k, j) = gram(order[std::size_t(k)], from);
      for (Index i = 0; i < W.rows; ++i) w(i, j) = W(i, from);
    }
    const Eigen::MatrixXf U = upper_factor(sorted);
    Matrix<float> result(W.rows, W.cols);
    constexpr Index block = 64;  // columns whose errors reach those behind it by one product
    for (Index begin = 0; begin < W.cols; begin += block) {
      const Index count = std::min(block, W.cols - begin);
      Eigen::MatrixXf errors(W.rows, count);
      for (Index j = begin; j < begin + count; ++j) {
        const Index column = order[std::size_t(j)];
        for (Index i = 0; i < W.rows; ++i) {
          result(i, column) = group_of(i, column)(w(i, j));
          errors(i, j - begin) = (w(i, j) - result(i, column)) / U(j, j);
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
  /// Of each row's groups.
  std::vector<AffineGroup> ranges(View<const float> W) const {
    std::vector<AffineGroup> all;
    std::vector<float> weights;
    for (Index i = 0; i < W.rows; ++i)
      for (Index begin = 0; begin < W.cols; begin += group) {
        weights.clear();
        for (Index j = begin; j < std::min(begin + group, W.cols); ++j) weights.push_back(W(i, j));
        all.push_back(min_max(weights, bits).rounded());
      }
    return all;
  }
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
