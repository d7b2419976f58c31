/// The objective of learned transforms: the smooth ranges of X_t = W_t · blockdiag(M_b(1), M_b(2), …), as a function of the matrices M.
///
///   f = Σ_t log mean_s n_s R_s²(X_t)   (loss/range_surrogate.hpp),   ∇_{M_m} f = Σ_t Σ_{b: m(b) = m} W_{t,b}ᵀ G_{t,b},  G_t = ∂f/∂X_t
/// Every W_t is scaled to unit RMS first. A row scale couples all blocks of a row; column blocks may share a matrix (grouped-query heads).
/// Longer than most headers: its passes by row and by column share chunks, slabs and buffers that would have to be public if they were apart.
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
#include "cafeq/kernel/product.hpp"
#include "cafeq/linalg/dense.hpp"
#include "cafeq/loss/range_surrogate.hpp"
#include "cafeq/optimize/range_term.hpp"

namespace cafeq {

/// Evaluates f and its gradient. All buffers are allocated by the constructor: a float copy of each W, Σ sizes² floats for each of 16 slabs of
/// rows, and a chunk of X for each worker. The executor must outlive the problem.
template <RangeSurrogate S>
class RangeProblem {
 public:
  RangeProblem(std::vector<RangeTerm> terms, std::vector<Index> sizes, const S& surrogate, ExecutorRef executor = {})
      : surrogate_(surrogate), sizes_(std::move(sizes)), executor_(executor) {
    surrogate_.check();
    for (std::size_t m = 0; m < sizes_.size(); ++m) {
      if (sizes_[m] < 1) raise(ErrorCode::invalid_shape, message("sizes: matrix ", m, " has size ", sizes_[m]));
      M_.emplace_back(sizes_[m], sizes_[m]);
    }
    for (auto& term : terms) add(std::move(term));
    allocate();
  }

  std::span<const Index> sizes() const noexcept { return sizes_; }

  /// f at M; the gradient as well where `gradient` is not empty. One fused pass over each W, rows in parallel; the same bits on any number of
  /// threads. Not finite where M is not.
  double evaluate(std::span<const Matrix<double>> M, std::span<Matrix<double>> gradient = {}) {
    check_matrices(M, "M");
    if (!gradient.empty()) check_matrices(gradient, "gradient");
    for (std::size_t m = 0; m < sizes_.size(); ++m) {
      copy(M[m].view(), M_[m].view());
      if (!gradient.empty()) std::fill_n(gradient[m].data(), gradient[m].size(), 0.0);
    }
    double f = 0;
    for (const Term& term : terms_) f += evaluate_term(term, gradient);
    return f;
  }

  /// What a transform that is not orthogonal adds to the error: Σ_t log(Σ_b ‖M_b⁻¹‖²_F / Σ_b sizes), which makes f + penalty blind to the
  /// scale of M. Adds its gradient, −2 NᵀN Nᵀ / Σ‖N‖² with N = M⁻¹, to `gradient`. Infinite where a matrix is singular.
  double inverse_penalty(std::span<const Matrix<double>> M, std::span<Matrix<double>> gradient = {}) const {
    check_matrices(M, "M");
    std::vector<Matrix<double>> N;
    std::vector<double> norm(M.size());
    for (std::size_t m = 0; m < M.size(); ++m) {
      auto inverse = linalg::inverse(M[m].view());
      if (!inverse) return std::numeric_limits<double>::infinity();
      for (const double v : std::span(inverse->data(), std::size_t(inverse->size()))) norm[m] += v * v;
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
        for (Index i = 0; i < NtNNt.size(); ++i) gradient[m].data()[i] -= 2 * weight[m] * NtNNt.data()[i];
      }
    }
    return penalty;
  }

 private:
  static constexpr Index slabs = 16;

  struct Block {
    std::size_t matrix;
    Index size;
    Index column;  // of W
    Index area;    // where its [size, size] gradient starts in a slab's
  };
  /// W is kept block by block, rows of a block dense: a chunk of it stays in L1.
  struct Term {
    Index rows = 0;
    Index cols = 0;
    Index area = 0;
    Index chunk = 0;      // rows at a time
    Index slab_rows = 0;  // rows that one slab adds up
    ScaleSets sets;
    std::vector<Block> blocks;
    Buffer<float> W;
  };
  struct Slab {
    double total = 0;        // Σ n_s R_s² of the sets that lie inside
    Buffer<float> gradient;  // W_bᵀ G_b of every block
    Buffer<float> peak;      // of whole columns, so far
    Buffer<double> sum;      // Σ φ of whole columns, relative to `peak`
  };
  struct Worker {
    Buffer<float> X;
    std::array<Buffer<float>, 4> column;
  };

  void add(RangeTerm from) {
    Term term{from.rows(), from.cols(), 0, 0, 0, from.sets(), {}, Buffer<float>(std::size_t(from.rows() * from.cols()))};
    auto& order = from.matrix_of_block_;
    if (order.empty())
      for (std::size_t m = 0; m < sizes_.size(); ++m) order.push_back(Index(m));
    Index column = 0;
    for (const Index m : order) {
      if (m < 0 || m >= Index(sizes_.size()))
        raise(ErrorCode::invalid_argument, message("matrix_of_block: there is no matrix ", m, " among ", sizes_.size()));
      const Index k = sizes_[std::size_t(m)];
      if (column + k <= term.cols) copy(from.W_.view().col_block(column, k), block_of(term, {0, k, column, 0}));
      term.blocks.push_back({std::size_t(m), k, column, term.area});
      column += k;
      term.area += k * k;
    }
    if (column != term.cols) raise(ErrorCode::invalid_shape, message("W: ", term.cols, " columns, but the blocks have ", column));
    if (from.vanishes()) return;
    // A chunk of X stays in L2, is a multiple of the product's tiles of six rows, and holds whole groups of columns.
    const bool column_groups = term.sets.axis == ScaleSets::Axis::column && term.sets.group > 0;
    const Index unit = column_groups ? std::min(term.sets.group, term.rows) : 6;
    const Index rows = std::clamp<Index>(98304 / term.cols, 24, 96);
    term.chunk = std::max<Index>(1, rows / unit) * unit;
    term.slab_rows = ceil_div(ceil_div(term.rows, slabs), term.chunk) * term.chunk;
    terms_.push_back(std::move(term));
  }

  void allocate() {
    Index area = 0;
    Index chunk = 0;
    Index cols = 0;
    for (const Term& term : terms_) {
      area = std::max(area, term.area);
      chunk = std::max(chunk, term.chunk * leading_dimension(term));
      cols = std::max(cols, term.cols);
    }
    slab_.resize(slabs);
    for (Slab& slab : slab_) {
      slab.gradient.resize(std::size_t(area));
      slab.peak.resize(std::size_t(cols));
      slab.sum.resize(std::size_t(cols));
    }
    worker_.resize(std::size_t(executor_.concurrency()));
    for (Worker& worker : worker_) {
      worker.X.resize(std::size_t(chunk));
      for (auto& column : worker.column) column.resize(std::size_t(cols));
    }
  }

  /// Rows of X a cache line more than a power of two apart, so that a column of tiles does not fall on one cache set.
  static Index leading_dimension(const Term& term) noexcept { return ceil_div(term.cols, 16) * 16 + 16; }

  static View<float> block_of(Term& term, const Block& block) noexcept {
    return {term.W.data() + term.rows * block.column, term.rows, block.size, block.size, 1};
  }
  static View<const float> block_of(const Term& term, const Block& block) noexcept {
    return {term.W.data() + term.rows * block.column, term.rows, block.size, block.size, 1};
  }
  static bool whole_columns(const Term& term) noexcept { return term.sets.axis == ScaleSets::Axis::column && term.sets.group == 0; }

  template <class Matrices>
  void check_matrices(const Matrices& M, std::string_view name) const {
    if (M.size() != sizes_.size()) raise(ErrorCode::invalid_shape, message(name, ": ", M.size(), " matrices, but ", sizes_.size(), " sizes"));
    for (std::size_t m = 0; m < M.size(); ++m)
      if (M[m].rows() != sizes_[m] || M[m].cols() != sizes_[m])
        raise(ErrorCode::invalid_shape, message(name, ": matrix ", m, " is ", M[m].rows(), " x ", M[m].cols(), ", not of size ", sizes_[m]));
  }

  double evaluate_term(const Term& term, std::span<Matrix<double>> gradient) {
    const bool with_gradient = !gradient.empty();
    const Index used = ceil_div(term.rows, term.slab_rows);
    executor_.parallel_for(used, 1, [&](Index begin, Index, Index worker) {
      run_slab(term, begin, slab_[std::size_t(begin)], worker_[std::size_t(worker)], with_gradient);
    });
    const double total = whole_columns(term) ? finish_columns(term, used) : sum_of_totals(used);
    if (with_gradient) {
      executor_.parallel_for(Index(sizes_.size()), 1, [&](Index m, Index, Index) {
        for (const Block& block : term.blocks)
          if (Index(block.matrix) == m) collect(term, block, used, 1 / total, gradient[block.matrix]);
      });
    }
    return std::log(total / (double(term.rows) * double(term.cols)));
  }

  void run_slab(const Term& term, Index index, Slab& slab, Worker& worker, bool with_gradient) const noexcept {
    const Index begin = index * term.slab_rows;
    const Index end = std::min(begin + term.slab_rows, term.rows);
    slab.total = 0;
    if (whole_columns(term)) {
      std::fill_n(slab.peak.data(), term.cols, 0.0f);
      std::fill_n(slab.sum.data(), term.cols, 0.0);
    }
    for (Index i = begin; i < end; i += term.chunk) {
      const Index n = std::min(term.chunk, end - i);
      const View<float> X{worker.X.data(), n, term.cols, leading_dimension(term), 1};
      for (const Block& block : term.blocks)  // [n, k] · [k, k]
        kernel::multiply<float>(block_of(term, block).row_block(i, n), M_[block.matrix].view(), X.col_block(block.column, block.size));
      if (term.sets.axis == ScaleSets::Axis::row) {
        const Index group = term.sets.group > 0 ? term.sets.group : term.cols;
        for (Index r = 0; r < n; ++r) slab.total += detail::row_ranges(surrogate_, X.row(r).data(), term.cols, group);
      } else if (term.sets.group > 0) {
        for (Index r = 0; r < n; r += term.sets.group) slab.total += column_ranges(X.row_block(r, std::min(term.sets.group, n - r)), worker);
      } else {
        extend_columns(term, X, slab, worker, with_gradient && i > begin);
      }
      if (!with_gradient) continue;
      const auto store = i == begin ? kernel::Store::overwrite : kernel::Store::add;
      for (const Block& block : term.blocks)  // [k, n] · [n, k]
        kernel::multiply<float>(block_of(term, block).row_block(i, n).transposed(), X.col_block(block.column, block.size),
                                slab_block(slab, block), store);
    }
  }

  static View<float> slab_block(Slab& slab, const Block& block) noexcept {
    return {slab.gradient.data() + block.area, block.size, block.size, block.size, 1};
  }

  /// Sets are the columns of X: replaces X by n_s ∂R_s²/∂X; returns Σ n_s R_s².
  double column_ranges(View<float> X, Worker& worker) const noexcept {
    auto& [peak, a, b, sum] = worker.column;
    std::fill_n(peak.data(), X.cols, 0.0f);
    kernel::column_peaks(X, peak.data());
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

  void slopes_of_columns(View<float> X, const float* peak, Buffer<float>& a, Buffer<float>& b, Buffer<float>& sum) const noexcept {
    const auto phi = surrogate_.kernel();
    for (Index j = 0; j < X.cols; ++j) {
      const auto parameters = phi.prepare(peak[j]);
      a[std::size_t(j)] = parameters.a;
      b[std::size_t(j)] = parameters.b;
    }
    kernel::column_sums(phi, X, a.data(), b.data(), sum.data());
  }

  /// Adds a chunk to the sums of whole columns and replaces X by slopes. Where a peak grows, what was summed relative to the old one is brought
  /// to the new one, as in an online softmax: one pass is enough.
  void extend_columns(const Term& term, View<float> X, Slab& slab, Worker& worker, bool rescale_gradient) const noexcept {
    auto& [before, a, b, sum] = worker.column;
    std::copy_n(slab.peak.data(), X.cols, before.data());
    kernel::column_peaks(X, slab.peak.data());
    for (const Block& block : term.blocks)
      for (Index c = 0; c < block.size; ++c) {
        const auto j = std::size_t(block.column + c);
        if (slab.peak[j] == before[j]) continue;
        const PeakChange change = surrogate_.change(before[j], slab.peak[j]);
        slab.sum[j] *= change.sum;
        if (!rescale_gradient) continue;
        const auto gradient = slab_block(slab, block);
        for (Index r = 0; r < block.size; ++r) gradient(r, c) *= float(change.slope);
      }
    slopes_of_columns(X, slab.peak.data(), a, b, sum);
    for (std::size_t j = 0; j < std::size_t(X.cols); ++j) slab.sum[j] += double(sum[j]);
  }

  double sum_of_totals(Index used) const noexcept {
    double total = 0;
    for (Index s = 0; s < used; ++s) total += slab_[std::size_t(s)].total;
    return total;
  }

  /// Brings the slabs' columns to one peak; leaves in each slab's `sum` what its gradient columns must be multiplied by. Returns Σ n_s R_s².
  double finish_columns(const Term& term, Index used) noexcept {
    double total = 0;
    for (std::size_t j = 0; j < std::size_t(term.cols); ++j) {
      float peak = 0;
      for (Index s = 0; s < used; ++s) peak = std::max(peak, slab_[std::size_t(s)].peak[j]);
      double sum = 0;
      for (Index s = 0; s < used; ++s) {
        Slab& slab = slab_[std::size_t(s)];
        const PeakChange change = surrogate_.change(slab.peak[j], peak);
        sum += slab.sum[j] * change.sum;
        slab.sum[j] = change.slope;
      }
      const SetRange set = surrogate_.range(peak, sum, term.rows);
      total += double(term.rows) * set.squared;
      for (Index s = 0; s < used; ++s) slab_[std::size_t(s)].sum[j] *= double(term.rows) * set.slope_factor;
    }
    return total;
  }

  /// Adds the slabs' gradients of one block, in order.
  void collect(const Term& term, const Block& block, Index used, double factor, Matrix<double>& gradient) noexcept {
    const bool by_column = whole_columns(term);
    for (Index i = 0; i < block.size; ++i) {
      double* to = gradient.data() + i * block.size;
      for (Index s = 0; s < used; ++s) {
        Slab& slab = slab_[std::size_t(s)];
        const float* from = slab.gradient.data() + block.area + i * block.size;
        const double* column = slab.sum.data() + block.column;
        if (by_column)
          for (Index j = 0; j < block.size; ++j) to[j] += factor * column[j] * double(from[j]);
        else
          for (Index j = 0; j < block.size; ++j) to[j] += factor * double(from[j]);
      }
    }
  }

  S surrogate_;
  std::vector<Index> sizes_;
  ExecutorRef executor_;
  std::vector<Term> terms_;
  std::vector<Matrix<float>> M_;
  std::vector<Slab> slab_;
  std::vector<Worker> worker_;
};

}  // namespace cafeq
