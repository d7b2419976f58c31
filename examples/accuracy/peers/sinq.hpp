/// Sinkhorn-normalized quantization: L. K. Müller et al., "SINQ: Sinkhorn-Normalized Quantization
/// for Calibration-Free Low-Precision LLM Weights", 2025 (arXiv 2509.22944).
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "accuracy/peers/affine_groups.hpp"

namespace cafeq::accuracy::peers {

/// Rows and columns are divided by scales until all have about the same standard deviation; what
/// is left is rounded to nearest. The rows' scales are part of those of their groups.
struct Sinq {
  int bits = 4;
  Index group = 64;

  std::string name() const { return message("SINQ g", group); }
  double bits_per_weight(Index rows, Index) const {
    return affine_bits(bits, group) + 16.0 / double(rows);
  }

  Matrix<float> operator()(View<const float> W) const {
    const Scales scales = balance(W);
    Matrix<float> result(W.rows, W.cols);
    for (Index i = 0; i < W.rows; ++i) {
      const auto row = result.row(i);
      for (Index j = 0; j < W.cols; ++j)
        result(i, j) = W(i, j) / (scales.rows[std::size_t(i)] * scales.cols[std::size_t(j)]);
      for (Index begin = 0; begin < W.cols; begin += group) {
        const auto w =
            row.subspan(std::size_t(begin), std::size_t(std::min(group, W.cols - begin)));
        const AffineGroup q = min_max(w, bits).rounded();
        std::transform(w.begin(), w.end(), w.begin(), q);
      }
      for (Index j = 0; j < W.cols; ++j)
        result(i, j) *= scales.rows[std::size_t(i)] * float(fp16(scales.cols[std::size_t(j)]));
    }
    return result;
  }

 private:
  struct Scales {
    std::vector<float> rows, cols;
  };

  /// Standard deviations of the rows and columns of W over its scales.
  static Scales deviations(View<const float> W, const Scales& scales) {
    struct Sums {
      std::vector<double> x, square;
      void add(std::size_t at, double value) {
        x[at] += value;
        square[at] += value * value;
      }
      std::vector<float> deviations(double n) const {
        std::vector<float> result;
        for (std::size_t i = 0; i < x.size(); ++i)
          result.push_back(float(
              std::sqrt(std::max(1e-24, (square[i] - x[i] * x[i] / n) / std::max(1.0, n - 1)))));
        return result;
      }
    };
    const auto sums = [](Index n) {
      return Sums{std::vector<double>(std::size_t(n)), std::vector<double>(std::size_t(n))};
    };
    Sums rows = sums(W.rows), cols = sums(W.cols);
    for (Index i = 0; i < W.rows; ++i)
      for (Index j = 0; j < W.cols; ++j) {
        const double x =
            double(W(i, j) / (scales.rows[std::size_t(i)] * scales.cols[std::size_t(j)]));
        rows.add(std::size_t(i), x);
        cols.add(std::size_t(j), x);
      }
    return {rows.deviations(double(W.cols)), cols.deviations(double(W.rows))};
  }

  static Scales balance(View<const float> W) {
    constexpr int iterations = 16;
    Scales now{std::vector<float>(std::size_t(W.rows), 1.0f),
               std::vector<float>(std::size_t(W.cols), 1.0f)};
    Scales best = now;
    float target = 0, least = std::numeric_limits<float>::infinity();
    for (int i = 0; i < iterations; ++i) {
      const Scales found = deviations(W, now);
      const auto [row_low, row_high] = std::minmax_element(found.rows.begin(), found.rows.end());
      const auto [col_low, col_high] = std::minmax_element(found.cols.begin(), found.cols.end());
      const float low = std::min(*row_low, *col_low), high = std::max(*row_high, *col_high);
      if (i == 0) target = low;
      if (high / low > least) break;
      least = high / low;
      best = now;
      for (auto [scale, deviation] : {std::pair(&now.rows, &found.rows), {&now.cols, &found.cols}})
        for (std::size_t k = 0; k < scale->size(); ++k)
          (*scale)[k] *= std::clamp((*deviation)[k] / target, 0.7f, 2.0f);
    }
    return best;
  }
};

}  // namespace cafeq::accuracy::peers
