/// The operations of byte_ops.hpp by plain loops: their meaning, and the way of every architecture
/// that has no shuffles of bytes.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace cafeq::simd {

template <class Arch>
struct PortableByteOps {
  /// Whether look-ups by shuffle() are faster than reads of a table.
  static constexpr bool fast = false;
  struct Vector {
    alignas(32) std::array<std::uint8_t, 32> byte;
  };
  /// Eight floats.
  struct Floats {
    alignas(32) std::array<float, 8> lane;
  };

  static Vector load(const void* p) noexcept {
    Vector v;
    std::memcpy(v.byte.data(), p, 32);
    return v;
  }
  /// The same 16 bytes in both halves.
  static Vector load_half(const void* p) noexcept {
    Vector v;
    std::memcpy(v.byte.data(), p, 16);
    std::memcpy(v.byte.data() + 16, p, 16);
    return v;
  }
  static void store(void* p, const Vector& v) noexcept { std::memcpy(p, v.byte.data(), 32); }
  static Vector zero() noexcept { return set8(0); }
  static Vector set8(int x) noexcept {
    Vector v;
    v.byte.fill(std::uint8_t(x));
    return v;
  }
  static Vector set16(int x) noexcept {
    std::array<std::uint16_t, 16> lane;
    lane.fill(std::uint16_t(x));
    return join(lane);
  }

  /// Byte i of the result is the byte of the same half of v that the low 4 bits of byte i of index
  /// name, or 0 where its top bit is set.
  static Vector shuffle(const Vector& v, const Vector& index) noexcept {
    Vector r;
    for (std::size_t i = 0; i < 32; ++i)
      r.byte[i] = index.byte[i] & 0x80 ? std::uint8_t(0) : v.byte[(i & 16) | (index.byte[i] & 15)];
    return r;
  }
  /// Counts below 32.
  static Vector shift_left32(const Vector& v, const Vector& count) noexcept {
    return map<std::uint32_t>(v, count, [](std::uint32_t a, std::uint32_t b) { return a << b; });
  }
  static Vector shift_right32(const Vector& v, const Vector& count) noexcept {
    return map<std::uint32_t>(v, count, [](std::uint32_t a, std::uint32_t b) { return a >> b; });
  }
  /// Zeros come in.
  template <int Count>
  static Vector shift_right16(const Vector& v) noexcept {
    return map<std::uint16_t>(
        v, v, [](std::uint16_t a, std::uint16_t) { return std::uint16_t(a >> Count); });
  }
  /// The even lanes of one and the odd lanes of the other, of 16 bits or of 8.
  static Vector merge16(const Vector& even, const Vector& odd) noexcept {
    Vector r = even;
    for (std::size_t i = 0; i < 32; ++i)
      if (i & 2) r.byte[i] = odd.byte[i];
    return r;
  }
  static Vector merge8(const Vector& even, const Vector& odd) noexcept {
    Vector r = even;
    for (std::size_t i = 1; i < 32; i += 2) r.byte[i] = odd.byte[i];
    return r;
  }
  static Vector bit_and(const Vector& a, const Vector& b) noexcept {
    return map<std::uint32_t>(a, b, [](std::uint32_t s, std::uint32_t t) { return s & t; });
  }
  static Vector bit_or(const Vector& a, const Vector& b) noexcept {
    return map<std::uint32_t>(a, b, [](std::uint32_t s, std::uint32_t t) { return s | t; });
  }
  static Vector bit_xor(const Vector& a, const Vector& b) noexcept {
    return map<std::uint32_t>(a, b, [](std::uint32_t s, std::uint32_t t) { return s ^ t; });
  }
  static Vector add8(const Vector& a, const Vector& b) noexcept {
    return map<std::uint8_t>(a, b,
                             [](std::uint8_t s, std::uint8_t t) { return std::uint8_t(s + t); });
  }
  static Vector sub8(const Vector& a, const Vector& b) noexcept {
    return map<std::uint8_t>(a, b,
                             [](std::uint8_t s, std::uint8_t t) { return std::uint8_t(s - t); });
  }
  /// Of unsigned bytes.
  static Vector min8(const Vector& a, const Vector& b) noexcept {
    return map<std::uint8_t>(a, b, [](std::uint8_t s, std::uint8_t t) { return s < t ? s : t; });
  }
  /// a where s > 0, −a where s < 0, 0 where s = 0, of signed bytes; a is not −128.
  static Vector sign8(const Vector& a, const Vector& s) noexcept {
    return map<std::int8_t>(a, s, [](std::int8_t t, std::int8_t u) {
      return std::int8_t(u > 0 ? t : u < 0 ? -t : 0);
    });
  }

  /// The signed low byte of each 16-bit lane, and the high one.
  static Vector even8(const Vector& v) noexcept {
    return map<std::uint16_t>(
        v, v, [](std::uint16_t a, std::uint16_t) { return std::uint16_t(std::int8_t(a & 0xff)); });
  }
  static Vector odd8(const Vector& v) noexcept {
    return map<std::uint16_t>(
        v, v, [](std::uint16_t a, std::uint16_t) { return std::uint16_t(std::int8_t(a >> 8)); });
  }
  /// Signed 16-bit lanes that fit in signed bytes: those of a, then those of b.
  static Vector narrow16(const Vector& a, const Vector& b) noexcept {
    Vector r;
    for (std::size_t i = 0; i < 16; ++i) {
      r.byte[i] = a.byte[2 * i];
      r.byte[16 + i] = b.byte[2 * i];
    }
    return r;
  }
  /// The low 16 bits of products of 16-bit lanes.
  static Vector multiply16(const Vector& a, const Vector& b) noexcept {
    return map<std::uint16_t>(
        a, b, [](std::uint16_t s, std::uint16_t t) { return std::uint16_t(std::uint32_t(s) * t); });
  }
  /// Sum plus, in each 32-bit lane, the products of its signed 16-bit lanes.
  static Vector add_products16(const Vector& sum, const Vector& a, const Vector& b) noexcept {
    const auto s = split<std::int16_t>(a), t = split<std::int16_t>(b);
    auto r = split<std::uint32_t>(sum);
    for (std::size_t l = 0; l < 8; ++l)
      r[l] += std::uint32_t(s[2 * l] * t[2 * l]) + std::uint32_t(s[2 * l + 1] * t[2 * l + 1]);
    return join(r);
  }
  /// Sum plus, in each 32-bit lane, the products of its four bytes: unsigned ones of a, at most
  /// 127, times signed ones of b, at least −127.
  static Vector add_products8(const Vector& sum, const Vector& a, const Vector& b) noexcept {
    const auto t = split<std::int8_t>(b);
    auto r = split<std::uint32_t>(sum);
    for (std::size_t i = 0; i < 32; ++i) r[i / 4] += std::uint32_t(a.byte[i] * t[i]);
    return join(r);
  }
  /// The sum of all signed 32-bit lanes.
  static std::int64_t sum32(const Vector& v) noexcept {
    std::int64_t sum = 0;
    for (const std::int32_t lane : split<std::int32_t>(v)) sum += lane;
    return sum;
  }

  static Floats zero_floats() noexcept { return {}; }
  /// Sum plus factor times the signed 32-bit lanes as floats, rounded once where the architecture
  /// can.
  static Floats add_scaled32(const Floats& sum, const Vector& v, float factor) noexcept {
    const auto lane = split<std::int32_t>(v);
    Floats r;
    for (std::size_t l = 0; l < 8; ++l) r.lane[l] = sum.lane[l] + factor * float(lane[l]);
    return r;
  }
  /// As a tree of halves.
  static float sum_floats(Floats v) noexcept {
    for (std::size_t half = 4; half > 0; half /= 2)
      for (std::size_t l = 0; l < half; ++l) v.lane[l] += v.lane[l + half];
    return v.lane[0];
  }

 private:
  template <class T>
  static std::array<T, 32 / sizeof(T)> split(const Vector& v) noexcept {
    return std::bit_cast<std::array<T, 32 / sizeof(T)>>(v.byte);
  }
  template <class T, std::size_t N>
  static Vector join(const std::array<T, N>& lane) noexcept {
    return {std::bit_cast<std::array<std::uint8_t, 32>>(lane)};
  }
  template <class T, class F>
  static Vector map(const Vector& a, const Vector& b, F&& f) noexcept {
    const auto s = split<T>(a), t = split<T>(b);
    std::array<T, 32 / sizeof(T)> r;
    for (std::size_t l = 0; l < r.size(); ++l) r[l] = f(s[l], t[l]);
    return join(r);
  }
};

}  // namespace cafeq::simd
