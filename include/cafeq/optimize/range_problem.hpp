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
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "cafeq/core/executor.hpp"
#include "cafeq/core/fault.hpp"
#include "cafeq/core/matrix.hpp"
#include "cafeq/kernel/dense_product.hpp"
#include "cafeq/linalg/dense.hpp"
#include "cafeq/loss/range_surrogate.hpp"
#include "cafeq/optimize/column_ranges.hpp"
#include "cafeq/optimize/range_term.hpp"
#include "cafeq/optimize/term_layout.hpp"

namespace cafeq::detail {

/// Evaluates f and its gradient. evaluate() works in buffers that the constructor allocates: a
/// strip of X (a million floats, but twice as many rows as a block has, or a group of columns, at
/// least), and for each of the blocks a float copy of its matrix and its gradient in fp64. The
/// executor, and what the terms view, must outlive the problem.
template <RangeSurrogate S, class Arch = DefaultArch>
class RangeProblem {
 public:
  RangeProblem(std::vector<RangeTerm> terms, std::vector<Index> sizes, const S& surrogate,
               ExecutorRef executor = {})
      : surrogate_(surrogate), sizes_(std::move(sizes)), executor_(executor) {
    check(fault_of(surrogate_));
    for (std::size_t m = 0; m < sizes_.size(); ++m)
      if (sizes_[m] < 1)
        raise(ErrorCode::invalid_shape, message("sizes: matrix ", m, " has size ", sizes_[m]));

    for (auto& term : terms) {
      Term laid(std::move(term), sizes_);  // which checks it, even where it counts for nothing
      if (!laid.weights.vanishes()) terms_.push_back(std::move(laid));
    }
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
      auto inverse = linalg::inverse<Arch>(M[m].view());
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

    if (gradient.empty()) return penalty;
    for (std::size_t m = 0; m < M.size(); ++m) {
      const auto Nt = N[m].view().transposed();
      const auto NtN = linalg::product<Arch>(Nt, N[m].view());
      const auto NtNNt = linalg::product<Arch>(NtN.view(), Nt);
      for (Index i = 0; i < NtNNt.size(); ++i)
        gradient[m].data()[i] -= 2 * weight[m] * NtNNt.data()[i];
    }
    return penalty;
  }

 private:
  using Term = TermLayout<Arch>;
  using Block = typename Term::Block;

  /// Scratch of one worker.
  struct Worker {
    Matrix<float> product;  // Wᵀ G of one block and strip
    ColumnScratch column;
  };

  void allocate() {
    Index entries = 0;
    Index strip = 0;
    Index cols = 0;
    Index tasks = 0;
    for (const Term& term : terms_) {
      entries = std::max(entries, term.entries());
      strip = std::max(strip, term.strip_size());
      cols = std::max(cols, term.cols());
      tasks = std::max(tasks, term.tasks(term.strip));
    }
    Index largest = 0;
    for (const Index k : sizes_) largest = std::max(largest, k);

    sum_of_blocks_.resize(std::size_t(entries));
    X_.resize(std::size_t(strip));
    columns_.resize(cols);
    total_.resize(std::size_t(tasks));
    for (Index worker = 0; worker < executor_.concurrency(); ++worker)
      worker_.push_back({Matrix<float>(largest, largest), ColumnScratch(cols)});
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
    for_each_block(term, [&](const Block& block, Index b, Worker& worker) {
      prepare(term, block, b, M[block.matrix].view(), worker);
    });

    double total = 0;
    for (Index begin = 0; begin < term.rows(); begin += term.strip) {
      const Index n = std::min(term.strip, term.rows() - begin);
      const View<const float> W = term.weights.weights().row_block(begin, n);
      const View<float> X{X_.data(), n, term.cols(), term.leading_dimension(), 1};
      term.factor.multiply(W, X, executor_);
      if (!term.whole_columns()) total += ranges(term, X);
      if (with_gradient || term.whole_columns())
        for_each_block(term, [&](const Block& block, Index, Worker& worker) {
          const View<float> Xb = X.col_block(block.column, block.size);
          if (term.whole_columns()) extend_columns(block, Xb, worker, with_gradient);
          if (with_gradient) add_product(block, W.col_block(block.column, block.size), Xb, worker);
        });
    }
    if (term.whole_columns()) total = columns_.finish(surrogate_, term.rows(), term.cols());

    if (with_gradient)
      for_each(executor_, Index(sizes_.size()), [&](Index m, Index) {
        for (const std::size_t b : term.blocks_of_matrix[std::size_t(m)])
          collect(term, term.blocks[b], 1 / total, gradient[std::size_t(m)]);
      });
    return std::log(total / (double(term.rows()) * double(term.cols())));
  }

  /// f(block, its number, the worker's scratch), in parallel.
  template <class F>
  void for_each_block(const Term& term, F&& f) {
    for_each(executor_, Index(term.blocks.size()), [&](Index b, Index worker) {
      f(term.blocks[std::size_t(b)], b, worker_[std::size_t(worker)]);
    });
  }

  /// The factor of one block, its rows scaled as the columns of W are to be; nothing summed yet.
  void prepare(Term& term, const Block& block, Index b, View<const double> M,
               Worker& worker) noexcept {
    term.factor.set(
        b, M, [&](Index i) { return term.weights.factor(block.column + i); },
        std::span(worker.product.data(), std::size_t(worker.product.size())));
    std::fill_n(sum_of_blocks_.data() + block.entry, block.size * block.size, 0.0);
    if (term.whole_columns()) columns_.clear(block.column, block.size);
  }

  /// Replaces a strip by n_s ∂R_s²/∂X; returns Σ n_s R_s² of its sets, added in the order of the
  /// tasks.
  double ranges(const Term& term, View<float> X) {
    executor_.parallel_for(X.rows, term.task_rows, [&](Index begin, Index end, Index worker) {
      const Index group = term.weights.sets().group;
      double total = 0;
      if (term.by_row()) {
        for (Index r = begin; r < end; ++r)
          total += row_ranges(surrogate_, X.row(r).data(), X.cols, group > 0 ? group : X.cols);
      } else {
        for (Index r = begin; r < end; r += group)
          total += column_ranges(surrogate_, X.row_block(r, std::min(group, end - r)),
                                 worker_[std::size_t(worker)].column);
      }
      total_[std::size_t(begin / term.task_rows)] = total;
    });
    double total = 0;
    for (Index task = 0; task < term.tasks(X.rows); ++task) total += total_[std::size_t(task)];
    return total;
  }

  /// Adds a strip of one block to the sums of whole columns and replaces it by slopes.
  void extend_columns(const Block& block, View<float> X, Worker& worker,
                      bool with_gradient) noexcept {
    columns_.add(surrogate_, block.column, X, worker.column, [&](Index c, double factor) {
      if (!with_gradient) return;
      double* gradient = sum_of_blocks_.data() + block.entry + c;
      for (Index r = 0; r < block.size; ++r) gradient[r * block.size] *= factor;
    });
  }

  /// Adds WᵀG, [k, n]·[n, k] for a strip of n rows: fp32 within the strip, fp64 from strip to
  /// strip.
  void add_product(const Block& block, View<const float> W, View<const float> G,
                   Worker& worker) noexcept {
    const View<float> product = worker.product.view().block(0, 0, block.size, block.size);
    kernel::multiply<float, Arch>(W.transposed(), G, product);
    double* to = sum_of_blocks_.data() + block.entry;
    for (Index i = 0; i < block.size; ++i)
      for (Index j = 0; j < block.size; ++j) to[i * block.size + j] += double(product(i, j));
  }

  /// Adds what one block has summed to the gradient of its matrix.
  void collect(const Term& term, const Block& block, double factor,
               Matrix<double>& gradient) noexcept {
    const double* column = columns_.slope_factors() + block.column;
    for (Index i = 0; i < block.size; ++i) {
      const double scale = factor * term.weights.factor(block.column + i);
      const double* from = sum_of_blocks_.data() + block.entry + i * block.size;
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
  WholeColumns columns_;          // of the term at hand, so far
  std::vector<double> total_;     // of each task of a strip
  std::vector<Worker> worker_;
};

}  // namespace cafeq::detail
