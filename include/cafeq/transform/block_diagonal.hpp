/// BlockDiagonal: M = diag(M_1, …, M_b) with dense blocks, kept by its inverse, which is what
/// inference stores.
///
/// X·M costs 2k operations an element for blocks of size k. The inverse N = M⁻¹ is rounded to a
/// storage precision first and M is the inverse of the *stored* N, so that the error of storing N
/// never reaches the weights: M·N = I to fp64. In fp32, M and N are kept packed, so that applying
/// them to a few rows costs no more a row than to many.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "cafeq/core/workspace.hpp"
#include "cafeq/kernel/block_product.hpp"
#include "cafeq/kernel/gram.hpp"
#include "cafeq/linalg/dense.hpp"
#include "cafeq/linalg/metric.hpp"
#include "cafeq/transform/stored_inverse.hpp"
#include "cafeq/transform/transform.hpp"

namespace cafeq {

class BlockDiagonal {
 public:
  struct Block {
    Index offset = 0;
    Matrix<double> M;
    Matrix<double> N;  ///< M⁻¹, as stored
    kernel::PackedMatrix<float> M_packed;
    kernel::PackedMatrix<float> N_packed;

    Index size() const noexcept { return M.rows(); }
  };

  BlockDiagonal() = default;
  /// From the blocks of M, any square invertible ones; sizes may differ.
  template <class Arch = DefaultArch>
  static BlockDiagonal from_forward(std::vector<Matrix<double>> M,
                                    InversePrecision precision = InversePrecision::int8);
  /// From the blocks of N = M⁻¹.
  template <class Arch = DefaultArch>
  static BlockDiagonal from_inverse(std::vector<Matrix<double>> N,
                                    InversePrecision precision = InversePrecision::int8);
  /// From what int8_inverse() gave.
  template <class Arch = DefaultArch>
  static BlockDiagonal from_int8(const detail::Int8Inverse& stored);
  /// From the blocks of an orthogonal M: |MᵀM − I| at most 1e-6. The stored transform is orthogonal
  /// to the precision of storage.
  template <class Arch = DefaultArch>
  static BlockDiagonal orthogonal(std::vector<Matrix<double>> M,
                                  InversePrecision precision = InversePrecision::int8);

  Index dim() const noexcept { return dim_; }
  const std::vector<Block>& blocks() const noexcept { return blocks_; }
  /// Block i of N, as stored: rounding it again to the precision changes nothing.
  const Matrix<double>& inverse(Index i) const noexcept { return blocks_[std::size_t(i)].N; }
  /// What int8 storage keeps; raises for another precision.
  detail::Int8Inverse int8_inverse() const;
  InversePrecision precision() const noexcept { return precision_; }

  template <class E>
  void apply(View<E> X, Op op = Op::forward) const {
    Workspace workspace;
    apply(X, op, workspace);
  }
  /// The same without allocating once the workspace has grown: by 64 elements a row of the largest
  /// block, and by one packed block for a transpose or for double.
  template <class E>
  void apply(View<E> X, Op op, Workspace& workspace) const;
  bool is_orthogonal() const noexcept { return is_orthogonal_; }
  /// Entries of N; for int8 an exponent a column and the base besides.
  std::int64_t storage_bits() const noexcept;
  /// The same for `entries` entries in the blocks of N.
  static constexpr std::int64_t storage_bits(Index dim, std::int64_t entries,
                                             InversePrecision precision) noexcept {
    if (precision == InversePrecision::int8) return 8 * (entries + std::int64_t(dim)) + 16;
    return (precision == InversePrecision::fp32 ? 32 : 16) * entries;
  }

  /// H = N Nᵀ: the error E of X = W M costs tr(E H Eᵀ) in W. The identity for an orthogonal M.
  template <class Arch = DefaultArch>
  Metric metric() const;

 private:
  Index dim_ = 0;
  std::vector<Block> blocks_;
  InversePrecision precision_ = InversePrecision::int8;
  bool is_orthogonal_ = false;
};

namespace detail {

inline void check_blocks(const std::vector<Matrix<double>>& blocks, const char* name) {
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    const auto& A = blocks[b];
    if (A.rows() != A.cols() || A.empty())
      raise(ErrorCode::invalid_shape,
            message(name, ": block ", b, " is ", A.rows(), " x ", A.cols(), ", must be square"));
    for (Index i = 0; i < A.size(); ++i)
      if (!std::isfinite(A.data()[i]))
        raise(ErrorCode::non_finite, message(name, ": block ", b, ", row ", i / A.cols(),
                                             ", column ", i % A.cols(), " is ", A.data()[i]));
  }
}

template <class Arch = DefaultArch>
Matrix<double> invert_block(const Matrix<double>& A, std::size_t b, const char* name) {
  auto inverse = linalg::inverse<Arch>(A.view());
  if (!inverse)
    raise(ErrorCode::singular, message(name, ": block ", b, " of size ", A.rows(), " is singular"));
  return std::move(*inverse);
}

}  // namespace detail

template <class Arch>
BlockDiagonal BlockDiagonal::from_inverse(std::vector<Matrix<double>> N,
                                          InversePrecision precision) {
  detail::check_blocks(N, "BlockDiagonal");
  detail::round_inverse(N, precision);
  BlockDiagonal result;
  result.precision_ = precision;
  for (std::size_t b = 0; b < N.size(); ++b) {
    Block block{
        result.dim_, detail::invert_block<Arch>(N[b], b, "BlockDiagonal"), std::move(N[b]), {}, {}};
    block.M_packed.assign(block.M.view());
    block.N_packed.assign(block.N.view());
    result.dim_ += block.size();
    result.blocks_.push_back(std::move(block));
  }
  return result;
}

template <class Arch>
BlockDiagonal BlockDiagonal::from_forward(std::vector<Matrix<double>> M,
                                          InversePrecision precision) {
  detail::check_blocks(M, "BlockDiagonal");
  for (std::size_t b = 0; b < M.size(); ++b)
    M[b] = detail::invert_block<Arch>(M[b], b, "BlockDiagonal");
  return from_inverse<Arch>(std::move(M), precision);
}

template <class Arch>
BlockDiagonal BlockDiagonal::orthogonal(std::vector<Matrix<double>> M, InversePrecision precision) {
  detail::check_blocks(M, "BlockDiagonal");
  for (std::size_t b = 0; b < M.size(); ++b) {
    const auto G = kernel::gram<double, Arch>(M[b].view());
    for (Index i = 0; i < G.rows(); ++i)
      for (Index j = 0; j < G.cols(); ++j)
        if (std::abs(G(i, j) - (i == j ? 1.0 : 0.0)) > 1e-6)
          raise(ErrorCode::invalid_argument,
                message("BlockDiagonal: block ", b, " is not orthogonal: columns ", i, " and ", j,
                        " have product ", G(i, j)));
    M[b] = to_matrix<double>(std::as_const(M[b]).view().transposed());
  }
  auto result = from_inverse<Arch>(std::move(M), precision);
  result.is_orthogonal_ = true;
  return result;
}

template <class E>
void BlockDiagonal::apply(View<E> X, Op op, Workspace& workspace) const {
  detail::check_columns(X.cols, dim_, "BlockDiagonal");
  Index largest = 0;
  for (const Block& block : blocks_) largest = std::max(largest, block.size());

  const Workspace::Frame frame(workspace);
  const bool inverse = op == Op::inverse || op == Op::inverse_transpose;
  const bool transpose = op == Op::transpose || op == Op::inverse_transpose;

  // What is used most lies packed.
  if constexpr (std::is_same_v<E, float>) {
    if (!transpose) {
      const auto packed = [&](Index b) {
        const Block& block = blocks_[std::size_t(b)];
        return (inverse ? block.N_packed : block.M_packed).panels();
      };
      const auto scratch = workspace.take<float>(kernel::packed_in_place_scratch<float>(largest));
      return kernel::multiply_blocks_in_place<float>(X, Index(blocks_.size()), packed, scratch);
    }
  }

  const auto panels = workspace.take<E>(kernel::panels_size<E>(largest, largest));
  const auto scratch = workspace.take<E>(kernel::packed_in_place_scratch<E>(largest));
  for (const Block& block : blocks_) {
    const View<const double> factor = inverse ? block.N.view() : block.M.view();
    const auto packed =
        kernel::pack_panels<E>(transpose ? factor.transposed() : factor, panels.data());
    kernel::multiply_right_in_place<E>(X.col_block(block.offset, block.size()), packed, scratch);
  }
}

inline std::int64_t BlockDiagonal::storage_bits() const noexcept {
  std::int64_t entries = 0;
  for (const Block& block : blocks_) entries += block.N.size();
  return storage_bits(dim_, entries, precision_);
}

inline detail::Int8Inverse BlockDiagonal::int8_inverse() const {
  if (precision_ != InversePrecision::int8)
    raise(ErrorCode::unsupported, "BlockDiagonal: the inverse is not stored in int8");
  std::vector<Matrix<double>> N;
  for (const Block& block : blocks_) N.push_back(block.N);
  return detail::to_int8(N);
}

template <class Arch>
BlockDiagonal BlockDiagonal::from_int8(const detail::Int8Inverse& stored) {
  return from_inverse<Arch>(detail::from_int8(stored), InversePrecision::int8);
}

template <class Arch>
Metric BlockDiagonal::metric() const {
  if (is_orthogonal_) return Metric::identity(dim_);
  std::vector<Matrix<double>> H;
  for (const Block& block : blocks_) {
    H.push_back(kernel::gram<double, Arch>(block.N.view().transposed()));  // (Nᵀ)ᵀ Nᵀ
    // Channels may be too far apart for the squares of N to be positive definite in fp64.
    if (!linalg::factor_ldl<Arch>(H.back().view())) linalg::add_ridge(H.back(), 1e-9);
  }
  return Metric::block_diagonal(std::move(H));
}

}  // namespace cafeq
