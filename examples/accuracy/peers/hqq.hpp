/// Half-quadratic quantization: H. Badri and A. Shaji, "Half-Quadratic Quantization of Large
/// Machine Learning Models", 2023, as the library hqq has it.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "accuracy/peers/affine_groups.hpp"

namespace cafeq::accuracy::peers {

struct Hqq {
  int bits = 4;
  Index group = 64;

  std::string name() const { return message("HQQ g", group); }
  double bits_per_weight(Index, Index) const { return affine_bits(bits, group); }

  Matrix<float> operator()(View<const float> W) const {
    Matrix<float> result(W.rows, W.cols);
    for (Index i = 0; i < W.rows; ++i)
      for (Index begin = 0; begin < W.cols; begin += group) {
        const auto w =
            W.row(i).subspan(std::size_t(begin), std::size_t(std::min(group, W.cols - begin)));
        const AffineGroup best = fit(w).rounded();
        std::transform(w.begin(), w.end(), result.row(i).begin() + begin, best);
      }
    return result;
  }

 private:
  /// Only the offset is fitted: the mean over the group of what would leave no error but outliers,
  /// whose share `prox` takes out, the proximal operator of the norm with p = .7.
  AffineGroup fit(std::span<const float> w) const {
    constexpr float p = 0.7f, growth = 1.01f;
    constexpr int iterations = 20;
    AffineGroup now = min_max(w, bits), best = now;
    float least = INFINITY, beta = 10;
    for (int i = 0; i < iterations; ++i, beta *= growth) {
      const auto prox = [&](float error) {
        const float size = std::abs(error);
        if (size == 0) return 0.0f;
        return std::copysign(std::max(0.0f, size - std::pow(size, p - 1) / beta), error);
      };
      float error = 0, offset = 0;
      for (const float x : w) {
        const float code = now.code(x), left = x - (code - now.zero) * now.step;
        error += std::abs(left);
        offset += code - (x - prox(left)) / now.step;
      }
      if (error >= least) break;
      least = error;
      best = now;
      now.zero = offset / float(w.size());
    }
    return best;
  }
};

}  // namespace cafeq::accuracy::peers
