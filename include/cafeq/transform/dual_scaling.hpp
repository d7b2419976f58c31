/// Dual scaling (Sinkhorn-like): input and output scales that even out the standard deviations of
/// columns and rows.
///
/// W(i, j) = r_i c_j X(i, j); each round divides the columns of X by their standard deviation (over
/// the median of them all), then its rows by theirs. Quantizing W / √c keeps outlier input channels
/// from setting the scale of every row; r is left to the quantizer's row scales.
///
/// A round is one pass over W: while sixteen rows are in cache their deviations are found with the
/// present c, and the moments of the columns at once with the new r. Sums run in fp32 over 16 terms
/// a lane, then in fp64 (kernel/columns.hpp): deviations are good to 1e-6, and the same on any
/// number of threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "cafeq/core/scan.hpp"
#include "cafeq/kernel/columns.hpp"
#include "cafeq/transform/diagonal.hpp"

namespace cafeq {

/// Spec: M = diag(c^−power).
struct DualScaling {
  double power = 0.5;
  int rounds = 24;
  double tolerance = 5e-3;  ///< rounds end when no c changes by more; further ones change the
                            ///< quantization error by less than 0.1 %

  std::optional<Error> fault(Index, Index) const {
    if (!std::isfinite(power))
      return Error(ErrorCode::invalid_argument, message("DualScaling: power is ", power));
    if (rounds < 0)
      return Error(ErrorCode::invalid_argument,
                   message("DualScaling: rounds is ", rounds, ", must not be negative"));
    if (!(tolerance >= 0))
      return Error(ErrorCode::invalid_argument,
                   message("DualScaling: tolerance is ", tolerance, ", must not be negative"));
    return std::nullopt;
  }
  template <class T>
  Diagonal fit(View<T> W, ExecutorRef executor = {}) const;
  static constexpr std::int64_t storage_bits(Index dim) noexcept { return 16 * std::int64_t(dim); }
};

namespace detail {

/// √(mean of squares − mean²); 0 where what is left is rounding.
inline double deviation(const kernel::Moments& moments, Index n) noexcept {
  if (n == 0) return 0;
  const double mean = moments.sum / double(n);
  const double mean_square = moments.sum_squares / double(n);
  const double variance = std::fma(-mean, mean, mean_square);
  return variance > 1e-5 * mean_square && variance > 0x1p-120 ? std::sqrt(variance) : 0.0;
}

/// The lower median of the positive values; 1 where there are none.
template <class T>
T positive_median(std::vector<T> values) {
  std::erase_if(values, [](double v) { return !(v > 0); });
  if (values.empty()) return 1;
  const auto middle = values.begin() + std::ptrdiff_t((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// The passes over W. In a unit of the size of the weights, what is summed stays within float's
/// range.
template <class T>
class DualScalingPasses {
 public:
  DualScalingPasses(View<const T> W, double largest, ExecutorRef executor)
      : W_(W),
        executor_(executor),
        exponent_(std::max(-100, floor_log2(largest))),
        slab_rows_(std::max<Index>(1, ceil_div(ceil_div(W.rows, slabs), block)) * block),
        rows_(std::size_t(W.rows), 1.0),
        columns_(std::size_t(W.cols), 1.0),
        slab_(std::size_t(ceil_div(W.rows, slab_rows_))) {
    for (Slab& slab : slab_) {
      slab.sum.resize(std::size_t(W.cols));
      slab.squares.resize(std::size_t(W.cols));
    }
  }

  /// One round, r of the round before found on the way: in the first one r is 1. Returns the
  /// largest change of a c, relative.
  double round(bool first) {
    pass(!first, true);

    std::vector<kernel::Moments> moments(columns_.size());
    for (const Slab& slab : slab_)  // in order
      for (std::size_t j = 0; j < moments.size(); ++j) {
        moments[j].sum += slab.sum[j];
        moments[j].sum_squares += slab.squares[j];
      }

    std::vector<double> spread(columns_.size());
    for (std::size_t j = 0; j < spread.size(); ++j)
      spread[j] = deviation(moments[j], W_.rows) / columns_[j];
    const double median = positive_median(spread);
    double change = 0;
    for (std::size_t j = 0; j < spread.size(); ++j) {
      if (!(spread[j] > 0)) continue;
      columns_[j] *= spread[j] / median;
      change = std::max(change, std::abs(spread[j] / median - 1));
    }
    return change;
  }
  /// r for the present c.
  void finish_rows() { pass(true, false); }

  std::vector<double> take_columns() && { return std::move(columns_); }
  std::vector<double> take_rows() && {
    for (double& r : rows_) r = std::ldexp(r, exponent_);
    return std::move(rows_);
  }

 private:
  static constexpr Index slabs = 16;
  static constexpr Index block = kernel::detail::column_rows;
  static constexpr bool is_double = std::is_same_v<T, double>;

  struct Slab {
    Buffer<double> sum;
    Buffer<double> squares;
  };

  /// What an element read as a float is multiplied by for a scale of `value`; doubles are brought
  /// to the unit when they are read.
  float factor(double value) const noexcept {
    return float(1 / (is_double ? value : std::ldexp(value, exponent_)));
  }

  void pass(bool with_rows, bool with_columns) {
    Buffer<float> column_factor(columns_.size());
    std::transform(columns_.begin(), columns_.end(), column_factor.begin(),
                   [this](double c) { return factor(c); });
    executor_.parallel_for(Index(slab_.size()), 1, [&](Index s, Index, Index) {
      Slab& slab = slab_[std::size_t(s)];
      std::fill(slab.sum.begin(), slab.sum.end(), 0.0);
      std::fill(slab.squares.begin(), slab.squares.end(), 0.0);
      const bool direct = W_.rows_contiguous() && !is_double;
      Matrix<float> panel(direct ? 0 : block, direct ? 0 : W_.cols);
      const Index end = std::min((s + 1) * slab_rows_, W_.rows);
      for (Index i = s * slab_rows_; i < end; i += block) {
        const View<const T> rows = W_.row_block(i, std::min(block, end - i));
        if (direct) run_block(rows, i, column_factor.data(), with_rows, with_columns, slab);
        else
          run_block(read(rows, panel.view()), i, column_factor.data(), with_rows, with_columns,
                    slab);
      }
    });
  }

  View<const float> read(View<const T> rows, View<float> panel) const {
    const View<float> to = panel.row_block(0, rows.rows);
    if constexpr (is_double) {
      const PowerOfTwo scale(-exponent_);
      for (Index i = 0; i < rows.rows; ++i)
        for (Index j = 0; j < rows.cols; ++j) to(i, j) = float(scale(rows(i, j)));
    } else {
      copy(rows, to);
    }
    return to;
  }

  template <class E>
  void run_block(View<const E> rows, Index first, const float* column_factor, bool with_rows,
                 bool with_columns, Slab& slab) noexcept {
    float row_factor[block];
    for (Index i = 0; i < rows.rows; ++i) {
      double& r = rows_[std::size_t(first + i)];
      if (with_rows) {
        const double d = deviation(
            kernel::scaled_row_moments(rows.data + i * rows.row_stride, column_factor, rows.cols),
            rows.cols);
        if (d > 0) r = d;
      }
      row_factor[i] = factor(r);
    }
    if (with_columns)
      kernel::column_moments(rows, row_factor, slab.sum.data(), slab.squares.data());
  }

  View<const T> W_;
  ExecutorRef executor_;
  int exponent_;
  Index slab_rows_;
  std::vector<double> rows_;
  std::vector<double> columns_;
  std::vector<Slab> slab_;
};

/// W of any element type, strides and magnitude, in place. Rounds end once no c changes by more
/// than `tolerance` of itself. A column that does not vary, to about 0.3 % of its mean, keeps its
/// factor (1 at first); so does a row. Memory: 256 bytes a column, and 16 rows a worker where rows
/// are not contiguous.
template <class T>
DualScalingPasses<T> run_dual_scaling(View<const T> W, int rounds, ExecutorRef executor,
                                      double tolerance) {
  check_view(W, "W");
  const WeightScan scan = scan_weights(W, executor);
  if (!scan.finite) raise(*finite_fault(W, "W"));

  DualScalingPasses<T> passes(W, scan.largest, executor);
  for (int round = 0; round < rounds; ++round)
    if (passes.round(round == 0) <= tolerance) break;
  return passes;
}

struct DualScales {
  std::vector<double> rows;     // r
  std::vector<double> columns;  // c
};

/// Both r and c; the transform needs c alone.
template <class T>
DualScales dual_scales(View<T> W, int rounds = 24, ExecutorRef executor = {},
                       double tolerance = 0) {
  auto passes = run_dual_scaling(W.as_const(), rounds, executor, tolerance);
  if (rounds > 0) passes.finish_rows();
  auto rows = std::move(passes).take_rows();
  return {.rows = std::move(rows), .columns = std::move(passes).take_columns()};
}

}  // namespace detail

template <class T>
Diagonal DualScaling::fit(View<T> W, ExecutorRef executor) const {
  check(*this, W.rows, W.cols);
  auto columns = detail::run_dual_scaling(W.as_const(), rounds, executor, tolerance).take_columns();
  // No power leaves the range in which a float can be squared. Halves hold 39 binary orders, so
  // nothing that is kept lies out here.
  for (double& c : columns) c = std::clamp(std::pow(c, -power), 0x1p-60, 0x1p60);
  return Diagonal(std::move(columns));
}

}  // namespace cafeq
