/// Parametrisations of a set of square matrices {M_m} by one vector of unknowns, for optimizers
/// that know no constraints.
///
/// A parametrisation maps unknowns to matrices, and the gradient by the matrices back to the
/// gradient by the unknowns.
#pragma once

#include <algorithm>
#include <limits>
#include <span>
#include <vector>

#include "cafeq/core/executor.hpp"
#include "cafeq/kernel/dense_product.hpp"
#include "cafeq/linalg/inverse.hpp"

namespace cafeq::detail {

/// M = M₀ C with C = (I − A)⁻¹ (I + A), A = P − Pᵀ, P skew and kept by its upper triangle: every
/// rotation without an eigenvalue of −1, on top of a start M₀. M is orthogonal where M₀ is, and in
/// any case ‖M⁻¹‖_F is that of M₀.
///
/// With Z = (I − A)⁻¹ and T = M₀ Z: C = 2 Z − I, M = 2 T − M₀, and the gradient by a skew P is
/// twice the upper triangle of Y − Yᵀ, Y = Zᵀ M₀ᵀ ∇_M (I + C)ᵀ = 2 Tᵀ ∇_M Zᵀ. A is skew, so I − A
/// has no singular value below 1 and the inverse is always well conditioned. An inverse and three
/// [k, k] products a matrix, in fp64, from transposes that lie ready; nothing is allocated but by
/// the constructor and the first call.
template <class Arch = DefaultArch>
class CayleyParametrization {
 public:
  explicit CayleyParametrization(const std::vector<Matrix<double>>& start,
                                 ExecutorRef executor = {})
      : executor_(executor), workers_(std::size_t(executor.concurrency())) {
    Index largest = 0;
    for (const auto& M : start) {
      const Index k = M.rows();
      blocks_.push_back({.offset = size_,
                         .start = to_matrix<double>(M.view().transposed()),
                         .Z = Matrix<double>(k, k),
                         .T = Matrix<double>(k, k)});
      size_ += k * (k - 1) / 2;
      largest = std::max(largest, k);
    }
    for (Worker& worker : workers_)
      for (auto& scratch : worker.scratch) scratch = Matrix<double>(largest, largest);
  }

  /// Number of unknowns: k (k − 1) / 2 a matrix.
  Index size() const noexcept { return size_; }
  /// The unknowns of M₀: zeros.
  std::vector<double> origin() const { return std::vector<double>(std::size_t(size_)); }

  void matrices(std::span<const double> unknowns, std::span<Matrix<double>> M) {
    CAFEQ_ASSERT(Index(unknowns.size()) == size_ && M.size() == blocks_.size());
    for_each(executor_, Index(blocks_.size()), [&](Index b, Index worker) {
      Block& block = blocks_[std::size_t(b)];
      const Index k = block.start.rows();
      // B = (I − A)ᵀ = I + A; its inverse is Zᵀ.
      const View<double> B = workers_[std::size_t(worker)].square(0, k);
      const double* p = unknowns.data() + block.offset;
      for (Index i = 0; i < k; ++i) {
        B(i, i) = 1;
        for (Index j = i + 1; j < k; ++j, ++p) {
          B(i, j) = 2 * *p;
          B(j, i) = -2 * *p;
        }
      }
      // There is always an inverse, unless P is not finite.
      if (!workers_[std::size_t(worker)].inverter.template invert<Arch>(B, block.Z.view(), 0))
        std::fill_n(block.Z.data(), k * k, std::numeric_limits<double>::quiet_NaN());

      kernel::multiply<double, Arch>(block.Z.view(), block.start.view(), block.T.view());
      for (Index i = 0; i < k * k; ++i) B.data[i] = 2 * block.T.data()[i] - block.start.data()[i];
      copy(View<const double>(B).transposed(), M[std::size_t(b)].view());
    });
  }

  /// At the unknowns of the last call of matrices().
  void gradient(std::span<const Matrix<double>> by_M, std::span<double> by_unknowns) {
    CAFEQ_ASSERT(Index(by_unknowns.size()) == size_ && by_M.size() == blocks_.size());
    for_each(executor_, Index(blocks_.size()), [&](Index b, Index worker) {
      const Block& block = blocks_[std::size_t(b)];
      const Index k = block.start.rows();
      const View<double> TtG = workers_[std::size_t(worker)].square(0, k);
      const View<double> Y = workers_[std::size_t(worker)].square(1, k);
      kernel::multiply<double, Arch>(block.T.view(), by_M[std::size_t(b)].view(), TtG);
      kernel::multiply<double, Arch>(TtG, block.Z.view(), Y);  // half of Y
      double* out = by_unknowns.data() + block.offset;
      for (Index i = 0; i < k; ++i)
        for (Index j = i + 1; j < k; ++j) *out++ = 4 * (Y(i, j) - Y(j, i));
    });
  }

 private:
  struct Block {
    Index offset;          // of its unknowns
    Matrix<double> start;  // M₀ᵀ
    Matrix<double> Z;      // Zᵀ
    Matrix<double> T;      // Tᵀ
  };
  struct Worker {
    Matrix<double> scratch[2];
    linalg::Inverter inverter;
    View<double> square(int which, Index k) noexcept { return {scratch[which].data(), k, k, k, 1}; }
  };
  std::vector<Block> blocks_;
  ExecutorRef executor_;
  std::vector<Worker> workers_;
  Index size_ = 0;
};

/// M itself, entry by entry. Any invertible matrix; the objective must keep it away from singular
/// ones.
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

}  // namespace cafeq::detail
