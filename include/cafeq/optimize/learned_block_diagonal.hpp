/// LearnedBlockDiagonal: a block-diagonal transform fitted to one matrix without data (CafeQ, arXiv
/// 2511.19705, with the polish measured for this library).
#pragma once

#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "cafeq/core/fault.hpp"
#include "cafeq/core/scale.hpp"
#include "cafeq/core/scan.hpp"
#include "cafeq/optimize/lbfgs.hpp"
#include "cafeq/optimize/learn_transform.hpp"
#include "cafeq/optimize/polish.hpp"
#include "cafeq/rounding/error_feedback.hpp"
#include "cafeq/transform/block_diagonal.hpp"
#include "cafeq/transform/blocks.hpp"
#include "cafeq/transform/dual_scaling.hpp"
#include "cafeq/transform/hadamard.hpp"

namespace cafeq {

namespace detail {

/// The sets of weights that share a scale under a quantizer's granularity, as the range surrogates
/// see them. A scale for the whole tensor is learned as if each row had one.
inline ScaleSets scale_sets(Index group) noexcept {
  return group > 0 ? ScaleSets::groups(group) : ScaleSets::rows();
}

/// Blocks of a randomized Hadamard: the start of every learned transform. Orthogonal.
template <class Arch = DefaultArch>
MatrixBlocks hadamard_blocks(std::span<const Index> sizes, std::uint64_t seed) {
  MatrixBlocks blocks;
  for (std::size_t b = 0; b < sizes.size(); ++b)
    blocks.push_back(to_dense<double>(Hadamard(Signs(sizes[b], seed + b))));
  return blocks;
}

}  // namespace detail

/// A spec: fit(W) learns M for W M to be quantized by `quantizer` and rounded by `rounder`, and
/// returns it with the inverse as it will be stored.
///   1. W D, D = diag(c^-scaling_power) by dual scaling: an outlier channel must not set the scale
///      of every row, and D costs nothing, since D⁻¹ becomes part of the general inverse (0: no
///      scaling)
///   2. M₀: a randomized Hadamard in each block (uneven blocks, largest first)
///   3. the range surrogate of W D M minimised over M, orthogonal or general, by the optimizer
///   4. ITQ, `itq_rounds`; orthogonal M only
///   5. ALS from N = M⁻¹ D⁻¹ to a general inverse of W itself, `als_rounds`
/// Memory beyond W and the result: the blocks, k/n of a matrix [n, ·], some 25 times (half of it
/// L-BFGS's history), and a strip of W.
template <LinearGrid Q, RangeSurrogate S = PNorm, Optimizer O = Lbfgs,
          RounderFor<Q> R = ErrorFeedback>
struct LearnedBlockDiagonal {
  Index block = 64;
  Q quantizer{};
  S surrogate{};
  O optimizer{};
  R rounder{};
  Parametrization parametrization = Parametrization::orthogonal;
  double scaling_power = 0.75;
  int itq_rounds = 20;
  int als_rounds = 10;
  InversePrecision precision = InversePrecision::int8;
  std::uint64_t seed = 0;

  /// Floats with contiguous rows and a moderate magnitude are read where they are; of anything else
  /// a copy is made, since what is learned does not depend on powers of two.
  template <class T>
  BlockDiagonal fit(View<T> W, ExecutorRef executor = {}) const {
    check_view(W, "W");
    check(*this, W.rows, W.cols);
    const detail::WeightScan scan = detail::scan_weights(W, executor);
    if (!scan.finite) raise(*finite_fault(W, "W"));

    if constexpr (std::is_same_v<std::remove_const_t<T>, float>)
      if (W.rows_contiguous() && detail::is_moderate(floor_log2(scan.largest)))
        return learn(W, scan, executor);
    const Matrix<float> dense = detail::scaled_down(W, floor_log2(scan.largest), executor);
    return learn(dense.view(), detail::scan_weights(dense.view(), executor), executor);
  }
  /// What is wrong with the members for W [rows, cols], those of its parts first.
  std::optional<Error> fault(Index rows, Index cols) const {
    if (auto fault = fault_of(quantizer, rows, cols)) return fault;
    if (auto fault = fault_of(surrogate)) return fault;
    if (auto fault = fault_of(optimizer)) return fault;
    if (auto fault = fault_of(rounder, rows, cols)) return fault;
    if (block < 1)
      return Error(ErrorCode::invalid_argument,
                   message("block is ", block, ", must be at least 1"));
    if (!std::isfinite(scaling_power))
      return Error(ErrorCode::invalid_argument, message("scaling_power is ", scaling_power));
    if (itq_rounds < 0)
      return Error(ErrorCode::invalid_argument,
                   message("itq_rounds is ", itq_rounds, ", must not be negative"));
    if (als_rounds < 0)
      return Error(ErrorCode::invalid_argument,
                   message("als_rounds is ", als_rounds, ", must not be negative"));
    return std::nullopt;
  }
  std::int64_t storage_bits(Index dim) const {
    std::int64_t entries = 0;
    for (const Index k : uneven_blocks(dim, block)) entries += k * k;
    return BlockDiagonal::storage_bits(dim, entries, precision);
  }

 private:
  BlockDiagonal learn(View<const float> W, const detail::WeightScan& scan,
                      ExecutorRef executor) const {
    // Every grid holds a matrix of one number as it is.
    if (scan.constant || scan.largest == 0)
      return BlockDiagonal::from_inverse(
          detail::MatrixBlocks(std::size_t(W.cols), identity_matrix<double>(1)), precision);

    const auto sizes = uneven_blocks(W.cols, block);
    const Diagonal scaling = scaling_power != 0
                                 ? DualScaling{.power = scaling_power}.fit(W, executor)
                                 : unscaled(W.cols);
    // Scales of the polish are normal halves where W D is enlarged to a largest magnitude near
    // 2^10.
    const float enlarge = std::ldexp(1.0f, 10 - floor_log2(largest_scaled(W, scaling, executor)));
    std::vector<float> scale(scaling.entries());
    for (float& d : scale) d *= enlarge;

    std::vector<detail::RangeTerm> terms;
    terms.emplace_back(W, detail::scale_sets(quantizer.group), std::vector<Index>{}, scale);
    detail::MatrixBlocks M =
        detail::learn_transform(std::move(terms), detail::hadamard_blocks(sizes, seed), surrogate,
                                parametrization, optimizer, executor)
            .M;
    if (parametrization == Parametrization::orthogonal)
      detail::itq(W, M, quantizer, itq_rounds, executor, scale);

    // From the inverse of W D M to that of W itself.
    detail::MatrixBlocks N = inverses(M);
    M.clear();
    for (Index b = 0, offset = 0; b < Index(N.size()); offset += N[std::size_t(b++)].rows())
      scale_columns(N[std::size_t(b)], scaling, offset);
    std::fill(scale.begin(), scale.end(), enlarge);
    detail::MatrixBlocks polished =
        detail::als(W, N, quantizer, rounder, als_rounds, executor, scale);
    for (std::size_t b = 0; b < N.size(); ++b)
      if (is_storable(polished[b])) N[b] = std::move(polished[b]);
    return BlockDiagonal::from_inverse(std::move(N), precision);
  }

  static Diagonal unscaled(Index dim) {
    return Diagonal(std::vector<double>(std::size_t(dim), 1.0));
  }

  /// max |W(i, j) d_j|.
  static double largest_scaled(View<const float> W, const Diagonal& D, ExecutorRef executor) {
    std::vector<float> largest(std::size_t(ceil_div(W.rows, 64)));
    executor.parallel_for(W.rows, 64, [&](Index begin, Index end, Index) {
      float& m = largest[std::size_t(begin / 64)];
      for (Index i = begin; i < end; ++i) {
        const auto w = W.row(i);
        for (std::size_t j = 0; j < w.size(); ++j) m = std::max(m, std::abs(w[j] * D.entries()[j]));
      }
    });
    return double(*std::max_element(largest.begin(), largest.end()));
  }

  /// Whether a block can still be inverted once it is rounded. Where channels are dead or all
  /// alike, ALS may lead to one that cannot.
  bool is_storable(const Matrix<double>& N) const {
    std::vector<Matrix<double>> rounded{N};
    detail::round_inverse(rounded, precision);
    return linalg::inverse(rounded[0].view(), 1e-5).has_value();
  }

  /// N ← N D⁻¹ for the columns of one block.
  static void scale_columns(Matrix<double>& N, const Diagonal& D, Index offset) {
    for (Index i = 0; i < N.rows(); ++i)
      for (Index j = 0; j < N.cols(); ++j) N(i, j) /= double(D.entries()[std::size_t(offset + j)]);
  }

  detail::MatrixBlocks inverses(const detail::MatrixBlocks& M) const {
    detail::MatrixBlocks N;
    for (const auto& m : M) {
      if (parametrization == Parametrization::orthogonal) {
        N.push_back(to_matrix<double>(m.view().transposed()));
        continue;
      }
      auto inverse = linalg::inverse(m.view());
      if (!inverse)
        raise(ErrorCode::singular,
              "learned transform: a block became singular; try fewer steps or a smaller learning "
              "rate");
      N.push_back(std::move(*inverse));
    }
    return N;
  }
};

}  // namespace cafeq
