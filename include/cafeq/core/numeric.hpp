/// Scalar types and the arithmetic that every floor shares: Index, bf16, fp16, exact scaling by
/// powers of two.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "cafeq/config/config.hpp"

namespace cafeq {

/// Sizes, positions and strides, signed so that differences and negative strides are plain
/// arithmetic.
using Index = std::ptrdiff_t;

namespace detail {

// Conversions have no branches, so that loops over them become vectors.

/// condition ? yes : no, by masks, which no compiler turns back into a branch.
inline std::uint32_t choose(bool condition, std::uint32_t yes, std::uint32_t no) noexcept {
  const std::uint32_t mask = 0u - std::uint32_t(condition);
  return (yes & mask) | (no & ~mask);
}

/// IEEE binary16 to binary32; exact.
inline float half_to_float(std::uint16_t half) noexcept {
  const std::uint32_t sign = std::uint32_t(half & 0x8000u) << 16;
  const std::uint32_t magnitude = std::uint32_t(half & 0x7fffu) << 13;
  const std::uint32_t not_finite = choose(magnitude >= 0x0f800000u, 0x7f800000u, 0u);
  // Moves the exponent from bias 15 to bias 127; subnormals come out normalised by the
  // multiplication.
  return std::bit_cast<float>(
      std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f) | not_finite | sign);
}

/// binary32 to binary16, ties to even; overflow gives infinity, NaN stays NaN.
inline std::uint16_t float_to_half(float value) noexcept {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  // A subnormal counts units of 2^-24, which is what the last place of numbers in [0.5, 1) is
  // worth.
  const std::uint32_t subnormal =
      std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  const std::uint32_t normal = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - (112u << 23)) >> 13;
  const std::uint32_t finite = choose(magnitude < 0x38800000u, subnormal, normal);
  const std::uint32_t too_large = choose(magnitude > 0x7f800000u, 0x7e00u, 0x7c00u);
  // 65520 and above round to infinity.
  return std::uint16_t(sign | choose(magnitude >= 0x477ff000u, too_large, finite));
}

/// binary32 to bfloat16, ties to even; NaN stays NaN.
inline std::uint16_t float_to_brain(float value) noexcept {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  const std::uint32_t nan = bits | 0x400000u;
  return std::uint16_t(choose((bits & 0x7fffffffu) > 0x7f800000u, nan, rounded) >> 16);
}

}  // namespace detail

/// IEEE half precision as storage: converts to float exactly, from float with ties to even.
struct fp16 {
  std::uint16_t bits = 0;
  fp16() = default;
  explicit fp16(float value) noexcept : bits(detail::float_to_half(value)) {}
  operator float() const noexcept {
    return detail::half_to_float(bits);
  }  // NOLINT(google-explicit-constructor)
  static fp16 from_bits(std::uint16_t bits) noexcept {
    fp16 value;
    value.bits = bits;
    return value;
  }
};

/// bfloat16 as storage: the upper half of a float, rounded with ties to even.
struct bf16 {
  std::uint16_t bits = 0;
  bf16() = default;
  explicit bf16(float value) noexcept : bits(detail::float_to_brain(value)) {}
  operator float() const noexcept {
    return std::bit_cast<float>(std::uint32_t(bits) << 16);
  }  // NOLINT
  static bf16 from_bits(std::uint16_t bits) noexcept {
    bf16 value;
    value.bits = bits;
    return value;
  }
};

/// The element types of a matrix view.
template <class T>
concept Element =
    std::is_same_v<std::remove_const_t<T>, float> ||
    std::is_same_v<std::remove_const_t<T>, double> ||
    std::is_same_v<std::remove_const_t<T>, bf16> || std::is_same_v<std::remove_const_t<T>, fp16>;

namespace detail {

/// double to any element type; narrow ones by way of float.
template <Element T>
T narrow(double value) noexcept {
  return static_cast<T>(
      static_cast<std::conditional_t<std::is_same_v<T, double>, double, float>>(value));
}

}  // namespace detail

/// The largest finite half; scales are kept below it.
inline constexpr float fp16_max = 65504.0f;
namespace detail {

/// The smallest positive half.
inline constexpr float fp16_min = 0x1p-24f;

/// A positive number as fp16, never zero and never infinite.
inline fp16 positive_fp16(float value) noexcept {
  if (!(value > fp16_min)) return fp16(fp16_min);
  return fp16(value < fp16_max ? value : fp16_max);
}

}  // namespace detail

/// Exponent e with 2^e <= |value| < 2^(e+1); 0 for zero.
inline int floor_log2(double value) noexcept { return value == 0 ? 0 : std::ilogb(value); }

/// Multiplies by 2^e for any e that doubles can meet; exact unless the result is subnormal or
/// overflows.
class PowerOfTwo {
 public:
  explicit PowerOfTwo(int e) noexcept
      : first_(std::ldexp(1.0, e / 2)), second_(std::ldexp(1.0, e - e / 2)) {}
  double operator()(double x) const noexcept { return x * first_ * second_; }

 private:
  double first_;
  double second_;
};

inline constexpr Index ceil_div(Index a, Index b) noexcept { return (a + b - 1) / b; }
inline constexpr bool is_power_of_two(Index n) noexcept { return n > 0 && (n & (n - 1)) == 0; }
namespace detail {

/// The largest power of two that is at most n, for n >= 1.
inline constexpr Index floor_power_of_two(Index n) noexcept {
  return Index(std::bit_floor(std::size_t(n)));
}

}  // namespace detail

}  // namespace cafeq
