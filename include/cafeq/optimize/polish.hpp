/// Polish of a block-diagonal transform by alternating codes and transform: ITQ (orthogonal) and
/// ALS (general inverse).
///
/// Both walk over W in strips of some hundred rows: X = W M, codes of X, and what they add to the
/// sums over the rows. Where rows depend on each other (rounding/strips.hpp) the strip is all of W.
/// W may stand for W·diag(column_scale).
#pragma once

#include <algorithm>
#include <limits>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "cafeq/kernel/gram.hpp"
#include "cafeq/linalg/dense.hpp"
#include "cafeq/optimize/block_factor.hpp"
#include "cafeq/rounding/error_feedback.hpp"
#include "cafeq/rounding/nearest.hpp"
#include "cafeq/rounding/strips.hpp"

namespace cafeq {

namespace detail {

/// The diagonal blocks of a [Σ sizes, Σ sizes] matrix, in order.
using MatrixBlocks = std::vector<Matrix<double>>;

inline std::vector<Index> sizes_of(const MatrixBlocks& blocks) {
  std::vector<Index> sizes;
  for (const auto& block : blocks) sizes.push_back(block.rows());
  return sizes;
}

/// f(block, first row, size), or f(block, first row, size, worker), for every block.
template <class F>
void for_each_block(const MatrixBlocks& blocks, ExecutorRef executor, F&& f) {
  std::vector<Index> offsets;
  Index offset = 0;
  for (const auto& block : blocks) {
    offsets.push_back(offset);
    offset += block.rows();
  }
  for_each(executor, Index(blocks.size()), [&](Index b, Index worker) {
    if constexpr (std::is_invocable_v<F, std::size_t, Index, Index, std::size_t>)
      f(std::size_t(b), offsets[std::size_t(b)], blocks[std::size_t(b)].rows(),
        std::size_t(worker));
    else f(std::size_t(b), offsets[std::size_t(b)], blocks[std::size_t(b)].rows());
  });
}

/// The factor ← diag(column_scale)·blockdiag(blocks).
template <class Arch>
void set_factor(BlockFactor<Arch>& factor, const MatrixBlocks& blocks,
                std::span<const float> column_scale, ExecutorRef executor) {
  for_each_block(blocks, executor, [&](std::size_t b, Index offset, Index k) {
    Buffer<float> scratch(static_cast<std::size_t>(k * k));
    factor.set(
        Index(b), blocks[b].view(),
        [&](Index i) {
          return column_scale.empty() ? 1.0 : double(column_scale[std::size_t(offset + i)]);
        },
        scratch);
  });
}

inline MatrixBlocks zeros_like(const MatrixBlocks& blocks) {
  MatrixBlocks result;
  for (const auto& block : blocks) result.emplace_back(block.rows(), block.cols());
  return result;
}

inline void set_zero(MatrixBlocks& blocks) noexcept {
  for (auto& block : blocks) std::fill_n(block.data(), block.size(), 0.0);
}

inline void check_polish(View<const float> W, const MatrixBlocks& blocks,
                         std::span<const float> column_scale) {
  Index covered = 0;
  for (const auto& block : blocks) {
    if (block.rows() != block.cols())
      raise(ErrorCode::invalid_shape,
            message("polish: a block is ", block.rows(), " x ", block.cols(), ", must be square"));
    covered += block.rows();
  }
  if (covered != W.cols)
    raise(ErrorCode::invalid_shape,
          message("polish: the blocks cover ", covered, " of the ", W.cols, " columns of W"));
  if (!column_scale.empty() && Index(column_scale.size()) != W.cols)
    raise(ErrorCode::invalid_shape, message("polish: column_scale has ", column_scale.size(),
                                            " factors for ", W.cols, " columns"));
}

/// Scratch for the sums over rows, one a worker.
template <class Arch = DefaultArch>
std::vector<Buffer<double>> gram_scratches(const MatrixBlocks& blocks, ExecutorRef executor) {
  Index largest = 0;
  for (const auto& block : blocks) largest = std::max(largest, block.rows());
  return std::vector<Buffer<double>>(std::size_t(executor.concurrency()),
                                     Buffer<double>(std::size_t(kernel::gram_scratch(largest))));
}

/// ITQ (Gong & Lazebnik, CVPR 2011, for a scalar grid): nearest codes of W·M with least-squares
/// scales, then M = U Vᵀ from the SVD of WᵀQ, the orthogonal matrix for which ‖W M − Q‖ is
/// smallest. W [n, Σk]; M orthogonal blocks, improved in place. Neither step increases the error
/// but for the rounding of scales. Memory: a strip of W in fp32 with its codes, and the blocks
/// twice.
template <LinearGrid Q>
void itq(View<const float> W, MatrixBlocks& M, const Q& quantizer, int rounds,
         ExecutorRef executor = {}, std::span<const float> column_scale = {}) {
  check_polish(W, M, column_scale);
  if (W.empty()) return;

  auto strips = rounding::Strips<Q>::for_rounder(Nearest{}, quantizer, W.rows, W.cols, executor);
  BlockFactor factor(sizes_of(M));
  const auto multiplied = [&](Index begin, View<float> X, ExecutorRef e) {
    factor.multiply(W.row_block(begin, X.rows), X, e);
  };
  MatrixBlocks Z = zeros_like(M);  // WᵀQ
  auto scratch = gram_scratches(M, executor);

  for (int round = 0; round < rounds; ++round) {
    set_factor(factor, M, column_scale, executor);
    set_zero(Z);

    // Codes of X = W M, strip by strip, and what they add to WᵀQ.
    strips.for_each(multiplied, executor, [&](Index begin, View<float> X, Encoding<Q>& encoding) {
      encoding.encode(X, executor);
      if (encoding.grouping().group != per_tensor)
        executor.parallel_for(X.rows, 16, [&](Index first, Index last, Index) {
          for (Index i = first; i < last; ++i)
            rounding::refit_row(encoding, i, View<const float>(X).row(i));
        });
      encoding.decode(X, executor);
      for_each_block(M, executor, [&](std::size_t b, Index offset, Index k, std::size_t worker) {
        kernel::cross_gram_add<float>(W.block(begin, offset, X.rows, k), X.col_block(offset, k),
                                      Z[b].view(), scratch[worker]);
      });
    });

    for_each_block(M, executor, [&](std::size_t b, Index offset, Index k) {
      if (!column_scale.empty())
        for (Index i = 0; i < k; ++i)
          for (Index j = 0; j < k; ++j) Z[b](i, j) *= double(column_scale[std::size_t(offset + i)]);
      M[b] = linalg::polar(Z[b].view());
    });
  }
}

/// Lifts columns of N that nearly vanished (an input channel of zeros needs nothing) to 1e-4 of the
/// columns' RMS norm, in their direction before, so that N stays invertible; what they add to Ŵ is
/// 1e-8 of its energy.
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

/// ALS: W ≈ Q N with Q on the grid and N any invertible blocks. Each round: X = W N⁻¹, the
/// rounder's codes of X in the metric N Nᵀ (which is the error of W itself), then N = (QᵀQ)⁻¹ QᵀW
/// in fp64, with a ridge of 1e-7 of the mean diagonal that holds N to the one before, so that
/// directions which the codes do not see stay as they were. Returns the N with the smallest error.
/// W [n, Σk]; N the start, invertible. Memory: a strip of W in fp32 with its codes, and the blocks
/// about eight times.
template <LinearGrid Q, RounderFor<Q> R>
MatrixBlocks als(View<const float> W, MatrixBlocks N, const Q& quantizer, const R& rounder,
                 int rounds, ExecutorRef executor = {}, std::span<const float> column_scale = {}) {
  check_polish(W, N, column_scale);
  if (W.empty()) return N;

  auto strips = rounding::Strips<Q>::for_rounder(rounder, quantizer, W.rows, W.cols, executor);
  BlockFactor factor(sizes_of(N));
  const auto multiplied = [&](Index begin, View<float> X, ExecutorRef e) {
    factor.multiply(W.row_block(begin, X.rows), X, e);
  };
  MatrixBlocks G = zeros_like(N);  // QᵀQ
  MatrixBlocks C = zeros_like(N);  // QᵀW
  auto scratch = gram_scratches(N, executor);
  MatrixBlocks best = N;
  double best_error = std::numeric_limits<double>::infinity();

  for (int round = 0; round < rounds; ++round) {
    MatrixBlocks M(N.size());
    MatrixBlocks H(N.size());
    std::vector<char> singular(N.size());
    for_each_block(N, executor, [&](std::size_t b, Index, Index) {
      auto inverse = linalg::inverse(N[b].view());
      singular[b] = !inverse;
      if (!inverse) return;
      M[b] = std::move(*inverse);
      H[b] = kernel::gram<double>(View<const double>(N[b].view()).transposed());  // N Nᵀ
      linalg::add_ridge(H[b], 1e-9);
    });
    // The last step left the invertible matrices; the best of those before is kept.
    if (std::find(singular.begin(), singular.end(), 1) != singular.end()) return best;

    // Codes of X = W N⁻¹, strip by strip, and what they add to QᵀQ and QᵀW.
    set_factor(factor, M, column_scale, executor);
    M.clear();
    const Metric metric = Metric::block_diagonal(std::move(H));
    set_zero(G);
    set_zero(C);
    strips.for_each(multiplied, executor, [&](Index begin, View<float> X, Encoding<Q>& encoding) {
      rounder.round(X, metric, Side::input, encoding, executor);
      encoding.decode(X, executor);
      for_each_block(N, executor, [&](std::size_t b, Index offset, Index k, std::size_t worker) {
        const View<const float> codes = X.col_block(offset, k);
        kernel::gram_add<float>(codes, G[b].view(), scratch[worker]);
        kernel::cross_gram_add<float>(codes, W.block(begin, offset, X.rows, k), C[b].view(),
                                      scratch[worker]);
      });
    });

    std::vector<double> errors(N.size());
    for_each_block(N, executor, [&](std::size_t b, Index offset, Index k) {
      if (!column_scale.empty())
        for (Index i = 0; i < k; ++i)
          for (Index j = 0; j < k; ++j) C[b](i, j) *= double(column_scale[std::size_t(offset + j)]);

      // The step that the equations ask for, held to N by the ridge.
      double trace = 0;
      for (Index i = 0; i < k; ++i) trace += G[b](i, i);
      auto residual = linalg::product(G[b].view(), std::as_const(N[b]).view());
      for (Index i = 0; i < k * k; ++i) residual.data()[i] = C[b].data()[i] - residual.data()[i];
      auto ridged = G[b];
      for (Index i = 0; i < k; ++i)
        ridged(i, i) += 1e-7 * trace / double(k) + std::numeric_limits<double>::min();
      if (const auto step = linalg::solve_spd(ridged.view(), residual.view())) {
        const Matrix<double> before = N[b];
        for (Index i = 0; i < k * k; ++i) N[b].data()[i] += step->data()[i];
        keep_invertible(N[b], before);
      }

      const auto GN = linalg::product(G[b].view(), std::as_const(N[b]).view());
      double error = 0;  // ‖W − Q N‖² − ‖W‖², summed from small parts
      for (Index i = 0; i < k * k; ++i)
        error += N[b].data()[i] * (GN.data()[i] - 2 * C[b].data()[i]);
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

}  // namespace detail
}  // namespace cafeq
