/// Integer grids: Affine (scale and offset), AffineIntegerZero (scale and integer zero point),
/// Symmetric (scale alone).
///
///   Affine             x̂ = s·q + z,       q = clamp(round((x − z)/s), 0, 2^b − 1)
///   AffineIntegerZero  x̂ = s·(q − zero),  zero in 0 … 2^b − 1
///   Symmetric          x̂ = s·q,           q in −2^(b−1) … 2^(b−1) − 1
///
/// They store 32, 16 + b and 16 bits a group: scales and offsets are fp16. Ties go to the even q.
/// Affine<4> has four bits, Affine<>{.bits = b} those that are chosen at run time.
#pragma once

#include "cafeq/quant/grid.hpp"
#include "cafeq/quant/zero_point.hpp"

namespace cafeq {

/// 0 … 2^bits − 1, from the offset up.
struct AffineLevels {
  static constexpr std::string_view name = "affine";
  static constexpr UniformLevels<true> of(int bits) noexcept { return {0, float((1 << bits) - 1)}; }
};

/// A group whose weights differ by less than fp16 tells apart has scale 0 and is its offset.
template <int Bits = runtime_bits>
using Affine = Grid<AffineLevels, Fp16ScaleOffset, Bits>;

/// 0 … 2^bits − 1, from minus the zero point up.
struct ZeroPointLevels {
  static constexpr std::string_view name = "affine_integer_zero";
  static constexpr UniformLevels<false> of(int bits) noexcept {
    return {0, float((1 << bits) - 1)};
  }
};

/// Zero is always one of the levels.
template <int Bits = runtime_bits>
using AffineIntegerZero = Grid<ZeroPointLevels, Fp16ScaleZero, Bits>;

/// −2^(bits−1) … 2^(bits−1) − 1; codes are q + 2^(bits−1).
struct SymmetricLevels {
  static constexpr std::string_view name = "symmetric";
  static constexpr UniformLevels<false> of(int bits) noexcept {
    return {-float(1 << (bits - 1)), float((1 << (bits - 1)) - 1)};
  }
};

/// The search looks at both signs of the scale, since the end with one more level may be needed on
/// either side. minmax and absmax: s = absmax/(2^(b−1) − 1), the lowest level unused.
template <int Bits = runtime_bits>
using Symmetric = Grid<SymmetricLevels, Fp16Scale<ScaleSigns::both>, Bits>;

}  // namespace cafeq
