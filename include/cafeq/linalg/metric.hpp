/// Metric: what a rounding error is measured in.
#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>
#include <vector>

#include "cafeq/core/executor.hpp"
#include "cafeq/core/matrix.hpp"
#include "cafeq/core/side.hpp"
#include "cafeq/linalg/ldl.hpp"

namespace cafeq {

/// A symmetric positive definite matrix, block-diagonal: each block an identity, a diagonal or
/// dense. The identity is plain squared error.
class Metric {
 public:
  struct Block {
    Index offset = 0;
    Index size = 0;
    std::vector<double> diagonal{};  ///< empty for the identity and for a dense block
    Matrix<double> dense{};          ///< empty for the identity and for a diagonal
    Matrix<float> factor{};          ///< of a dense block H = L D Lᵀ: Lᵀ, unit upper triangular;
                                     ///< empty where it was left to those who need it

    bool is_dense() const noexcept { return !dense.empty(); }
    double weight(Index i) const noexcept {
      return is_dense() ? dense(i, i) : (diagonal.empty() ? 1.0 : diagonal[std::size_t(i)]);
    }
    /// Lᵀ. Raises not_positive_definite.
    template <class Arch = DefaultArch>
    Matrix<float> factored(ExecutorRef executor = {}) const {
      auto result = linalg::factor_ldl_transposed<Arch>(dense.view(), executor);
      if (!result)
        raise(ErrorCode::not_positive_definite,
              message("metric: the ", size, " x ", size, " block at ", offset,
                      " is not positive definite"));
      return *std::move(result);
    }
  };

  Metric() = default;

  static Metric identity(Index n) {
    Metric metric;
    metric.add({.size = n});
    return metric;
  }

  /// Weights; each must be positive and finite.
  static Metric diagonal(std::vector<double> weights) {
    for (std::size_t i = 0; i < weights.size(); ++i)
      if (!(weights[i] > 0) || !std::isfinite(weights[i]))
        raise(ErrorCode::not_positive_definite, message("metric: weight ", i, " is ", weights[i]));
    Metric metric;
    const Index n = Index(weights.size());
    metric.add({.size = n, .diagonal = std::move(weights)});
    return metric;
  }

  /// Any symmetric positive definite matrix, for example a Hessian XᵀX of the caller's data (which
  /// turns error feedback into GPTQ).
  template <class M>
    requires MatrixView<M&>  // H is copied or moved, so a temporary will do
  static Metric dense(M&& H, ExecutorRef executor = {}) {
    std::vector<Matrix<double>> blocks;
    if constexpr (std::is_same_v<M, Matrix<double>>) blocks.push_back(std::move(H));
    else blocks.push_back(to_matrix<double>(as_view(H)));
    return block_diagonal(std::move(blocks), executor);
  }

  /// Each block is factored once, here: error feedback needs the factor, and only a positive
  /// definite block has one.
  template <class Arch = DefaultArch>
  static Metric block_diagonal(std::vector<Matrix<double>> blocks, ExecutorRef executor = {}) {
    Metric metric;
    for (auto& H : blocks) {
      check_symmetric(H);
      const Index n = H.rows();
      metric.add({.size = n, .dense = std::move(H)});
    }
    for (Block& block : metric.blocks_) block.factor = block.factored<Arch>(executor);
    return metric;
  }

  /// One dense block that is factored only by those who need it: for a metric of inputs, which a
  /// pipeline sees in the basis of its transform.
  static Metric unfactored(Matrix<double> H) {
    check_symmetric(H);
    Metric metric;
    const Index n = H.rows();
    metric.add({.size = n, .dense = std::move(H)});
    return metric;
  }

  Index dim() const noexcept { return dim_; }
  const std::vector<Block>& blocks() const noexcept { return blocks_; }
  /// H as a matrix.
  Matrix<double> to_dense() const {
    Matrix<double> H(dim_, dim_);
    for (const Block& block : blocks_)
      for (Index i = 0; i < block.size; ++i) {
        const Index at = block.offset + i;
        if (!block.is_dense()) H(at, at) = block.weight(i);
        else
          for (Index j = 0; j < block.size; ++j) H(at, block.offset + j) = block.dense(i, j);
      }
    return H;
  }
  bool is_identity() const noexcept {
    for (const Block& b : blocks_)
      if (b.is_dense() || !b.diagonal.empty()) return false;
    return true;
  }

 private:
  void add(Block block) {
    block.offset = dim_;
    dim_ += block.size;
    blocks_.push_back(std::move(block));
  }

  static void check_symmetric(const Matrix<double>& H) {
    if (H.rows() != H.cols())
      raise(ErrorCode::invalid_shape,
            message("metric: ", H.rows(), " x ", H.cols(), " is not square"));
    if (is_symmetric(H)) return;

    // Now the first place that is to blame.
    for (Index i = 0; i < H.rows(); ++i)
      for (Index j = 0; j <= i; ++j) {
        for (const auto& [r, c] : {std::pair(i, j), std::pair(j, i)})
          if (!std::isfinite(H(r, c)))
            raise(ErrorCode::non_finite,
                  message("metric: row ", r, ", column ", c, " is ", H(r, c)));
        if (!alike(H, i, j))
          raise(ErrorCode::not_positive_definite,
                message("metric: not symmetric at row ", i, ", column ", j));
      }
  }

  /// False too where an element is not finite. Tile by tile: a column of a large matrix is a cache
  /// line an element.
  static bool is_symmetric(const Matrix<double>& H) noexcept {
    constexpr Index tile = 16;
    bool symmetric = true;
    for (Index i = 0; i < H.rows(); i += tile)
      for (Index j = 0; j <= i; j += tile)
        for (Index r = i; r < std::min(i + tile, H.rows()); ++r)
          for (Index c = j; c < std::min(j + tile, H.rows()); ++c) symmetric &= alike(H, r, c);
    return symmetric;
  }
  static bool alike(const Matrix<double>& H, Index i, Index j) noexcept {
    return std::abs(H(i, j) - H(j, i)) <= 1e-6 * (std::abs(H(i, i)) + std::abs(H(j, j)));
  }

  Index dim_ = 0;
  std::vector<Block> blocks_;
};

}  // namespace cafeq
