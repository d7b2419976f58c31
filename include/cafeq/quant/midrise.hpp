/// Midrise<Bits>: x̂ = (c + ½)·s with c = clamp(⌊x/s⌋, −m, m − 1), m = 2^(Bits−1). An even number of
/// levels, symmetric about a zero that is none of them; one positive fp16 scale a group, 16/g bits
/// a weight.
#pragma once

#include "cafeq/quant/grid.hpp"

namespace cafeq {

/// −m + ½ … m − ½; codes are c + m.
struct MidriseLevels {
  static constexpr std::string_view name = "midrise";
  static constexpr UniformLevels<false, true> of(int bits) noexcept {
    return {-float(1 << (bits - 1)), float((1 << (bits - 1)) - 1)};
  }
};

/// A group of zeros has scale 0, at which every code is zero. minmax and absmax: the outermost
/// levels are ±absmax. Midrise<>{.bits = b} chooses the bits at run time.
template <int Bits = runtime_bits>
using Midrise = Grid<MidriseLevels, Fp16Scale<>, Bits>;

}  // namespace cafeq
