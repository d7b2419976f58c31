/// Points of the plane for pairs of normally distributed numbers.
#pragma once

#include <algorithm>
#include <array>
#include <limits>
#include <span>
#include <vector>

#include "cafeq/core/rng.hpp"

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
    std::vector<int> nearest(sample);
    for (int round = 0; round < rounds; ++round) {
      find_nearest(values, nearest);
      std::vector<std::array<double, 3>> sums(x_.size());
      for (std::size_t i = 0; i < nearest.size(); ++i) {
        auto& [x, y, n] = sums[std::size_t(nearest[i])];
        x += double(values[2 * i]);
        y += double(values[2 * i + 1]);
        ++n;
      }
      for (std::size_t k = 0; k < sums.size(); ++k)
        if (const auto& [x, y, n] = sums[k]; n > 0) {
          x_[k] = float(x / n);
          y_[k] = float(y / n);
        }
    }
  }

  /// Numbers in pairs become the points that are nearest; of an odd number the last one stays.
  void round(std::span<float> pairs) const {
    std::vector<int> nearest(pairs.size() / 2);
    find_nearest(pairs, nearest);
    for (std::size_t i = 0; i < nearest.size(); ++i) {
      pairs[2 * i] = x_[std::size_t(nearest[i])];
      pairs[2 * i + 1] = y_[std::size_t(nearest[i])];
    }
  }

 private:
  /// Some pairs at a time, which compilers turn into vector code.
  void find_nearest(std::span<const float> pairs, std::span<int> nearest) const {
    constexpr std::size_t lanes = 16;
    for (std::size_t begin = 0; begin < nearest.size(); begin += lanes) {
      const std::size_t count = std::min(lanes, nearest.size() - begin);
      std::array<float, lanes> x{}, y{}, least;
      std::array<int, lanes> at{};
      least.fill(std::numeric_limits<float>::infinity());
      for (std::size_t i = 0; i < count; ++i) {
        x[i] = pairs[2 * (begin + i)];
        y[i] = pairs[2 * (begin + i) + 1];
      }
      for (std::size_t k = 0; k < x_.size(); ++k) {
        const float px = x_[k], py = y_[k];
        for (std::size_t i = 0; i < lanes; ++i) {
          const float distance = (x[i] - px) * (x[i] - px) + (y[i] - py) * (y[i] - py);
          at[i] = distance < least[i] ? int(k) : at[i];
          least[i] = std::min(least[i], distance);
        }
      }
      std::copy_n(at.begin(), count, nearest.begin() + std::ptrdiff_t(begin));
    }
  }

  std::vector<float> x_, y_;
};

}  // namespace cafeq::accuracy::peers
