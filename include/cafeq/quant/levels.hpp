/// GridLevels: the levels of a grid in units of its scale, and which code each of them has.
///
/// A weight x with scale s and offset z is u = (x − z)/s in units of the scale; its code names the
/// level l(u) nearest to u, and its value is x̂ = s · l + z. Levels know nothing of scales, and
/// scale formats (quant/scale_format.hpp) nothing of levels: Grid puts them together.
#pragma once

#include <array>
#include <concepts>

#include "cafeq/kernel/codec.hpp"

namespace cafeq {

/// The levels of one grid.
///   has_offset        whether u is (x − z)/s; else x/s, and an offset, if there is one, is a whole
///                     number of levels (HasZeroPoint)
///   levels(u)         the level nearest to u, for a float and for a SIMD batch of them: what the
///                     search for a scale runs on
///   levels.code(u)    the code of that level
///   levels.level(code)
///   levels.reach()    the level of the largest weight where nothing is clipped: fitted to the
///   range
///                     of a group alone, its scale is its largest magnitude over reach()
/// Optional members:
///   levels.unit_scale()   the scale that suits weights of unit variance, where the search starts
///                         once more; without it, it does not (uniform levels have it built in)
///   levels.codes(v)       codes of a SIMD batch, as a batch of floats
///
/// UniformLevels are what packing, rounding and products have their fastest loops for.
template <class L>
concept GridLevels = std::copyable<L> &&
                     requires(const L& levels, float u, const Batch<float>& v, std::uint8_t code) {
                       { L::has_offset } -> std::convertible_to<bool>;
                       { levels(u) } -> std::same_as<float>;
                       { levels(v) } -> std::same_as<Batch<float>>;
                       { levels.code(u) } -> std::same_as<std::uint8_t>;
                       { levels.level(code) } -> std::same_as<float>;
                       { levels.reach() } -> std::convertible_to<float>;
                     };

/// Consecutive integers low … high, or, with Half, those and a half. With HasOffset low must be 0.
template <bool HasOffset, bool Half = false>
using UniformLevels = kernel::UniformLevels<HasOffset, Half>;

/// Levels for every number of bits, of which a grid takes those that it has.
///   family.of(bits)   the levels; no more than 2^bits of them
/// Optional members:
///   name              what a quantized file calls grids of them
///   bits()            the bits that the levels need, where they are a table
///   fault(bits)       what is wrong with the levels, if anything (std::optional<Error>)
template <class F>
concept LevelFamily = std::copyable<F> && requires(const F& family, int bits) {
  { family.of(bits) } -> GridLevels;
};

namespace detail {

template <class L>
inline constexpr bool is_uniform = false;
template <bool HasOffset, bool Half>
inline constexpr bool is_uniform<kernel::UniformLevels<HasOffset, Half>> = true;

/// The step of the uniform grid of 2^bits levels, an even number about zero, that has the least
/// squared error for a Gaussian of unit variance (J. Max, "Quantizing for minimum distortion", IRE
/// Transactions on Information Theory 6, 1960, table II; to more digits by bisection).
constexpr float gaussian_step(int bits) noexcept {
  constexpr std::array<float, 7> steps{0.99568670f, 0.58601945f, 0.33520061f, 0.18813879f,
                                       0.10406301f, 0.05686766f, 0.03076239f};
  return steps[std::size_t(bits < 2 ? 0 : bits > 8 ? 6 : bits - 2)];
}

/// The scale at which levels suit weights of unit variance; 0 where they do not say.
template <GridLevels L>
float unit_scale(const L& levels, int bits) noexcept {
  if constexpr (is_uniform<L>) return gaussian_step(bits);
  else if constexpr (requires { levels.unit_scale(); }) return levels.unit_scale();
  else return 0;
}

}  // namespace detail

}  // namespace cafeq
