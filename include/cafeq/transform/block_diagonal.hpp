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
#include <limits>
#include <utility>
#include <vector>

#include "cafeq/core/workspace.hpp"
#include "cafeq/kernel/block_product.hpp"
#include "cafeq/kernel/gram.hpp"
#include "cafeq/linalg/dense.hpp"
#include "cafeq/linalg/metric.hpp"
#include "cafeq/transform/blocks.hpp"
#include "cafeq/transform/transform.hpp"

namespace cafeq {

/// How the entries of a stored inverse are kept. 16-bit numbers share one power of two, which joins
/// that of the weights' scales.
enum class InversePrecision {
  fp32,
  fp16,
  int8,  ///< as Int8Inverse
};

/// An int8 inverse: N(r, c) = codes[r·k + c] · 2^(base − exponents[c] / 8) in a block of size k,
/// codes in [−127, 127]. A scale a column, since a column of N makes one input channel, weak or
/// strong; an eighth of an octave keeps all but 4 % of the range of a code in use.
struct Int8Inverse {
  struct Block {
    Index size = 0;
    std::vector<std::int8_t> codes;       ///< size² of them
    std::vector<std::uint8_t> exponents;  ///< `size` of them
  };
  int base = 0;
  std::vector<Block> blocks;
};

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
  CAFEQ_LAZY static BlockDiagonal from_forward(std::vector<Matrix<double>> M,
                                               InversePrecision precision = InversePrecision::int8);
  /// From the blocks of N = M⁻¹.
  CAFEQ_LAZY static BlockDiagonal from_inverse(std::vector<Matrix<double>> N,
                                               InversePrecision precision = InversePrecision::int8);
  /// From what int8_inverse() gave.
  CAFEQ_LAZY static BlockDiagonal from_int8(const Int8Inverse& stored);
  /// From the blocks of an orthogonal M: |MᵀM − I| at most 1e-6. The stored transform is orthogonal
  /// to the precision of storage.
  CAFEQ_LAZY static BlockDiagonal orthogonal(std::vector<Matrix<double>> M,
                                             InversePrecision precision = InversePrecision::int8);

  Index dim() const noexcept { return dim_; }
  const std::vector<Block>& blocks() const noexcept { return blocks_; }
  /// Block i of N, as stored: rounding it again to the precision changes nothing.
  const Matrix<double>& inverse(Index i) const noexcept { return blocks_[std::size_t(i)].N; }
  /// What int8 storage keeps; raises for another precision.
  Int8Inverse int8_inverse() const;
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
  CAFEQ_LAZY Metric metric() const;

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

CAFEQ_LAZY Matrix<double> invert_block(const Matrix<double>& A, std::size_t b, const char* name) {
  auto inverse = linalg::inverse(A.view());
  if (!inverse)
    raise(ErrorCode::singular, message(name, ": block ", b, " of size ", A.rows(), " is singular"));
  return std::move(*inverse);
}

/// The largest value of what a 16-bit number keeps lands in [2^14, 2^15).
inline int half_exponent(double largest) { return floor_log2(largest) - 14; }

inline void round_to_half(std::vector<Matrix<double>>& blocks) {
  double largest = 0;
  for (const auto& N : blocks) largest = std::max(largest, largest_magnitude(N.view()));
  const int exponent = half_exponent(largest);
  for (auto& N : blocks)
    for (Index i = 0; i < N.size(); ++i)
      N.data()[i] =
          std::ldexp(double(float(fp16(float(std::ldexp(N.data()[i], -exponent))))), exponent);
}

/// 2^(e/8) for any integer e: the same bits everywhere.
inline double eighth_octave(int e) {
  constexpr double fractions[8] = {1.0,
                                   1.0905077326652577,
                                   1.189207115002721,
                                   1.2968395546510096,
                                   1.4142135623730951,
                                   1.5422108254079407,
                                   1.681792830507429,
                                   1.8340080864093424};
  return std::ldexp(fractions[e & 7], e >> 3);
}

/// The smallest e for which codes of 2^(e/8) up to 127 reach `largest` when rounded. What is
/// rounded that way has a code of 117 or more, so it gives the same e again.
inline int int8_exponent(double largest) {
  int e = 8 * (floor_log2(largest) - 7);
  while (std::nearbyint(largest / eighth_octave(e)) > 127) ++e;
  return e;
}

inline Int8Inverse to_int8(const std::vector<Matrix<double>>& blocks) {
  int highest = std::numeric_limits<int>::min();
  for (const auto& N : blocks)
    if (const double largest = largest_magnitude(N.view()); largest > 0)
      highest = std::max(highest, int8_exponent(largest));
  Int8Inverse result;
  result.base = highest == std::numeric_limits<int>::min() ? 0 : (highest + 7) >> 3;
  for (const auto& N : blocks) {
    Int8Inverse::Block block{N.rows(), std::vector<std::int8_t>(std::size_t(N.size())), {}};
    for (Index c = 0; c < N.cols(); ++c) {
      const double largest = largest_magnitude(N.view().col_block(c, 1));
      const int exponent = largest > 0 ? int8_exponent(largest) : 8 * result.base;
      // A column 2^32 below the strongest is lifted to that: M stays its inverse, and what the
      // channel then adds is nothing beside the others.
      block.exponents.push_back(std::uint8_t(std::min(8 * result.base - exponent, 255)));
      const double scale = eighth_octave(exponent);
      for (Index r = 0; r < N.rows(); ++r)
        block.codes[std::size_t(r * N.cols() + c)] = std::int8_t(std::nearbyint(N(r, c) / scale));
    }
    result.blocks.push_back(std::move(block));
  }
  return result;
}

inline std::vector<Matrix<double>> from_int8(const Int8Inverse& stored) {
  std::vector<Matrix<double>> result;
  for (std::size_t b = 0; b < stored.blocks.size(); ++b) {
    const auto& block = stored.blocks[b];
    if (block.size < 1 || Index(block.codes.size()) != block.size * block.size ||
        Index(block.exponents.size()) != block.size)
      raise(ErrorCode::corrupt,
            message("BlockDiagonal: block ", b, " of size ", block.size, " has ",
                    block.codes.size(), " codes and ", block.exponents.size(), " exponents"));
    Matrix<double> N(block.size, block.size);
    for (Index r = 0; r < block.size; ++r)
      for (Index c = 0; c < block.size; ++c)
        N(r, c) = double(block.codes[std::size_t(r * block.size + c)]) *
                  eighth_octave(8 * stored.base - int(block.exponents[std::size_t(c)]));
    result.push_back(std::move(N));
  }
  return result;
}

inline void round_inverse(std::vector<Matrix<double>>& blocks, InversePrecision precision) {
  switch (precision) {
    case InversePrecision::fp32:
      for (auto& N : blocks)
        for (Index i = 0; i < N.size(); ++i) N.data()[i] = double(float(N.data()[i]));
      return;
    case InversePrecision::fp16: return round_to_half(blocks);
    case InversePrecision::int8: blocks = from_int8(to_int8(blocks)); return;
  }
}

}  // namespace detail

template <class>
BlockDiagonal BlockDiagonal::from_inverse(std::vector<Matrix<double>> N,
                                          InversePrecision precision) {
  detail::check_blocks(N, "BlockDiagonal");
  detail::round_inverse(N, precision);
  BlockDiagonal result;
  result.precision_ = precision;
  for (std::size_t b = 0; b < N.size(); ++b) {
    Block block{
        result.dim_, detail::invert_block(N[b], b, "BlockDiagonal"), std::move(N[b]), {}, {}};
    block.M_packed.assign(block.M.view());
    block.N_packed.assign(block.N.view());
    result.dim_ += block.size();
    result.blocks_.push_back(std::move(block));
  }
  return result;
}

template <class>
BlockDiagonal BlockDiagonal::from_forward(std::vector<Matrix<double>> M,
                                          InversePrecision precision) {
  detail::check_blocks(M, "BlockDiagonal");
  for (std::size_t b = 0; b < M.size(); ++b) M[b] = detail::invert_block(M[b], b, "BlockDiagonal");
  return from_inverse(std::move(M), precision);
}

template <class>
BlockDiagonal BlockDiagonal::orthogonal(std::vector<Matrix<double>> M, InversePrecision precision) {
  detail::check_blocks(M, "BlockDiagonal");
  for (std::size_t b = 0; b < M.size(); ++b) {
    const auto G = kernel::gram<double>(M[b].view());
    for (Index i = 0; i < G.rows(); ++i)
      for (Index j = 0; j < G.cols(); ++j)
        if (std::abs(G(i, j) - (i == j ? 1.0 : 0.0)) > 1e-6)
          raise(ErrorCode::invalid_argument,
                message("BlockDiagonal: block ", b, " is not orthogonal: columns ", i, " and ", j,
                        " have product ", G(i, j)));
    M[b] = to_matrix<double>(std::as_const(M[b]).view().transposed());
  }
  auto result = from_inverse(std::move(M), precision);
  result.is_orthogonal_ = true;
  return result;
}

template <class E>
void BlockDiagonal::apply(View<E> X, Op op, Workspace& workspace) const {
  if (X.cols != dim_)
    raise(ErrorCode::invalid_shape, message("BlockDiagonal: X has ", X.cols,
                                            " columns, but the transform has dimension ", dim_));
  Index largest = 0;
  for (const Block& block : blocks_) largest = std::max(largest, block.size());
  const Workspace::Frame frame(workspace);
  const bool inverse = op == Op::inverse || op == Op::inverse_transpose;
  const bool transpose = op == Op::transpose || op == Op::inverse_transpose;
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

inline Int8Inverse BlockDiagonal::int8_inverse() const {
  if (precision_ != InversePrecision::int8)
    raise(ErrorCode::unsupported, "BlockDiagonal: the inverse is not stored in int8");
  std::vector<Matrix<double>> N;
  for (const Block& block : blocks_) N.push_back(block.N);
  return detail::to_int8(N);
}

template <class>
BlockDiagonal BlockDiagonal::from_int8(const Int8Inverse& stored) {
  return from_inverse(detail::from_int8(stored), InversePrecision::int8);
}

template <class>
Metric BlockDiagonal::metric() const {
  if (is_orthogonal_) return Metric::identity(dim_);
  std::vector<Matrix<double>> H;
  for (const Block& block : blocks_) {
    H.push_back(kernel::gram<double>(block.N.view().transposed()));  // (Nᵀ)ᵀ Nᵀ
    if (!linalg::factor_ldl(H.back().view()))
      linalg::add_ridge(H.back(), 1e-9);  // channels too far apart for fp64
  }
  return Metric::block_diagonal(std::move(H));
}

}  // namespace cafeq
