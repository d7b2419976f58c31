/// BlockDiagonal: M = diag(M_1, …, M_b) with dense blocks, kept by its inverse, which is what inference stores.
///
/// X·M costs 2k operations an element for blocks of size k. The inverse N = M⁻¹ is rounded to a storage precision first and M is the inverse of the
/// *stored* N, so that the error of storing N never reaches the weights: M·N = I to fp64.
#pragma once

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "cafeq/kernel/block_product.hpp"
#include "cafeq/kernel/gram.hpp"
#include "cafeq/linalg/dense.hpp"
#include "cafeq/loss/metric.hpp"
#include "cafeq/transform/blocks.hpp"
#include "cafeq/transform/transform.hpp"

namespace cafeq {

/// How the entries of a stored inverse are kept. 16-bit numbers share one power of two, which joins that of the weights' scales.
enum class InversePrecision {
  fp32,
  fp16,
  int8,  ///< code · 2^e, code in [−127, 127], one 8-bit e a row of each block. That e is coarse costs nothing: M is inverted from what is stored
};

class BlockDiagonal {
 public:
  struct Block {
    Index offset = 0;
    Matrix<double> M;
    Matrix<double> N;  ///< M⁻¹, as stored
    Matrix<float> M_single;
    Matrix<float> N_single;

    Index size() const noexcept { return M.rows(); }
  };

  BlockDiagonal() = default;
  /// From the blocks of M, any square invertible ones; sizes may differ.
  static BlockDiagonal from_forward(std::vector<Matrix<double>> M, InversePrecision precision = InversePrecision::int8);
  /// From the blocks of N = M⁻¹.
  static BlockDiagonal from_inverse(std::vector<Matrix<double>> N, InversePrecision precision = InversePrecision::int8);
  /// From the blocks of an orthogonal M: |MᵀM − I| at most 1e-6. The stored transform is orthogonal to the precision of storage.
  static BlockDiagonal orthogonal(std::vector<Matrix<double>> M, InversePrecision precision = InversePrecision::int8);

  Index dim() const noexcept { return dim_; }
  const std::vector<Block>& blocks() const noexcept { return blocks_; }
  /// Block i of N, as stored: rounding it again to the precision changes nothing.
  const Matrix<double>& inverse(Index i) const noexcept { return blocks_[std::size_t(i)].N; }
  /// What int8 storage keeps of block i: N(r, c) = codes[r·k + c] · 2^exponents[r].
  struct Int8Block {
    std::vector<std::int8_t> codes;
    std::vector<std::int8_t> exponents;
  };
  Int8Block stored(Index i) const;
  InversePrecision precision() const noexcept { return precision_; }

  template <class E>
  void apply(View<E> X, Op op = Op::forward) const;
  bool is_orthogonal() const noexcept { return is_orthogonal_; }
  /// Entries of N, and the row exponents of int8.
  std::int64_t storage_bits() const noexcept;

  /// H = N Nᵀ: the error E of X = W M costs tr(E H Eᵀ) in W. The identity for an orthogonal M.
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
      raise(ErrorCode::invalid_shape, message(name, ": block ", b, " is ", A.rows(), " x ", A.cols(), ", must be square"));
    for (Index i = 0; i < A.size(); ++i)
      if (!std::isfinite(A.data()[i]))
        raise(ErrorCode::non_finite, message(name, ": block ", b, ", row ", i / A.cols(), ", column ", i % A.cols(), " is ", A.data()[i]));
  }
}

inline Matrix<double> invert_block(const Matrix<double>& A, std::size_t b, const char* name) {
  auto inverse = linalg::inverse(A.view());
  if (!inverse) raise(ErrorCode::singular, message(name, ": block ", b, " of size ", A.rows(), " is singular"));
  return std::move(*inverse);
}

/// The largest value of what a 16-bit number keeps lands in [2^14, 2^15).
inline int half_exponent(double largest) { return floor_log2(largest) - 14; }

inline void round_to_half(std::vector<Matrix<double>>& blocks) {
  double largest = 0;
  for (const auto& N : blocks) largest = std::max(largest, largest_magnitude(N.view()));
  const int exponent = half_exponent(largest);
  for (auto& N : blocks)
    for (Index i = 0; i < N.size(); ++i) N.data()[i] = std::ldexp(double(float(fp16(float(std::ldexp(N.data()[i], -exponent))))), exponent);
}

/// The smallest e for which codes up to 127 reach the largest magnitude of a row.
inline int row_exponent(View<const double> row) {
  const double largest = largest_magnitude(row);
  const int e = floor_log2(largest) - 6;  // 64 … 127 of 2^e
  return std::nearbyint(std::ldexp(largest, -e)) > 127 ? e + 1 : e;
}

inline void round_to_int8(std::vector<Matrix<double>>& blocks) {
  for (auto& N : blocks)
    for (Index i = 0; i < N.rows(); ++i) {
      const int e = row_exponent(std::as_const(N).view().row_block(i, 1));
      for (double& x : N.row(i)) x = std::ldexp(std::nearbyint(std::ldexp(x, -e)), e);
    }
}

inline void round_inverse(std::vector<Matrix<double>>& blocks, InversePrecision precision) {
  switch (precision) {
    case InversePrecision::fp32:
      for (auto& N : blocks)
        for (Index i = 0; i < N.size(); ++i) N.data()[i] = double(float(N.data()[i]));
      return;
    case InversePrecision::fp16: return round_to_half(blocks);
    case InversePrecision::int8: return round_to_int8(blocks);
  }
}

}  // namespace detail

inline BlockDiagonal BlockDiagonal::from_inverse(std::vector<Matrix<double>> N, InversePrecision precision) {
  detail::check_blocks(N, "BlockDiagonal");
  detail::round_inverse(N, precision);
  BlockDiagonal result;
  result.precision_ = precision;
  for (std::size_t b = 0; b < N.size(); ++b) {
    Block block{result.dim_, detail::invert_block(N[b], b, "BlockDiagonal"), std::move(N[b]), {}, {}};
    block.M_single = to_matrix<float>(block.M.view());
    block.N_single = to_matrix<float>(block.N.view());
    result.dim_ += block.size();
    result.blocks_.push_back(std::move(block));
  }
  return result;
}

inline BlockDiagonal BlockDiagonal::from_forward(std::vector<Matrix<double>> M, InversePrecision precision) {
  detail::check_blocks(M, "BlockDiagonal");
  for (std::size_t b = 0; b < M.size(); ++b) M[b] = detail::invert_block(M[b], b, "BlockDiagonal");
  return from_inverse(std::move(M), precision);
}

inline BlockDiagonal BlockDiagonal::orthogonal(std::vector<Matrix<double>> M, InversePrecision precision) {
  detail::check_blocks(M, "BlockDiagonal");
  for (std::size_t b = 0; b < M.size(); ++b) {
    const auto G = kernel::gram<double>(M[b].view());
    for (Index i = 0; i < G.rows(); ++i)
      for (Index j = 0; j < G.cols(); ++j)
        if (std::abs(G(i, j) - (i == j ? 1.0 : 0.0)) > 1e-6)
          raise(ErrorCode::invalid_argument,
                message("BlockDiagonal: block ", b, " is not orthogonal: columns ", i, " and ", j, " have product ", G(i, j)));
    M[b] = to_matrix<double>(std::as_const(M[b]).view().transposed());
  }
  auto result = from_inverse(std::move(M), precision);
  result.is_orthogonal_ = true;
  return result;
}

template <class E>
void BlockDiagonal::apply(View<E> X, Op op) const {
  if (X.cols != dim_)
    raise(ErrorCode::invalid_shape, message("BlockDiagonal: X has ", X.cols, " columns, but the transform has dimension ", dim_));
  Index largest = 0;
  for (const Block& block : blocks_) largest = std::max(largest, block.size());
  Buffer<E> scratch(std::size_t(kernel::in_place_scratch<E>(largest)));
  const bool inverse = op == Op::inverse || op == Op::inverse_transpose;
  for (const Block& block : blocks_) {
    View<const E> factor;
    if constexpr (std::is_same_v<E, float>) factor = inverse ? block.N_single.view() : block.M_single.view();
    else factor = inverse ? block.N.view() : block.M.view();
    if (op == Op::transpose || op == Op::inverse_transpose) factor = factor.transposed();
    kernel::multiply_right_in_place<E>(X.col_block(block.offset, block.size()), factor, scratch);
  }
}

inline std::int64_t BlockDiagonal::storage_bits() const noexcept {
  const std::int64_t entry = precision_ == InversePrecision::fp32 ? 32 : (precision_ == InversePrecision::fp16 ? 16 : 8);
  std::int64_t bits = precision_ == InversePrecision::int8 ? 8 * std::int64_t(dim_) : 0;
  for (const Block& block : blocks_) bits += entry * block.N.size();
  return bits;
}

inline BlockDiagonal::Int8Block BlockDiagonal::stored(Index i) const {
  if (precision_ != InversePrecision::int8) raise(ErrorCode::unsupported, "BlockDiagonal: the inverse is not stored in int8");
  const View<const double> N = inverse(i).view();
  Int8Block result;
  for (Index r = 0; r < N.rows; ++r) {
    const int e = detail::row_exponent(N.row_block(r, 1));
    result.exponents.push_back(std::int8_t(e));
    for (Index c = 0; c < N.cols; ++c) result.codes.push_back(std::int8_t(std::ldexp(N(r, c), -e)));
  }
  return result;
}

inline Metric BlockDiagonal::metric() const {
  if (is_orthogonal_) return Metric::identity(dim_);
  std::vector<Matrix<double>> H;
  for (const Block& block : blocks_) H.push_back(kernel::gram<double>(block.N.view().transposed()));  // (Nᵀ)ᵀ Nᵀ
  return Metric::block_diagonal(std::move(H));
}

}  // namespace cafeq
