/// The objective of learned transforms: the smooth ranges of X_t = W_t · blockdiag(M_b(1), M_b(2),
/// …), as a function of the matrices M.
///
///   f = Σ_t log mean_s n_s R_s²(X_t)                            (loss/range_surrogate.hpp)
///   ∇_{M_m} f = Σ_t Σ_{b: m(b) = m} W_{t,b}ᵀ G_{t,b},  G_t = ∂f/∂X_t
/// Every W_t is taken at unit RMS. A row scale couples all blocks of a row; column blocks may share
/// a matrix (grouped-query heads).
///
/// A strip of some hundred rows goes through three steps, each parallel in its own way: X = W M
/// (blocks), ranges and slopes of X (rows, or columns), gradient += Wᵀ G (blocks). A strip of X
/// stays in L3, its factors in L2.
/// Longer than most headers: rows, groups of columns and whole columns share strips and buffers
/// that would have to be public if they were apart.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "cafeq/core/executor.hpp"
#include "cafeq/core/matrix.hpp"
#include "cafeq/kernel/columns.hpp"
#include "cafeq/kernel/product.hpp"
#include "cafeq/linalg/dense.hpp"
#include "cafeq/loss/range_surrogate.hpp"
#include "cafeq/optimize/block_factor.hpp"
#include "cafeq/optimize/range_term.hpp"

namespace cafeq {

/// Evaluates f and its gradient. evaluate() works in buffers that the constructor allocates: a
/// strip of X (a million floats, but twice as many rows as a block has, or a group of columns, at
/// least), and for each of the blocks a float copy of its matrix and its gradient in fp64. The
/// executor, and what the terms view, must outlive the problem.
template <RangeSurrogate S>
class RangeProblem {
 public:
  RangeProblem(std::vector<RangeTerm> terms, std::vector<Index> sizes, const S& surrogate,
               ExecutorRef executor = {})
      : surrogate_(surrogate), sizes_(std::move(sizes)), executor_(executor) {
    surrogate_.check();
    for (std::size_t m = 0; m < sizes_.size(); ++m)
      if (sizes_[m] < 1)
        raise(ErrorCode::invalid_shape, message("sizes: matrix ", m, " has size ", sizes_[m]));
    for (auto& term : terms) add(std::move(term));
    allocate();
  }

  std::span<const Index> sizes() const noexcept { return sizes_; }

  /// f at M; the gradient as well where `gradient` is not empty. The same bits on any number of
  /// threads. Not finite where M is not.
  double evaluate(std::span<const Matrix<double>> M, std::span<Matrix<double>> gradient = {}) {
    check_matrices(M, "M");
    if (!gradient.empty()) check_matrices(gradient, "gradient");
    for (auto& g : gradient) std::fill_n(g.data(), g.size(), 0.0);
    double f = 0;
    for (Term& term : terms_) f += evaluate_term(term, M, gradient);
    return f;
  }

  /// What a transform that is not orthogonal adds to the error: Σ_t log(Σ_b ‖M_b⁻¹‖²_F / Σ_b
  /// sizes), which makes f + penalty blind to the scale of M. Adds its gradient, −2 NᵀN Nᵀ / Σ‖N‖²
  /// with N = M⁻¹, to `gradient`. Infinite where a matrix is singular.
  double inverse_penalty(std::span<const Matrix<double>> M,
                         std::span<Matrix<double>> gradient = {}) const {
    check_matrices(M, "M");
    std::vector<Matrix<double>> N;
    std::vector<double> norm(M.size());
    for (std::size_t m = 0; m < M.size(); ++m) {
      auto inverse = linalg::inverse(M[m].view());
      if (!inverse) return std::numeric_limits<double>::infinity();
      for (const double v : std::span(inverse->data(), std::size_t(inverse->size())))
        norm[m] += v * v;
      if (!std::isfinite(norm[m])) return std::numeric_limits<double>::infinity();
      N.push_back(std::move(*inverse));
    }
    double penalty = 0;
    std::vector<double> weight(M.size());
    for (const Term& term : terms_) {
      double sum = 0;
      double size = 0;
      for (const Block& block : term.blocks) {
        sum += norm[block.matrix];
        size += double(block.size);
      }
      penalty += std::log(sum / size);
      for (const Block& block : term.blocks) weight[block.matrix] += 1 / sum;
    }
    if (!gradient.empty()) {
      for (std::size_t m = 0; m < M.size(); ++m) {
        const auto Nt = N[m].view().transposed();
        const auto NtN = linalg::product(Nt, N[m].view());
        const auto NtNNt = linalg::product(NtN.view(), Nt);
        for (Index i = 0; i < NtNNt.size(); ++i)
          gradient[m].data()[i] -= 2 * weight[m] * NtNNt.data()[i];
      }
    }
    return penalty;
  }

 private:
  static constexpr Index rows_a_task = 96;

  struct Block {
    std::size_t matrix;
    Index size;
    Index column;  // of W
    Index area;    // where its [size, size] matrices start
  };
  struct Term {
    RangeTerm weights;
    Index strip = 0;  // rows at a time
    Index chunk = 0;  // rows of a strip that one task finds the ranges of
    std::vector<Block> blocks;
    std::vector<std::vector<std::size_t>> blocks_of_matrix;
    detail::BlockFactor factor;

    Index rows() const noexcept { return weights.rows(); }
    Index cols() const noexcept { return weights.cols(); }
    bool by_row() const noexcept { return weights.sets().axis == ScaleSets::Axis::row; }
    bool whole_columns() const noexcept { return !by_row() && weights.sets().group == 0; }
  };

  void add(RangeTerm from) {
    std::vector<Block> blocks;
    std::vector<Index> block_sizes;
    std::vector<std::vector<std::size_t>> blocks_of_matrix(sizes_.size());
    std::vector<Index> order(from.matrix_of_block().begin(), from.matrix_of_block().end());
    if (order.empty())
      for (std::size_t m = 0; m < sizes_.size(); ++m) order.push_back(Index(m));
    Index column = 0;
    Index area = 0;
    for (const Index m : order) {
      if (m < 0 || m >= Index(sizes_.size()))
        raise(ErrorCode::invalid_argument,
              message("matrix_of_block: there is no matrix ", m, " among ", sizes_.size()));
      const Index k = sizes_[std::size_t(m)];
      blocks_of_matrix[std::size_t(m)].push_back(blocks.size());
      blocks.push_back({std::size_t(m), k, column, area});
      block_sizes.push_back(k);
      column += k;
      area += k * k;
    }
    if (column != from.cols())
      raise(ErrorCode::invalid_shape,
            message("W: ", from.cols(), " columns, but the blocks have ", column));
    if (from.vanishes()) return;
    // Strips and chunks hold whole groups of columns, and whole tiles of the products elsewhere.
    const Index unit = from.sets().axis == ScaleSets::Axis::column && from.sets().group > 0
                           ? std::min(from.sets().group, from.rows())
                           : 6;
    const auto units = [unit](Index rows) { return std::max<Index>(1, rows / unit) * unit; };
    // Sums of a strip go over to fp64 once a strip, which must be little beside its products.
    const Index shortest =
        std::clamp<Index>(2 * *std::max_element(block_sizes.begin(), block_sizes.end()),
                          rows_a_task, 4 * rows_a_task);
    const Index strip = units(std::clamp<Index>(
        std::min((Index(1) << 20) / from.cols(), from.rows() / 8), shortest, 4 * rows_a_task));
    const Index chunk = units(std::clamp<Index>((Index(1) << 16) / from.cols(), 6, 48));
    terms_.push_back({std::move(from), strip, chunk, std::move(blocks), std::move(blocks_of_matrix),
                      detail::BlockFactor(block_sizes)});
  }

  void allocate() {
    Index area = 0;
    Index strip = 0;
    Index cols = 0;
    Index chunks = 0;
    Index largest = 0;
    for (const Term& term : terms_) {
      area = std::max(area,
                      term.blocks.back().area + term.blocks.back().size * term.blocks.back().size);
      strip = std::max(strip, std::min(term.strip, term.rows()) * leading_dimension(term));
      cols = std::max(cols, term.cols());
      chunks = std::max(chunks, ceil_div(term.strip, term.chunk));
    }
    for (const Index k : sizes_) largest = std::max(largest, k);
    sum_of_blocks_.resize(std::size_t(area));
    X_.resize(std::size_t(strip));
    peak_.resize(std::size_t(cols));
    column_sum_.resize(std::size_t(cols));
    total_.resize(std::size_t(chunks));
    worker_.resize(std::size_t(executor_.concurrency()));
    for (Worker& worker : worker_) {
      worker.product = Matrix<float>(largest, largest);
      for (auto& column : worker.column) column.resize(std::size_t(cols));
    }
  }

  /// Rows of X a cache line more than a power of two apart, so that a column of tiles does not fall
  /// on one cache set.
  static Index leading_dimension(const Term& term) noexcept {
    return ceil_div(term.cols(), 16) * 16 + 16;
  }

  template <class Matrices>
  void check_matrices(const Matrices& M, std::string_view name) const {
    if (M.size() != sizes_.size())
      raise(ErrorCode::invalid_shape,
            message(name, ": ", M.size(), " matrices, but ", sizes_.size(), " sizes"));
    for (std::size_t m = 0; m < M.size(); ++m)
      if (M[m].rows() != sizes_[m] || M[m].cols() != sizes_[m])
        raise(ErrorCode::invalid_shape, message(name, ": matrix ", m, " is ", M[m].rows(), " x ",
                                                M[m].cols(), ", not of size ", sizes_[m]));
  }

  double evaluate_term(Term& term, std::span<const Matrix<double>> M,
                       std::span<Matrix<double>> gradient) {
    const bool with_gradient = !gradient.empty();
    const Index blocks = Index(term.blocks.size());
    detail::for_each(executor_, blocks, [&](Index b, Index worker) {
      prepare(term, b, M, worker_[std::size_t(worker)]);
    });
    double total = 0;
    for (Index begin = 0; begin < term.rows(); begin += term.strip) {
      const Index n = std::min(term.strip, term.rows() - begin);
      const View<const float> W = term.weights.weights().row_block(begin, n);
      const View<float> X{X_.data(), n, term.cols(), leading_dimension(term), 1};
      term.factor.multiply(W, X, executor_);
      if (!term.whole_columns()) total += ranges(term, X);
      if (with_gradient || term.whole_columns())
        detail::for_each(executor_, blocks, [&](Index b, Index worker) {
          const Block& block = term.blocks[std::size_t(b)];
          const View<float> Xb = X.col_block(block.column, block.size);
          if (term.whole_columns())
            extend_columns(block, Xb, worker_[std::size_t(worker)], with_gradient);
          if (with_gradient)
            add_product(block, W.col_block(block.column, block.size), Xb,
                        worker_[std::size_t(worker)]);
        });
    }
    if (term.whole_columns()) total = finish_columns(term);
    if (with_gradient)
      detail::for_each(executor_, Index(sizes_.size()), [&](Index m, Index) {
        for (const std::size_t b : term.blocks_of_matrix[std::size_t(m)])
          collect(term, term.blocks[b], 1 / total, gradient[std::size_t(m)]);
      });
    return std::log(total / (double(term.rows()) * double(term.cols())));
  }

  struct Worker {
    Matrix<float> product;
    std::array<Buffer<float>, 4> column;
  };

  /// The factor of one block, its rows scaled as the columns of W are to be; nothing summed yet.
  void prepare(Term& term, Index b, std::span<const Matrix<double>> M, Worker& worker) noexcept {
    const Block& block = term.blocks[std::size_t(b)];
    term.factor.set(
        b, M[block.matrix].view(), [&](Index i) { return term.weights.factor(block.column + i); },
        std::span(worker.product.data(), std::size_t(worker.product.size())));
    std::fill_n(sum_of_blocks_.data() + block.area, block.size * block.size, 0.0);
    if (!term.whole_columns()) return;
    std::fill_n(peak_.data() + block.column, block.size, 0.0f);
    std::fill_n(column_sum_.data() + block.column, block.size, 0.0);
  }

  /// Replaces a strip by n_s ∂R_s²/∂X; returns Σ n_s R_s² of its sets.
  double ranges(const Term& term, View<float> X) {
    executor_.parallel_for(X.rows, term.chunk, [&](Index begin, Index end, Index worker) {
      const Index group = term.weights.sets().group;
      double total = 0;
      if (term.by_row()) {
        for (Index r = begin; r < end; ++r)
          total +=
              detail::row_ranges(surrogate_, X.row(r).data(), X.cols, group > 0 ? group : X.cols);
      } else {
        for (Index r = begin; r < end; r += group)
          total +=
              column_ranges(X.row_block(r, std::min(group, end - r)), worker_[std::size_t(worker)]);
      }
      total_[std::size_t(begin / term.chunk)] = total;
    });
    double total = 0;
    for (Index c = 0; c < ceil_div(X.rows, term.chunk); ++c) total += total_[std::size_t(c)];
    return total;
  }

  /// Sets are the columns of X: replaces X by n_s ∂R_s²/∂X; returns Σ n_s R_s².
  double column_ranges(View<float> X, Worker& worker) const noexcept {
    auto& [peak, a, b, sum] = worker.column;
    std::fill_n(peak.data(), X.cols, 0.0f);
    kernel::column_absmax(View<const float>(X), peak.data());
    slopes_of_columns(X, peak.data(), a, b, sum);
    double total = 0;
    for (std::size_t j = 0; j < std::size_t(X.cols); ++j) {
      const SetRange set = surrogate_.range(peak[j], double(sum[j]), X.rows);
      total += double(X.rows) * set.squared;
      a[j] = float(double(X.rows) * set.slope_factor);
    }
    kernel::scale_columns(X, a.data());
    return total;
  }

  void slopes_of_columns(View<float> X, const float* peak, Buffer<float>& a, Buffer<float>& b,
                         Buffer<float>& sum) const noexcept {
    const auto phi = surrogate_.kernel();
    for (Index j = 0; j < X.cols; ++j) {
      const auto parameters = phi.prepare(peak[j]);
      a[std::size_t(j)] = parameters.a;
      b[std::size_t(j)] = parameters.b;
    }
    kernel::column_sums(phi, X, a.data(), b.data(), sum.data());
  }

  /// Adds a strip of one block to the sums of whole columns and replaces it by slopes. Where a peak
  /// grows, what was summed relative to the old one is brought to the new one, as in an online
  /// softmax: one pass is enough.
  void extend_columns(const Block& block, View<float> X, Worker& worker,
                      bool with_gradient) noexcept {
    auto& [before, a, b, sum] = worker.column;
    float* peak = peak_.data() + block.column;
    double* column_sum = column_sum_.data() + block.column;
    std::copy_n(peak, X.cols, before.data());
    kernel::column_absmax(View<const float>(X), peak);
    for (Index c = 0; c < block.size; ++c) {
      if (peak[c] == before[std::size_t(c)]) continue;
      const PeakChange change = surrogate_.change(before[std::size_t(c)], peak[c]);
      column_sum[c] *= change.sum;
      if (!with_gradient) continue;
      double* gradient = sum_of_blocks_.data() + block.area + c;
      for (Index r = 0; r < block.size; ++r) gradient[r * block.size] *= change.slope;
    }
    // In pieces of about a hundred rows, which kernel::column_sums adds in fp32.
    for (Index r = 0; r < X.rows; r += rows_a_task) {
      slopes_of_columns(X.row_block(r, std::min(rows_a_task, X.rows - r)), peak, a, b, sum);
      for (Index c = 0; c < block.size; ++c) column_sum[c] += double(sum[std::size_t(c)]);
    }
  }

  /// Adds WᵀG, [k, n]·[n, k] for a strip of n rows: fp32 within the strip, fp64 from strip to
  /// strip.
  void add_product(const Block& block, View<const float> W, View<const float> G,
                   Worker& worker) noexcept {
    const View<float> product = worker.product.view().block(0, 0, block.size, block.size);
    kernel::multiply<float>(W.transposed(), G, product);
    double* to = sum_of_blocks_.data() + block.area;
    for (Index i = 0; i < block.size; ++i)
      for (Index j = 0; j < block.size; ++j) to[i * block.size + j] += double(product(i, j));
  }

  /// Σ n_s R_s² of whole columns; leaves in each column's sum what its gradient must be multiplied
  /// by.
  double finish_columns(const Term& term) noexcept {
    double total = 0;
    for (std::size_t j = 0; j < std::size_t(term.cols()); ++j) {
      const SetRange set = surrogate_.range(peak_[j], column_sum_[j], term.rows());
      total += double(term.rows()) * set.squared;
      column_sum_[j] = double(term.rows()) * set.slope_factor;
    }
    return total;
  }

  void collect(const Term& term, const Block& block, double factor,
               Matrix<double>& gradient) noexcept {
    const double* column = column_sum_.data() + block.column;
    for (Index i = 0; i < block.size; ++i) {
      const double scale = factor * term.weights.factor(block.column + i);
      const double* from = sum_of_blocks_.data() + block.area + i * block.size;
      for (Index j = 0; j < block.size; ++j)
        gradient(i, j) += scale * (term.whole_columns() ? column[j] * from[j] : from[j]);
    }
  }

  S surrogate_;
  std::vector<Index> sizes_;
  ExecutorRef executor_;
  std::vector<Term> terms_;
  Buffer<double> sum_of_blocks_;  // gradients of the blocks of the term at hand, so far
  Buffer<float> X_;               // a strip
  Buffer<float> peak_;            // of whole columns, so far
  Buffer<double> column_sum_;     // Σ φ of whole columns, relative to the peak
  std::vector<double> total_;     // of each chunk of a strip
  std::vector<Worker> worker_;
};

}  // namespace cafeq
