/// LearnedBlockDiagonal: a block-diagonal transform fitted to one matrix without data (CafeQ, arXiv 2511.19705, with the polish measured for this
/// library).
#pragma once

#include <utility>
#include <vector>

#include "cafeq/optimize/lbfgs.hpp"
#include "cafeq/optimize/learn_transform.hpp"
#include "cafeq/optimize/polish.hpp"
#include "cafeq/rounding/error_feedback.hpp"
#include "cafeq/transform/block_diagonal.hpp"
#include "cafeq/transform/blocks.hpp"
#include "cafeq/transform/hadamard.hpp"

namespace cafeq {

/// The sets of weights that share a scale under a quantizer's granularity, as the range surrogates see them. A scale for the whole tensor is
/// learned as if each row had one.
inline ScaleSets scale_sets(Index group) noexcept { return group > 0 ? ScaleSets::groups(group) : ScaleSets::rows(); }

/// Blocks of a randomized Hadamard: the start of every learned transform. Orthogonal.
inline MatrixBlocks hadamard_blocks(std::span<const Index> sizes, std::uint64_t seed) {
  MatrixBlocks blocks;
  for (std::size_t b = 0; b < sizes.size(); ++b) blocks.push_back(to_dense<double>(Hadamard(Signs(sizes[b], seed + b))));
  return blocks;
}

/// A spec: fit(W) learns M for W M to be quantized by `quantizer` and rounded by `rounder`, and returns it with the inverse as it will be stored.
///   1. M₀: a randomized Hadamard in each block (uneven blocks, largest first)
///   2. the range surrogate minimised over M, orthogonal or general, by the optimizer
///   3. ITQ, `itq_rounds`; orthogonal M only
///   4. ALS to a general inverse, `als_rounds`
/// Memory: four matrices like W.
template <LinearGrid Q, RangeSurrogate S = PNorm, Optimizer O = Lbfgs, RounderFor<Q> R = ErrorFeedback>
struct LearnedBlockDiagonal {
  Index block = 64;
  Q quantizer{};
  S surrogate{};
  O optimizer{};
  R rounder{};
  Parametrization parametrization = Parametrization::orthogonal;
  int itq_rounds = 20;
  int als_rounds = 10;
  InversePrecision precision = InversePrecision::int8;
  std::uint64_t seed = 0;

  BlockDiagonal fit(View<const float> W, ExecutorRef executor = {}) const {
    if (block < 1) raise(ErrorCode::invalid_argument, message("block is ", block, ", must be at least 1"));
    if (is_constant(W))  // every grid holds it as it is
      return BlockDiagonal::from_inverse(MatrixBlocks(std::size_t(W.cols), identity_matrix<double>(1)), precision);
    const auto sizes = uneven_blocks(W.cols, block);
    MatrixBlocks M = hadamard_blocks(sizes, seed);
    std::vector<RangeTerm> terms;
    terms.emplace_back(W, scale_sets(quantizer.group));
    M = learn_transform(std::move(terms), std::move(M), surrogate, parametrization, optimizer, executor).M;
    // Scales of the polish must be normal halves.
    Matrix<float> scaled = to_matrix<float>(W);
    for (Index i = 0; i < scaled.size(); ++i) scaled.data()[i] *= 0x1p10f;
    if (parametrization == Parametrization::orthogonal) itq(View<const float>(scaled.view()), M, quantizer, itq_rounds, executor);
    MatrixBlocks N;
    for (const auto& m : M) N.push_back(inverse_of(m));
    N = als(View<const float>(scaled.view()), std::move(N), quantizer, rounder, als_rounds, executor);
    return BlockDiagonal::from_inverse(std::move(N), precision);
  }

 private:
  Matrix<double> inverse_of(const Matrix<double>& m) const {
    if (parametrization == Parametrization::orthogonal) return to_matrix<double>(m.view().transposed());
    auto inverse = linalg::inverse(m.view());
    if (!inverse) raise(ErrorCode::singular, "learned transform: a block became singular; try fewer steps or a smaller learning rate");
    return std::move(*inverse);
  }
};

}  // namespace cafeq
