/// Smooth ranges (loss/range_surrogate.hpp) of sets of weights that lie along columns: groups of a
/// column, each within a strip of rows, and whole columns, which are met strip by strip. Internal.
#pragma once

#include <algorithm>

#include "cafeq/core/matrix.hpp"
#include "cafeq/kernel/column_range.hpp"
#include "cafeq/kernel/columns.hpp"
#include "cafeq/loss/range_surrogate.hpp"

namespace cafeq::detail {

/// Rows whose sums may stay in fp32 (kernel/column_range.hpp).
inline constexpr Index summed_rows = 96;

/// A number a column, four times: what one worker needs for a strip.
struct ColumnScratch {
  Buffer<float> peak;
  Buffer<float> a;  // parameters of the kernel for the peak
  Buffer<float> b;
  Buffer<float> sum;

  explicit ColumnScratch(Index cols)
      : peak(std::size_t(cols)),
        a(std::size_t(cols)),
        b(std::size_t(cols)),
        sum(std::size_t(cols)) {}
};

/// Replaces X by slopes φ'(x) relative to the peaks of its columns; leaves Σ φ of each column in
/// scratch.sum. In fp32, so for about a hundred rows.
template <RangeSurrogate S>
void column_slopes(const S& surrogate, View<float> X, const float* peak,
                   ColumnScratch& scratch) noexcept {
  const auto phi = surrogate.kernel();
  kernel::prepare_columns(phi, peak, X.cols, scratch.a.data(), scratch.b.data());
  kernel::column_sums(phi, X, scratch.a.data(), scratch.b.data(), scratch.sum.data());
}

/// Sets are the columns of X: replaces X by n_s ∂R_s²/∂X; returns Σ n_s R_s².
template <RangeSurrogate S>
double column_ranges(const S& surrogate, View<float> X, ColumnScratch& scratch) noexcept {
  float* peak = scratch.peak.data();
  std::fill_n(peak, X.cols, 0.0f);
  kernel::column_absmax(View<const float>(X), peak);
  column_slopes(surrogate, X, peak, scratch);

  double total = 0;
  float* factor = scratch.a.data();  // no longer needed for the peaks
  for (Index j = 0; j < X.cols; ++j) {
    const SetRange set = surrogate.range(peak[j], double(scratch.sum.data()[j]), X.rows);
    total += double(X.rows) * set.squared;
    factor[j] = float(double(X.rows) * set.slope_factor);
  }
  kernel::scale_columns(X, factor);
  return total;
}

/// Ranges of whole columns of a matrix that comes in strips. Sums are kept relative to the peak so
/// far; where a peak grows, what was summed is brought to the new one, as in an online softmax, so
/// that one pass is enough. Blocks of columns may be worked on at the same time.
class WholeColumns {
 public:
  void resize(Index cols) {
    peak_.resize(std::size_t(cols));
    sum_.resize(std::size_t(cols));
  }

  /// Nothing summed yet, of the columns [column, column + count).
  void clear(Index column, Index count) noexcept {
    std::fill_n(peak_.data() + column, count, 0.0f);
    std::fill_n(sum_.data() + column, count, 0.0);
  }

  /// Adds a strip of the columns from `column` on and replaces it by slopes relative to the peaks.
  /// grown(c, factor) is told by what earlier slopes of column c of the strip must be multiplied.
  template <RangeSurrogate S, class Grown>
  void add(const S& surrogate, Index column, View<float> X, ColumnScratch& scratch,
           Grown&& grown) noexcept {
    float* peak = peak_.data() + column;
    double* sum = sum_.data() + column;
    float* before = scratch.peak.data();
    std::copy_n(peak, X.cols, before);
    kernel::column_absmax(View<const float>(X), peak);
    for (Index c = 0; c < X.cols; ++c) {
      if (peak[c] == before[c]) continue;
      const PeakChange change = surrogate.change(before[c], peak[c]);
      sum[c] *= change.sum;
      grown(c, change.slope);
    }

    for (Index r = 0; r < X.rows; r += summed_rows) {
      column_slopes(surrogate, X.row_block(r, std::min(summed_rows, X.rows - r)), peak, scratch);
      for (Index c = 0; c < X.cols; ++c) sum[c] += double(scratch.sum.data()[c]);
    }
  }

  /// Σ n_s R_s² of the first `cols` columns, of `rows` weights each. From then on slope_factors()
  /// turn the slopes of each column into n_s ∂R_s²/∂x.
  template <RangeSurrogate S>
  double finish(const S& surrogate, Index rows, Index cols) noexcept {
    double total = 0;
    for (Index j = 0; j < cols; ++j) {
      const SetRange set = surrogate.range(peak_.data()[j], sum_.data()[j], rows);
      total += double(rows) * set.squared;
      sum_.data()[j] = double(rows) * set.slope_factor;
    }
    return total;
  }
  const double* slope_factors() const noexcept { return sum_.data(); }

 private:
  Buffer<float> peak_;  // so far
  Buffer<double> sum_;  // Σ φ relative to the peak
};

}  // namespace cafeq::detail
