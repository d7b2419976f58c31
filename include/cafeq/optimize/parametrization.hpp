/// Parametrisations of a set of square matrices {M_m} by one vector of unknowns, for optimizers that know no constraints.
///
/// A parametrisation maps unknowns to matrices, and the gradient by the matrices back to the gradient by the unknowns.
#pragma once

#include <span>
#include <vector>

#include "cafeq/core/executor.hpp"
#include "cafeq/kernel/product.hpp"
#include "cafeq/linalg/dense.hpp"

namespace cafeq {

/// M = M₀ C with C = (I − A)⁻¹ (I + A), A = P − Pᵀ, P [k, k] free: every rotation without an eigenvalue of −1, on top of a start M₀. M is
/// orthogonal where M₀ is, and in any case ‖M⁻¹‖_F is that of M₀.
///
/// With Z = (I − A)⁻¹: C = 2 Z − I, and for G = M₀ᵀ ∇_M the gradient is ∇_P = Y − Yᵀ, Y = Zᵀ G (I + C)ᵀ = 2 Zᵀ G Zᵀ. A is skew, so I − A has no
/// singular value below 1 and the inverse is always well conditioned. Five [k, k] products a matrix, in fp64.
class CayleyParametrization {
 public:
  explicit CayleyParametrization(std::vector<Matrix<double>> start, ExecutorRef executor = {})
      : start_(std::move(start)), executor_(executor) {
    for (const auto& M : start_) {
      blocks_.push_back({size_, Matrix<double>(M.rows(), M.rows()), Matrix<double>(M.rows(), M.rows()), Matrix<double>(M.rows(), M.rows())});
      size_ += M.size();
    }
  }

  /// Number of unknowns.
  Index size() const noexcept { return size_; }
  /// The unknowns of M₀: zeros.
  std::vector<double> origin() const { return std::vector<double>(std::size_t(size_)); }

  CAFEQ_LAZY void matrices(std::span<const double> unknowns, std::span<Matrix<double>> M) {
    CAFEQ_ASSERT(Index(unknowns.size()) == size_ && M.size() == start_.size());
    executor_.parallel_for(Index(start_.size()), 1, [&](Index begin, Index, Index) {
      Block& block = blocks_[std::size_t(begin)];
      const auto& M0 = start_[std::size_t(begin)];
      const Index k = M0.rows();
      const View<const double> P{unknowns.data() + block.offset, k, k, k, 1};
      auto& C = block.scratch;
      for (Index i = 0; i < k; ++i)
        for (Index j = 0; j < k; ++j) C(i, j) = (i == j ? 1.0 : 0.0) - (P(i, j) - P(j, i));
      if (auto inverse = linalg::inverse(C.view())) block.Z = std::move(*inverse);
      else std::fill_n(block.Z.data(), k * k, std::numeric_limits<double>::quiet_NaN());  // P is not finite
      for (Index i = 0; i < k; ++i)
        for (Index j = 0; j < k; ++j) C(i, j) = 2 * block.Z(i, j) - (i == j ? 1.0 : 0.0);
      kernel::multiply<double>(M0.view(), C.view(), M[std::size_t(begin)].view());
    });
  }

  /// At the unknowns of the last call of matrices().
  void gradient(std::span<const Matrix<double>> by_M, std::span<double> by_unknowns) {
    CAFEQ_ASSERT(Index(by_unknowns.size()) == size_ && by_M.size() == start_.size());
    executor_.parallel_for(Index(start_.size()), 1, [&](Index begin, Index, Index) {
      Block& block = blocks_[std::size_t(begin)];
      const auto& M0 = start_[std::size_t(begin)];
      const Index k = M0.rows();
      const auto Zt = block.Z.view().transposed();
      kernel::multiply<double>(M0.view().transposed(), by_M[std::size_t(begin)].view(), block.scratch.view());  // G
      kernel::multiply<double>(Zt, block.scratch.view(), block.product.view());
      kernel::multiply<double>(block.product.view(), Zt, block.scratch.view());  // Y / 2
      double* out = by_unknowns.data() + block.offset;
      for (Index i = 0; i < k; ++i)
        for (Index j = 0; j < k; ++j) out[i * k + j] = 2 * (block.scratch(i, j) - block.scratch(j, i));
    });
  }

 private:
  struct Block {
    Index offset;
    Matrix<double> Z;
    Matrix<double> scratch;
    Matrix<double> product;
  };
  std::vector<Matrix<double>> start_;
  std::vector<Block> blocks_;
  ExecutorRef executor_;
  Index size_ = 0;
};

/// M itself, entry by entry. Any invertible matrix; the objective must keep it away from singular ones.
class GeneralParametrization {
 public:
  explicit GeneralParametrization(std::vector<Matrix<double>> start) : start_(std::move(start)) {
    for (const auto& M : start_) size_ += M.size();
  }

  Index size() const noexcept { return size_; }
  std::vector<double> origin() const {
    std::vector<double> unknowns(static_cast<std::size_t>(size_));
    gradient(start_, unknowns);
    return unknowns;
  }

  void matrices(std::span<const double> unknowns, std::span<Matrix<double>> M) const {
    CAFEQ_ASSERT(Index(unknowns.size()) == size_ && M.size() == start_.size());
    const double* from = unknowns.data();
    for (auto& m : M) {
      std::copy_n(from, m.size(), m.data());
      from += m.size();
    }
  }
  void gradient(std::span<const Matrix<double>> by_M, std::span<double> by_unknowns) const {
    CAFEQ_ASSERT(Index(by_unknowns.size()) == size_ && by_M.size() == start_.size());
    double* to = by_unknowns.data();
    for (const auto& g : by_M) to = std::copy_n(g.data(), g.size(), to);
  }

 private:
  std::vector<Matrix<double>> start_;
  Index size_ = 0;
};

}  // namespace cafeq
