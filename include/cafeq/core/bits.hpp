/// Elements read as integers: the magnitudes of floats of one type are ordered as their bits are, infinity above all numbers and NaN above infinity.
///
/// So one integer maximum finds the largest magnitude and whatever is not finite, and one or-ed difference tells whether all elements are equal: loops
/// without a branch, which compilers turn into vectors by themselves.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "cafeq/core/numeric.hpp"

namespace cafeq::detail {

/// How the bits of an element type are read. Bits is signed, since magnitudes are not negative and SSE2 compares signed integers only.
template <class T>
struct ElementBits;

template <>
struct ElementBits<float> {
  using Bits = std::int32_t;
  static constexpr Bits infinity = 0x7f800000;
  static Bits of(float x) noexcept { return std::bit_cast<Bits>(x); }
  static float value(Bits bits) noexcept { return std::bit_cast<float>(bits); }
};

template <>
struct ElementBits<double> {
  using Bits = std::int64_t;
  static constexpr Bits infinity = 0x7ff0000000000000;
  static Bits of(double x) noexcept { return std::bit_cast<Bits>(x); }
  static double value(Bits bits) noexcept { return std::bit_cast<double>(bits); }
};

template <>
struct ElementBits<bf16> {
  using Bits = std::int16_t;
  static constexpr Bits infinity = 0x7f80;
  static Bits of(bf16 x) noexcept { return Bits(x.bits); }
  static bf16 value(Bits bits) noexcept { return bf16::from_bits(std::uint16_t(bits)); }
};

template <>
struct ElementBits<fp16> {
  using Bits = std::int16_t;
  static constexpr Bits infinity = 0x7c00;
  static Bits of(fp16 x) noexcept { return Bits(x.bits); }
  static fp16 value(Bits bits) noexcept { return fp16::from_bits(std::uint16_t(bits)); }
};

/// What a pass over elements finds in their bits.
template <class T>
struct BitScan {
  using Element = ElementBits<T>;
  using Bits = typename Element::Bits;
  static constexpr Bits magnitude_mask = std::numeric_limits<Bits>::max();

  Bits largest = 0;     ///< the largest magnitude, NaN included
  Bits difference = 0;  ///< zero where all elements have the same bits as `first`
  Bits first = 0;

  BitScan() = default;
  explicit BitScan(T start) noexcept : first(Element::of(start)) {}

  void line(const T* x, Index n, Index stride) noexcept {
    if (stride == 1) walk(x, n, std::integral_constant<Index, 1>{});
    else walk(x, n, stride);
  }
  void merge(const BitScan& other) noexcept {
    largest = largest < other.largest ? other.largest : largest;
    difference = Bits(difference | other.difference | (first ^ other.first));
  }

  double largest_value() const noexcept { return double(Element::value(largest)); }
  bool finite() const noexcept { return largest < Element::infinity; }
  bool has_nan() const noexcept { return largest > Element::infinity; }
  /// Whether all elements are equal and not zero. Both zeros are equal, but then no element counts.
  bool constant() const noexcept { return difference == 0 && (first & magnitude_mask) != 0 && !has_nan(); }

 private:
  template <class Stride>
  void walk(const T* x, Index n, Stride stride) noexcept {
    Bits most = largest;
    Bits different = difference;
    for (Index j = 0; j < n; ++j) {
      const Bits bits = Element::of(x[j * stride]);
      const Bits magnitude = Bits(bits & magnitude_mask);
      most = most < magnitude ? magnitude : most;
      different = Bits(different | (bits ^ first));
    }
    largest = most;
    difference = different;
  }
};

}  // namespace cafeq::detail
