/// Gaussian grids after a Hadamard transform: V. Malinovskii et al., "Pushing the Limits of Large
/// Language Model Quantization via the Linearity Theorem", 2024 (HIGGS).
#pragma once

#include <cmath>
#include <string>

#include "accuracy/peers/gaussian_grid.hpp"
#include "cafeq/core/matrix.hpp"
#include "cafeq/transform/hadamard.hpp"

namespace cafeq::accuracy::peers {

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
      for (float& x : row) x /= scale;
      grid.round(row);
      for (float& x : row) x *= scale;
    }
    transform.apply(result.view(), Op::inverse);
    return result;
  }
};

}  // namespace cafeq::accuracy::peers
