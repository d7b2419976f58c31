/// What a learned transform is learned for: a matrix, its scales, and which of the learned matrices
/// acts on which of its columns.
#pragma once

#include <cmath>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "cafeq/core/fault.hpp"
#include "cafeq/core/scale.hpp"
#include "cafeq/core/scan.hpp"
#include "cafeq/loss/range_surrogate.hpp"

namespace cafeq::detail {

/// One matrix W [n, Σ sizes] whose columns the transforms act on, taken at unit RMS. Floats with
/// contiguous rows and a moderate magnitude are read where they are and must outlive the term;
/// anything else is copied.
class RangeTerm {
 public:
  /// W: any view. matrix_of_block: which matrix acts on each column block, in order; empty for one
  /// matrix a block. column_scale: W stands for W·diag(column_scale); empty for ones.
  template <class M>
    requires MatrixView<M>
  explicit RangeTerm(M&& W, ScaleSets sets = {}, std::vector<Index> matrix_of_block = {},
                     std::vector<float> column_scale = {})
      : sets_(sets),
        matrix_of_block_(std::move(matrix_of_block)),
        column_scale_(std::move(column_scale)) {
    const auto view = as_view(W);
    check_view(view, "W");
    check(sets.fault());
    if (!column_scale_.empty() && Index(column_scale_.size()) != view.cols)
      raise(ErrorCode::invalid_shape, message("column_scale: ", column_scale_.size(),
                                              " factors for ", view.cols, " columns"));
    const WeightScan scan = scan_weights(view);
    if (!scan.finite) raise(*finite_fault(view, "W"));

    using T = typename decltype(view)::value_type;
    const int exponent = floor_log2(scan.largest);
    const bool in_place =
        std::is_same_v<T, float> && view.rows_contiguous() && is_moderate(exponent);
    if constexpr (std::is_same_v<T, float>) {
      if (in_place) W_ = view;
    }
    if (!in_place) {
      copy_ = std::make_shared<const Matrix<float>>(scaled_down(view, exponent));
      W_ = copy_->view();
    }

    const double sum = sum_of_squares();
    scale_ = sum > 0 ? std::sqrt(double(view.size()) / sum) : 0.0;
  }

  Index rows() const noexcept { return W_.rows; }
  Index cols() const noexcept { return W_.cols; }
  ScaleSets sets() const noexcept { return sets_; }
  std::span<const Index> matrix_of_block() const noexcept { return matrix_of_block_; }
  /// The weights as floats, rows contiguous; the term is weights()·diag(factor(0), factor(1), …).
  View<const float> weights() const noexcept { return W_; }
  double factor(Index column) const noexcept {
    return column_scale_.empty() ? scale_ : scale_ * double(column_scale_[std::size_t(column)]);
  }
  /// Nothing to learn from: no rows, or all zeros. Such a term is left out of f.
  bool vanishes() const noexcept { return scale_ == 0; }

 private:
  /// Of W·diag(column_scale), in eight lanes.
  double sum_of_squares() const noexcept {
    double lane[8] = {};
    for (Index i = 0; i < W_.rows; ++i) {
      const float* w = W_.data + i * W_.row_stride;
      const auto add = [&](Index j, Index l) {
        const double x =
            double(w[j]) * (column_scale_.empty() ? 1.0 : double(column_scale_[std::size_t(j)]));
        lane[l] += x * x;
      };
      Index j = 0;
      for (; j + 8 <= W_.cols; j += 8)
        for (Index l = 0; l < 8; ++l) add(j + l, l);
      for (Index l = 0; j + l < W_.cols; ++l) add(j + l, l);
    }
    double sum = 0;
    for (const double part : lane) sum += part;
    return sum;
  }

  View<const float> W_;
  std::shared_ptr<const Matrix<float>> copy_;  // shared, since W_ looks at it
  ScaleSets sets_;
  std::vector<Index> matrix_of_block_;
  std::vector<float> column_scale_;
  double scale_ = 0;
};

}  // namespace cafeq::detail
