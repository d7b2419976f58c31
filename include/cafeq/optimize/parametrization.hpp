/// Parametrisations of a set of square matrices {M_m} by one vector of unknowns, for optimizers that know no constraints.
///
/// A parametrisation maps unknowns to matrices, and the gradient by the matrices back to the gradient by the unknowns.
#pragma once

#include <algorithm>
#include <limits>
#include <span>
#include <vector>

#include "cafeq/core/executor.hpp"
#include "cafeq/kernel/product.hpp"
#include "cafeq/linalg/dense.hpp"

namespace cafeq {

/// M = M₀ C with C = (I − A)⁻¹ (I + A), A = P − Pᵀ, P skew and kept by its upper triangle: every rotation without an eigenvalue of −1, on top of a start
/// M₀. M is orthogonal where M₀ is, and in any case ‖M⁻¹‖_F is that of M₀.
///
/// With Z = (I − A)⁻¹: C = 2 Z − I, and for G = M₀ᵀ ∇_M the gradient by a skew P is twice the upper triangle of Y − Yᵀ, Y = Zᵀ G (I + C)ᵀ = 2 Zᵀ G Zᵀ.
/// A is skew, so I − A has no singular value below 1 and the inverse is always well conditioned. Five [k, k] products a matrix, in fp64.
class CayleyParametrization {
 public:
  explicit CayleyParametrization(std::vector<Matrix<double>> start, ExecutorRef executor = {})
      : start_(std::move(start)), executor_(executor), workers_(std::size_t(executor.concurrency())) {
    Index largest = 0;
    for (const auto& M : start_) {
      blocks_.push_back({size_, Matrix<double>(M.rows(), M.rows())});
      size_ += M.rows() * (M.rows() - 1) / 2;
      largest = std::max(largest, M.rows());
    }
    for (Worker& worker : workers_)
      for (auto& scratch : worker.scratch) scratch = Matrix<double>(largest, largest);
  }

  /// Number of unknowns: k (k − 1) / 2 a matrix.
  Index size() const noexcept { return size_; }
  /// The unknowns of M₀: zeros.
  std::vector<double> origin() const { return std::vector<double>(std::size_t(size_)); }

  CAFEQ_LAZY void matrices(std::span<const double> unknowns, std::span<Matrix<double>> M) {
    CAFEQ_ASSERT(Index(unknowns.size()) == size_ && M.size() == start_.size());
    detail::for_each(executor_, Index(start_.size()), [&](Index b, Index worker) {
      Block& block = blocks_[std::size_t(b)];
      const auto& M0 = start_[std::size_t(b)];
      const Index k = M0.rows();
      const View<double> C = workers_[std::size_t(worker)].square(0, k);
      const double* p = unknowns.data() + block.offset;
      for (Index i = 0; i < k; ++i) {
        C(i, i) = 1;
        for (Index j = i + 1; j < k; ++j, ++p) {
          C(i, j) = -2 * *p;
          C(j, i) = 2 * *p;
        }
      }
      if (auto inverse = linalg::inverse(View<const double>(C))) block.Z = std::move(*inverse);
      else std::fill_n(block.Z.data(), k * k, std::numeric_limits<double>::quiet_NaN());  // P is not finite
      for (Index i = 0; i < k; ++i)
        for (Index j = 0; j < k; ++j) C(i, j) = 2 * block.Z(i, j) - (i == j ? 1.0 : 0.0);
      kernel::multiply<double>(M0.view(), C, M[std::size_t(b)].view());
    });
  }

  /// At the unknowns of the last call of matrices().
  void gradient(std::span<const Matrix<double>> by_M, std::span<double> by_unknowns) {
    CAFEQ_ASSERT(Index(by_unknowns.size()) == size_ && by_M.size() == start_.size());
    detail::for_each(executor_, Index(start_.size()), [&](Index b, Index worker) {
      const Block& block = blocks_[std::size_t(b)];
      const auto& M0 = start_[std::size_t(b)];
      const Index k = M0.rows();
      const auto Zt = block.Z.view().transposed();
      const View<double> G = workers_[std::size_t(worker)].square(0, k);
      const View<double> ZtG = workers_[std::size_t(worker)].square(1, k);
      kernel::multiply<double>(M0.view().transposed(), by_M[std::size_t(b)].view(), G);
      kernel::multiply<double>(Zt, G, ZtG);
      kernel::multiply<double>(ZtG, Zt, G);  // Y / 2
      double* out = by_unknowns.data() + block.offset;
      for (Index i = 0; i < k; ++i)
        for (Index j = i + 1; j < k; ++j) *out++ = 4 * (G(i, j) - G(j, i));
    });
  }

 private:
  struct Block {
    Index offset;
    Matrix<double> Z;
  };
  struct Worker {
    Matrix<double> scratch[2];
    View<double> square(int which, Index k) noexcept { return {scratch[which].data(), k, k, k, 1}; }
  };
  std::vector<Matrix<double>> start_;
  std::vector<Block> blocks_;
  ExecutorRef executor_;
  std::vector<Worker> workers_;
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
