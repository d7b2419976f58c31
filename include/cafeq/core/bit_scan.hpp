/// Elements read as integers: the magnitudes of floats of one type are ordered as their bits are,
/// infinity above all numbers and NaN above infinity.
///
/// So one integer maximum finds the largest magnitude and whatever is not finite, and one or-ed
/// difference tells whether all elements are equal: loops without a branch, which compilers turn
/// into vectors by themselves.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <type_traits>

#include "cafeq/core/view.hpp"

namespace cafeq::detail {

/// How the bits of an element type are read. Bits is signed, since magnitudes are not negative and
/// SSE2 compares signed integers only.
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

  /// Adds n elements at x, x + stride, ….
  void line(const T* x, Index n, Index stride) noexcept {
#if defined(__GNUC__)
    if (stride == 1 && n >= step) return long_line(x, n);
#endif
    for (Index j = 0; j < n; ++j) add(Element::of(x[j * stride]));
  }
  /// Adds what another pass has found.
  void merge(const BitScan& other) noexcept {
    largest = largest < other.largest ? other.largest : largest;
    difference = Bits(difference | other.difference | (first ^ other.first));
  }

  double largest_value() const noexcept { return double(Element::value(largest)); }
  bool finite() const noexcept { return largest < Element::infinity; }
  bool has_nan() const noexcept { return largest > Element::infinity; }
  /// Whether all elements are equal and not zero. Both zeros are equal, but then no element counts.
  bool constant() const noexcept {
    return difference == 0 && (first & magnitude_mask) != 0 && !has_nan();
  }

 private:
  void add(Bits bits) noexcept {
    const Bits magnitude = Bits(bits & magnitude_mask);
    largest = largest < magnitude ? magnitude : largest;
    difference = Bits(difference | (bits ^ first));
  }

#if defined(__GNUC__)
  typedef Bits Lanes __attribute__((vector_size(32)));
  static constexpr int chains = 4;  // of maxima: a single one would wait for itself
  static constexpr Index lanes = Index(sizeof(Lanes) / sizeof(T));
  static constexpr Index step = chains * lanes;

  void long_line(const T* x, Index n) noexcept {
    const Lanes mask = Lanes{} + magnitude_mask;  // the same in every lane
    const Lanes like = Lanes{} + first;
    Lanes most[chains] = {}, different[chains] = {};
    for (Index j = 0; j < n; j += step) {
      // The last step meets some elements again, which changes nothing.
      const T* from = x + std::min(j, n - step);
      CAFEQ_UNROLL
      for (int c = 0; c < chains; ++c) {
        Lanes bits;
        std::memcpy(&bits, from + c * lanes, sizeof bits);
        const Lanes magnitude = bits & mask;
        most[c] = most[c] < magnitude ? magnitude : most[c];
        different[c] |= bits ^ like;
      }
    }

    CAFEQ_UNROLL
    for (int c = 1; c < chains; ++c) {
      most[0] = most[0] < most[c] ? most[c] : most[0];
      different[0] |= different[c];
    }
    for (Index l = 0; l < lanes; ++l) {
      largest = std::max<Bits>(largest, most[0][l]);
      difference = Bits(difference | different[0][l]);
    }
  }
#endif
};

/// Scans the elements of a view that is not empty, along memory.
template <class T>
BitScan<std::remove_const_t<T>> scan_bits(View<T> view) noexcept {
  BitScan<std::remove_const_t<T>> scan(view(0, 0));
  if (view.contiguous()) {
    scan.line(view.data, view.size(), 1);
    return scan;
  }
  if (std::abs(view.col_stride) > std::abs(view.row_stride)) view = view.transposed();
  for (Index i = 0; i < view.rows; ++i)
    scan.line(view.data + i * view.row_stride, view.cols, view.col_stride);
  return scan;
}

}  // namespace cafeq::detail
