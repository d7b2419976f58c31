/// Polish of a block-diagonal transform by alternating codes and transform: ITQ (orthogonal) and ALS (general inverse).
#pragma once

#include <utility>
#include <vector>

#include "cafeq/kernel/gram.hpp"
#include "cafeq/linalg/dense.hpp"
#include "cafeq/rounding/error_feedback.hpp"

namespace cafeq {

/// The diagonal blocks of a [Σ sizes, Σ sizes] matrix, in order.
using MatrixBlocks = std::vector<Matrix<double>>;

namespace detail {

/// X = W·blockdiag(blocks), [n, d]·[d, d], rows in parallel.
inline void multiply_blocks(View<const float> W, const MatrixBlocks& blocks, View<float> X, ExecutorRef executor) {
  std::vector<Matrix<float>> narrow;
  for (const auto& block : blocks) narrow.push_back(to_matrix<float>(block.view()));
  executor.parallel_for(W.rows, 64, [&](Index begin, Index end, Index) {
    Index offset = 0;
    for (const auto& block : narrow) {
      kernel::multiply<float>(W.block(begin, offset, end - begin, block.rows()), block.view(), X.block(begin, offset, end - begin, block.rows()));
      offset += block.rows();
    }
  });
}

template <class F>
void for_each_block(const MatrixBlocks& blocks, ExecutorRef executor, F&& f) {
  std::vector<Index> offsets;
  Index offset = 0;
  for (const auto& block : blocks) {
    offsets.push_back(offset);
    offset += block.rows();
  }
  for_each(executor, Index(blocks.size()), [&](Index b, Index) { f(std::size_t(b), offsets[std::size_t(b)], blocks[std::size_t(b)].rows()); });
}

}  // namespace detail

/// ITQ (Gong & Lazebnik, CVPR 2011, for a scalar grid): nearest codes of W·M with least-squares scales, then M = U Vᵀ from the SVD of WᵀQ, the orthogonal
/// matrix for which ‖W M − Q‖ is smallest. W [n, Σk]; M orthogonal blocks, improved in place. Neither step increases the error but for the rounding
/// of scales. Memory: three matrices like W.
template <LinearGrid Q>
void itq(View<const float> W, MatrixBlocks& M, const Q& quantizer, int rounds, ExecutorRef executor = {}) {
  Matrix<float> X(W.rows, W.cols);
  Matrix<float> decoded(W.rows, W.cols);
  Encoding<Q> encoding(quantizer, W.rows, W.cols);
  for (int round = 0; round < rounds; ++round) {
    detail::multiply_blocks(W, M, X.view(), executor);
    if (round == 0) encoding.fit(X.view(), executor);
    encoding.encode(X.view(), executor);
    if (encoding.grouping().group != per_tensor)
      executor.parallel_for(W.rows, 16, [&](Index begin, Index end, Index) {
        for (Index i = begin; i < end; ++i) rounding::refit_row(encoding, i, std::as_const(X).row(i));
      });
    encoding.decode(decoded.view(), executor);
    detail::for_each_block(M, executor, [&](std::size_t b, Index offset, Index k) {
      const auto Z = kernel::cross_gram<float>(W.col_block(offset, k), View<const float>(decoded.view()).col_block(offset, k));
      M[b] = linalg::polar(Z.view());
    });
  }
}

namespace detail {

/// Lifts columns of N that nearly vanished (an input channel of zeros needs nothing) to 1e-4 of the columns' RMS norm, in their direction before, so that N stays
/// invertible; what they add to Ŵ is 1e-8 of its energy.
inline void keep_invertible(Matrix<double>& N, const Matrix<double>& before) {
  const auto norm = [](const Matrix<double>& A, Index j) {
    double sum = 0;
    for (Index i = 0; i < A.rows(); ++i) sum += A(i, j) * A(i, j);
    return std::sqrt(sum);
  };
  double mean_square = 0;
  for (Index i = 0; i < N.size(); ++i) mean_square += N.data()[i] * N.data()[i] / double(N.cols());
  const double floor = 1e-4 * std::sqrt(mean_square);
  for (Index j = 0; j < N.cols(); ++j)
    if (norm(N, j) < floor) {
      const double scale = floor / norm(before, j);
      for (Index i = 0; i < N.rows(); ++i) N(i, j) = before(i, j) * scale;
    }
}

}  // namespace detail

/// ALS: W ≈ Q N with Q on the grid and N any invertible blocks. Each round: X = W N⁻¹, the rounder's codes of X in the metric N Nᵀ (which is the
/// error of W itself), then N = (QᵀQ)⁻¹ QᵀW in fp64, with a ridge of 1e-7 of the mean diagonal that holds N to the one before, so that directions which
/// the codes do not see stay as they were. Returns the N with the smallest error. W [n, Σk]; N the start, invertible. Memory: two matrices like W
/// and the codes.
template <LinearGrid Q, RounderFor<Q> R>
MatrixBlocks als(View<const float> W, MatrixBlocks N, const Q& quantizer, const R& rounder, int rounds, ExecutorRef executor = {}) {
  Matrix<float> X(W.rows, W.cols);
  Encoding<Q> encoding(quantizer, W.rows, W.cols);
  MatrixBlocks best = N;
  double best_error = std::numeric_limits<double>::infinity();
  for (int round = 0; round < rounds; ++round) {
    MatrixBlocks M;
    MatrixBlocks H;
    for (const auto& block : N) {
      auto inverse = linalg::inverse(block.view());
      if (!inverse) return best;  // the last step left the invertible matrices; what came before is kept
      M.push_back(std::move(*inverse));
      H.push_back(kernel::gram<double>(View<const double>(block.view()).transposed()));  // N Nᵀ
      linalg::add_ridge(H.back(), 1e-9);
    }
    detail::multiply_blocks(W, M, X.view(), executor);
    if (round == 0) encoding.fit(X.view(), executor);
    rounder.round(X.view(), Metric::block_diagonal(std::move(H)), Side::input, encoding, executor);
    encoding.decode(X.view(), executor);
    std::vector<double> errors(N.size());
    detail::for_each_block(N, executor, [&](std::size_t b, Index offset, Index k) {
      const auto codes = View<const float>(X.view()).col_block(offset, k);
      const auto weights = W.col_block(offset, k);
      const auto G = kernel::gram<float>(codes);
      const auto C = kernel::cross_gram<float>(codes, weights);  // QᵀW
      double trace = 0;
      for (Index i = 0; i < k; ++i) trace += G(i, i);
      auto residual = linalg::product(G.view(), std::as_const(N[b]).view());
      for (Index i = 0; i < k * k; ++i) residual.data()[i] = C.data()[i] - residual.data()[i];
      auto ridged = G;
      for (Index i = 0; i < k; ++i) ridged(i, i) += 1e-7 * trace / double(k) + std::numeric_limits<double>::min();
      if (const auto step = linalg::solve_spd(ridged.view(), residual.view())) {
        const Matrix<double> before = N[b];
        for (Index i = 0; i < k * k; ++i) N[b].data()[i] += step->data()[i];
        detail::keep_invertible(N[b], before);
      }
      const auto GN = linalg::product(G.view(), std::as_const(N[b]).view());
      double error = 0;  // ‖W − Q N‖² − ‖W‖², summed from small parts
      for (Index i = 0; i < k * k; ++i) error += N[b].data()[i] * (GN.data()[i] - 2 * C.data()[i]);
      errors[b] = error;
    });
    double error = 0;
    for (const double e : errors) error += e;
    if (error < best_error) {
      best_error = error;
      best = N;
    }
  }
  return best;
}

}  // namespace cafeq
