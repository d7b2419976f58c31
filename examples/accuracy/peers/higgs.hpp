/// Gaussian grids after a Hadamard transform: V. Malinovskii et al., "Pushing the Limits of Large
/// Language Model Quantization via the Linearity Theorem", 2024 (HIGGS).
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "cafeq/core/matrix.hpp"
#include "cafeq/core/rng.hpp"
#include "cafeq/transform/hadamard.hpp"

namespace cafeq::accuracy::peers {

/// Points for pairs of standard normal numbers, by Lloyd's iteration on a sample.
class GaussianGrid {
 public:
  explicit GaussianGrid(Index points) : x_(std::size_t(points)), y_(x_) {
    constexpr Index sample = 1 << 16;
    constexpr int rounds = 40;
    const CounterRng rng(0, stream_of("HIGGS"));
    std::vector<float> values(2 * sample);
    for (Index i = 0; i < 2 * sample; ++i)
      values[std::size_t(i)] = float(rng.normal(std::uint64_t(i)));
    for (Index k = 0; k < points; ++k) {
      x_[std::size_t(k)] = values[std::size_t(2 * k)];
      y_[std::size_t(k)] = values[std::size_t(2 * k + 1)];
    }
    for (int round = 0; round < rounds; ++round) {
      std::vector<std::array<double, 3>> sums(x_.size());
      for (Index i = 0; i < sample; ++i) {
        const float* v = &values[std::size_t(2 * i)];
        auto& [x, y, n] = sums[nearest(v[0], v[1])];
        x += double(v[0]);
        y += double(v[1]);
        ++n;
      }
      for (std::size_t k = 0; k < sums.size(); ++k)
        if (const auto& [x, y, n] = sums[k]; n > 0) {
          x_[k] = float(x / n);
          y_[k] = float(y / n);
        }
    }
  }

  void round(float& x, float& y) const {
    const std::size_t k = nearest(x, y);
    x = x_[k];
    y = y_[k];
  }

 private:
  std::size_t nearest(float x, float y) const {
    // Distances first, which compilers turn into vector code.
    std::array<float, 256> distance;
    for (std::size_t k = 0; k < x_.size(); ++k)
      distance[k] = (x - x_[k]) * (x - x_[k]) + (y - y_[k]) * (y - y_[k]);
    return std::size_t(
        std::min_element(distance.begin(), distance.begin() + std::ptrdiff_t(x_.size())) -
        distance.begin());
  }

  std::vector<float> x_, y_;
};

/// Rows are transformed, divided by their standard deviation, and rounded pair by pair.
template <int Bits>
struct Higgs {
  static constexpr Index points = Index(1) << 2 * Bits;  // at most 256

  std::string name() const { return message("HIGGS p = 2, n = ", points); }
  double bits_per_weight(Index, Index cols) const { return Bits + 16.0 / double(cols); }

  Matrix<float> operator()(View<const float> W) const {
    static const GaussianGrid grid(points);
    Matrix<float> result(W.rows, W.cols);
    copy(W, result.view());
    const Hadamard transform = RandomizedHadamard{.seed = 0}.fit(W);
    transform.apply(result.view());
    for (Index i = 0; i < W.rows; ++i) {
      const auto row = result.row(i);
      double square = 0;
      for (const float x : row) square += double(x) * double(x);
      const float scale = float(fp16(float(std::sqrt(square / double(row.size())))));
      if (scale == 0) continue;
      for (std::size_t j = 0; j + 1 < row.size(); j += 2) {
        float x = row[j] / scale, y = row[j + 1] / scale;
        grid.round(x, y);
        row[j] = x * scale;
        row[j + 1] = y * scale;
      }
    }
    transform.apply(result.view(), Op::inverse);
    return result;
  }
};

}  // namespace cafeq::accuracy::peers
