// A midrise grid with one unrounded scale a group: what the golden values assume, and a minimal
// LinearGrid.
#pragma once
#include <algorithm>
#include <cmath>

#include "cafeq/quant/grid.hpp"

namespace cafeq::test {

struct ToyMidrise {
  struct Params {
    float scale = 0;
  };
  static constexpr bool has_offset = false;
  int bits = 3;
  Index group = per_row;

  Params fit(std::span<const float> x) const {
    float largest = 0;
    for (const float v : x) largest = std::max(largest, std::abs(v));
    return {largest / (float(1 << (bits - 1)) - 0.5f)};
  }
  std::uint8_t encode(float x, Params p) const {
    const float m = float(1 << (bits - 1));
    return p.scale == 0 ? std::uint8_t(m)
                        : std::uint8_t(std::clamp(std::floor(x / p.scale), -m, m - 1) + m);
  }
  float level(std::uint8_t code) const { return float(code) - float(1 << (bits - 1)) + 0.5f; }
  float decode(std::uint8_t code, Params p) const { return p.scale * level(code); }
  float scale(Params p) const { return p.scale; }
  float offset(Params) const { return 0; }
  Params with_scale(Params p, float scale, float) const {
    return std::isfinite(scale) && scale > 0 ? Params{scale} : p;
  }
};

}  // namespace cafeq::test
