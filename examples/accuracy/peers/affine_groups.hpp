/// What peers share: codes of some bits with an fp16 scale and an fp16 offset for each group of
/// weights in a row.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>

#include "cafeq/core/matrix.hpp"

namespace cafeq::accuracy::peers {

/// Values (code − zero) · step of codes from 0 to `levels` − 1.
struct AffineGroup {
  float step = 1, zero = 0;
  int levels = 2;

  float code(float w) const {
    return std::clamp(std::round(w / step + zero), 0.0f, float(levels - 1));
  }
  float operator()(float w) const { return step == 0 ? 0 : (code(w) - zero) * step; }
  /// As it is stored.
  AffineGroup rounded() const { return {float(fp16(step)), float(fp16(zero)), levels}; }
};

/// From the least of the weights to the largest.
inline AffineGroup min_max(std::span<const float> weights, int bits) {
  const auto [least, most] = std::minmax_element(weights.begin(), weights.end());
  const int levels = 1 << bits;
  const float step = std::max(*most - *least, 1e-8f) / float(levels - 1);
  return {step, -*least / step, levels};
}

/// Of a weight: its code, and its part of the scale and the offset.
constexpr double affine_bits(int bits, Index group) { return bits + 32.0 / double(group); }

}  // namespace cafeq::accuracy::peers
