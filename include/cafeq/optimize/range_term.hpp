/// What a learned transform is learned for: a matrix, its scales, and which of the learned matrices acts on which of its columns.
#pragma once

#include <cmath>
#include <utility>
#include <vector>

#include "cafeq/core/matrix.hpp"
#include "cafeq/loss/range_surrogate.hpp"

namespace cafeq {

template <RangeSurrogate S>
class RangeProblem;

/// One matrix W [n, Σ sizes] whose columns the transforms act on: a float copy at unit RMS, made once.
class RangeTerm {
 public:
  /// W: any view. matrix_of_block: which matrix acts on each column block, in order; empty for one matrix a block.
  template <class M>
    requires MatrixView<M>
  explicit RangeTerm(M&& W, ScaleSets sets = {}, std::vector<Index> matrix_of_block = {})
      : sets_(sets), matrix_of_block_(std::move(matrix_of_block)) {
    const auto view = as_view(W);
    check_view(view, "W");
    check_finite(view, "W");
    detail::check_scale_sets(sets);
    double sum = 0;
    for (Index i = 0; i < view.rows; ++i)
      for (Index j = 0; j < view.cols; ++j) sum += double(view(i, j)) * double(view(i, j));
    scale_ = sum > 0 ? std::sqrt(double(view.size()) / sum) : 0.0;
    W_ = Matrix<float>(view.rows, view.cols);
    for (Index i = 0; i < view.rows; ++i)
      for (Index j = 0; j < view.cols; ++j) W_(i, j) = float(double(view(i, j)) * scale_);
  }

  Index rows() const noexcept { return W_.rows(); }
  Index cols() const noexcept { return W_.cols(); }
  ScaleSets sets() const noexcept { return sets_; }
  /// Nothing to learn from: no rows, or all zeros. Such a term is left out of f.
  bool vanishes() const noexcept { return scale_ == 0; }

 private:
  template <RangeSurrogate S>
  friend class RangeProblem;

  Matrix<float> W_;
  ScaleSets sets_;
  std::vector<Index> matrix_of_block_;
  double scale_ = 0;
};

}  // namespace cafeq
