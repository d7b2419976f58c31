/// Dual scaling (Sinkhorn-like): input and output scales that even out the standard deviations of columns and rows.
///
/// W(i, j) = r_i c_j X(i, j); each round divides the columns of X by their standard deviation (over the median of them all), then its rows by theirs.
/// Quantizing W / √c keeps outlier input channels from setting the scale of every row; r is left to the quantizer's row scales.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "cafeq/transform/diagonal.hpp"

namespace cafeq {

struct DualScales {
  std::vector<double> rows;     ///< r
  std::vector<double> columns;  ///< c
};

/// r and c after `rounds` rounds; statistics in fp64, memory O(rows + columns). A column that does not vary keeps its
/// factor (1 at first); so does a row.
DualScales dual_scales(View<const float> W, int rounds = 24, ExecutorRef executor = {});

/// Spec: M = diag(c^−power).
struct DualScaling {
  double power = 0.5;
  int rounds = 24;

  Diagonal fit(View<const float> W, ExecutorRef executor = {}) const {
    if (!std::isfinite(power)) raise(ErrorCode::invalid_argument, message("DualScaling: power is ", power));
    auto scales = dual_scales(W, rounds, executor);
    for (double& c : scales.columns) c = std::pow(c, -power);
    return Diagonal(std::move(scales.columns));
  }
};

namespace detail {

/// √(mean of squares − mean²); 0 where what is left is rounding.
inline double deviation(double sum, double sum_of_squares, Index n) {
  if (n == 0) return 0;
  const double mean = sum / double(n);
  const double mean_square = sum_of_squares / double(n);
  const double variance = std::fma(-mean, mean, mean_square);
  return variance > 1e-12 * mean_square && variance > 0x1p-200 ? std::sqrt(variance) : 0.0;
}

/// f(rows, first) on panels of up to 16 rows whose rows are contiguous.
template <class F>
void read_row_panels(View<const float> W, F&& f) {
  if (W.rows_contiguous()) return f(W, Index(0));
  const Index step = std::min<Index>(W.rows, 16);
  Matrix<float> panel(step, W.cols);
  for (Index i = 0; i < W.rows; i += step) {
    const auto rows = panel.view().row_block(0, std::min(step, W.rows - i));
    copy(W.row_block(i, rows.rows), rows);
    f(View<const float>(rows), i);
  }
}

// Weights times factors are rounded to float, so that their squares are exact in double and no contraction changes a sum.

/// Standard deviation of each column of diag(factor)·W.
inline std::vector<double> column_deviations(View<const float> W, const std::vector<float>& factor, ExecutorRef executor) {
  std::vector<double> result(std::size_t(W.cols));
  executor.parallel_for(W.cols, 256, [&](Index begin, Index end, Index) {
    std::vector<double> sum(std::size_t(end - begin)), squares(std::size_t(end - begin));
    read_row_panels(W.col_block(begin, end - begin), [&](View<const float> rows, Index first) {
      for (Index i = 0; i < rows.rows; ++i) {
        const float* w = rows.data + i * rows.row_stride;
        const float f = factor[std::size_t(first + i)];
        for (std::size_t j = 0; j < sum.size(); ++j) {
          const double x = double(w[j] * f);
          sum[j] += x;
          squares[j] += x * x;
        }
      }
    });
    for (std::size_t j = 0; j < sum.size(); ++j) result[std::size_t(begin) + j] = deviation(sum[j], squares[j], W.rows);
  });
  return result;
}

/// Standard deviation of each row of W·diag(factor), summed in 8 lanes.
inline std::vector<double> row_deviations(View<const float> W, const std::vector<float>& factor, ExecutorRef executor) {
  constexpr Index lanes = 8;
  std::vector<double> result(std::size_t(W.rows));
  executor.parallel_for(W.rows, 16, [&](Index begin, Index end, Index) {
    read_row_panels(W.row_block(begin, end - begin), [&](View<const float> rows, Index first) {
      for (Index i = 0; i < rows.rows; ++i) {
        const float* w = rows.data + i * rows.row_stride;
        double sum[lanes] = {};
        double squares[lanes] = {};
        const auto add = [&](Index j, Index l) {
          const double x = double(w[j + l] * factor[std::size_t(j + l)]);
          sum[l] += x;
          squares[l] += x * x;
        };
        Index j = 0;
        for (; j + lanes <= rows.cols; j += lanes)
          for (Index l = 0; l < lanes; ++l) add(j, l);
        for (Index l = 0; j + l < rows.cols; ++l) add(j, l);
        for (Index l = 1; l < lanes; ++l) {
          sum[0] += sum[l];
          squares[0] += squares[l];
        }
        result[std::size_t(begin + first + i)] = deviation(sum[0], squares[0], W.cols);
      }
    });
  });
  return result;
}

/// 1 / (value · unit).
inline std::vector<float> reciprocals(const std::vector<double>& values, double unit) {
  std::vector<float> result(values.size());
  std::transform(values.begin(), values.end(), result.begin(), [unit](double v) { return float(1 / (v * unit)); });
  return result;
}

/// The lower median of the positive values; 1 where there are none.
inline double positive_median(std::vector<double> values) {
  std::erase_if(values, [](double v) { return !(v > 0); });
  if (values.empty()) return 1;
  const auto middle = values.begin() + std::ptrdiff_t((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace detail

inline DualScales dual_scales(View<const float> W, int rounds, ExecutorRef executor) {
  if (rounds < 0) raise(ErrorCode::invalid_argument, message("dual_scales: rounds is ", rounds));
  check_view(W, "W");
  check_finite(W, "W");
  float largest = 0;
  for (Index i = 0; i < W.rows; ++i)
    for (Index j = 0; j < W.cols; ++j) largest = std::max(largest, std::abs(W(i, j)));
  // In a unit of the size of the weights, what is summed stays within float's range.
  const double unit = std::ldexp(1.0, std::max(-100, floor_log2(double(largest))));
  DualScales scales{std::vector<double>(std::size_t(W.rows), 1.0), std::vector<double>(std::size_t(W.cols), 1.0)};
  for (int round = 0; round < rounds; ++round) {
    auto spread = detail::column_deviations(W, detail::reciprocals(scales.rows, unit), executor);
    for (std::size_t j = 0; j < spread.size(); ++j) spread[j] /= scales.columns[j];
    const double median = detail::positive_median(spread);
    for (std::size_t j = 0; j < spread.size(); ++j)
      if (spread[j] > 0) scales.columns[j] *= spread[j] / median;
    const auto rows = detail::row_deviations(W, detail::reciprocals(scales.columns, unit), executor);
    for (std::size_t i = 0; i < rows.size(); ++i)
      if (rows[i] > 0) scales.rows[i] = rows[i];
  }
  for (double& r : scales.rows) r *= unit;
  return scales;
}

}  // namespace cafeq
