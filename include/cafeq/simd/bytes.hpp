/// 32 bytes as one vector: look-ups of bytes, shifts of each 32-bit lane by its own count, products
/// of 8- and 16-bit lanes.
///
/// ByteOps<Arch> is a set of static functions over its type Vector. It has the same 32 bytes
/// whatever the architecture, so that what is laid out for it, and every integer that comes out of
/// it, is the same everywhere: one register of AVX2, two of NEON, an array in the generic branch.
/// "Half" is 16 bytes. Lanes are little endian, and integer arithmetic wraps.
/// Longer than most headers: each operation has a branch for three kinds of registers.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "cafeq/config/config.hpp"
#include "cafeq/simd/fma.hpp"

namespace cafeq::simd {

/// Plain loops, for architectures without shuffles of bytes.
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

/// The functions of PortableByteOps, in registers where the architecture has shuffles of bytes.
template <class Arch>
struct ByteOps : PortableByteOps<Arch> {};

#if defined(__AVX2__)
template <class Arch>
  requires(is_avx2<Arch> || is_avx512<Arch>)
struct ByteOps<Arch> {
  static constexpr bool fast = true;
  using Vector = __m256i;
  using Floats = __m256;

  static Vector load(const void* p) noexcept {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  }
  static Vector load_half(const void* p) noexcept {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  }
  static void store(void* p, Vector v) noexcept {
    _mm256_storeu_si256(static_cast<__m256i*>(p), v);
  }
  static Vector zero() noexcept { return _mm256_setzero_si256(); }
  static Vector set8(int x) noexcept { return _mm256_set1_epi8(static_cast<char>(x)); }
  static Vector set16(int x) noexcept { return _mm256_set1_epi16(static_cast<short>(x)); }

  static Vector shuffle(Vector v, Vector index) noexcept { return _mm256_shuffle_epi8(v, index); }
  static Vector shift_left32(Vector v, Vector count) noexcept {
    return _mm256_sllv_epi32(v, count);
  }
  static Vector shift_right32(Vector v, Vector count) noexcept {
    return _mm256_srlv_epi32(v, count);
  }
  template <int Count>
  static Vector shift_right16(Vector v) noexcept {
    return _mm256_srli_epi16(v, Count);
  }
  static Vector merge16(Vector even, Vector odd) noexcept {
    return _mm256_blend_epi16(even, odd, 0xaa);
  }
  static Vector merge8(Vector even, Vector odd) noexcept {
    return _mm256_blendv_epi8(even, odd, _mm256_set1_epi16(static_cast<short>(0xff00)));
  }
  static Vector bit_and(Vector a, Vector b) noexcept { return _mm256_and_si256(a, b); }
  static Vector bit_or(Vector a, Vector b) noexcept { return _mm256_or_si256(a, b); }
  static Vector bit_xor(Vector a, Vector b) noexcept { return _mm256_xor_si256(a, b); }
  static Vector add8(Vector a, Vector b) noexcept { return _mm256_add_epi8(a, b); }
  static Vector sub8(Vector a, Vector b) noexcept { return _mm256_sub_epi8(a, b); }
  static Vector min8(Vector a, Vector b) noexcept { return _mm256_min_epu8(a, b); }
  static Vector sign8(Vector a, Vector s) noexcept { return _mm256_sign_epi8(a, s); }

  static Vector even8(Vector v) noexcept { return _mm256_maddubs_epi16(_mm256_set1_epi16(1), v); }
  static Vector odd8(Vector v) noexcept { return _mm256_srai_epi16(v, 8); }
  static Vector narrow16(Vector a, Vector b) noexcept {
    return _mm256_permute4x64_epi64(_mm256_packs_epi16(a, b), 0xd8);
  }
  static Vector multiply16(Vector a, Vector b) noexcept { return _mm256_mullo_epi16(a, b); }
  static Vector add_products16(Vector sum, Vector a, Vector b) noexcept {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
  }
  static Vector add_products8(Vector sum, Vector a, Vector b) noexcept {
    return _mm256_add_epi32(sum,
                            _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)));
  }
  static std::int64_t sum32(Vector v) noexcept {
    const __m256i pairs = _mm256_add_epi64(_mm256_cvtepi32_epi64(_mm256_castsi256_si128(v)),
                                           _mm256_cvtepi32_epi64(_mm256_extracti128_si256(v, 1)));
    const __m128i two =
        _mm_add_epi64(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    return _mm_cvtsi128_si64(two) + _mm_extract_epi64(two, 1);
  }

  static Floats zero_floats() noexcept { return _mm256_setzero_ps(); }
  static Floats add_scaled32(Floats sum, Vector v, float factor) noexcept {
#if defined(__FMA__)
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(v), _mm256_set1_ps(factor), sum);
#else
    return _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(v), _mm256_set1_ps(factor)), sum);
#endif
  }
  static float sum_floats(Floats v) noexcept {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
};
#endif

#if defined(__aarch64__)
template <class Arch>
  requires is_neon64<Arch>
struct ByteOps<Arch> {
  static constexpr bool fast = true;
  struct Vector {
    uint8x16_t half[2];
  };
  struct Floats {
    float32x4_t half[2];
  };

  static Vector load(const void* p) noexcept {
    const std::uint8_t* bytes = static_cast<const std::uint8_t*>(p);
    return {vld1q_u8(bytes), vld1q_u8(bytes + 16)};
  }
  static Vector load_half(const void* p) noexcept {
    const uint8x16_t half = vld1q_u8(static_cast<const std::uint8_t*>(p));
    return {half, half};
  }
  static void store(void* p, const Vector& v) noexcept {
    vst1q_u8(static_cast<std::uint8_t*>(p), v.half[0]);
    vst1q_u8(static_cast<std::uint8_t*>(p) + 16, v.half[1]);
  }
  static Vector zero() noexcept { return set8(0); }
  static Vector set8(int x) noexcept {
    return {vdupq_n_u8(std::uint8_t(x)), vdupq_n_u8(std::uint8_t(x))};
  }
  static Vector set16(int x) noexcept {
    const uint8x16_t half = vreinterpretq_u8_u16(vdupq_n_u16(std::uint16_t(x)));
    return {half, half};
  }

  /// The instruction gives 0 for any index past 15.
  static Vector shuffle(const Vector& v, const Vector& index) noexcept {
    return map(v, index, [](uint8x16_t a, uint8x16_t i) {
      return vqtbl1q_u8(a, vandq_u8(i, vdupq_n_u8(0x8f)));
    });
  }
  static Vector shift_left32(const Vector& v, const Vector& count) noexcept {
    return map(v, count, [](uint8x16_t a, uint8x16_t c) {
      return bytes(vshlq_u32(words(a), vreinterpretq_s32_u8(c)));
    });
  }
  static Vector shift_right32(const Vector& v, const Vector& count) noexcept {
    return map(v, count, [](uint8x16_t a, uint8x16_t c) {
      return bytes(vshlq_u32(words(a), vnegq_s32(vreinterpretq_s32_u8(c))));
    });
  }
  template <int Count>
  static Vector shift_right16(const Vector& v) noexcept {
    return map(v, v, [](uint8x16_t a, uint8x16_t) {
      return vreinterpretq_u8_u16(vshrq_n_u16(vreinterpretq_u16_u8(a), Count));
    });
  }
  static Vector merge16(const Vector& even, const Vector& odd) noexcept {
    return map(even, odd, [](uint8x16_t a, uint8x16_t b) {
      return vbslq_u8(bytes(vdupq_n_u32(0xffff0000u)), b, a);
    });
  }
  static Vector merge8(const Vector& even, const Vector& odd) noexcept {
    return map(even, odd, [](uint8x16_t a, uint8x16_t b) {
      return vbslq_u8(bytes(vdupq_n_u32(0xff00ff00u)), b, a);
    });
  }
  static Vector bit_and(const Vector& a, const Vector& b) noexcept {
    return map(a, b, [](uint8x16_t s, uint8x16_t t) { return vandq_u8(s, t); });
  }
  static Vector bit_or(const Vector& a, const Vector& b) noexcept {
    return map(a, b, [](uint8x16_t s, uint8x16_t t) { return vorrq_u8(s, t); });
  }
  static Vector bit_xor(const Vector& a, const Vector& b) noexcept {
    return map(a, b, [](uint8x16_t s, uint8x16_t t) { return veorq_u8(s, t); });
  }
  static Vector add8(const Vector& a, const Vector& b) noexcept {
    return map(a, b, [](uint8x16_t s, uint8x16_t t) { return vaddq_u8(s, t); });
  }
  static Vector sub8(const Vector& a, const Vector& b) noexcept {
    return map(a, b, [](uint8x16_t s, uint8x16_t t) { return vsubq_u8(s, t); });
  }
  static Vector min8(const Vector& a, const Vector& b) noexcept {
    return map(a, b, [](uint8x16_t s, uint8x16_t t) { return vminq_u8(s, t); });
  }
  static Vector sign8(const Vector& a, const Vector& s) noexcept {
    return map(a, s, [](uint8x16_t t, uint8x16_t u) {
      const int8x16_t value = vreinterpretq_s8_u8(t), sign = vreinterpretq_s8_u8(u);
      return vbicq_u8(vreinterpretq_u8_s8(vbslq_s8(vcltzq_s8(sign), vnegq_s8(value), value)),
                      vceqzq_s8(sign));
    });
  }

  static Vector even8(const Vector& v) noexcept {
    return map(v, v, [](uint8x16_t a, uint8x16_t) {
      return vreinterpretq_u8_s16(vshrq_n_s16(vshlq_n_s16(vreinterpretq_s16_u8(a), 8), 8));
    });
  }
  static Vector odd8(const Vector& v) noexcept {
    return map(v, v, [](uint8x16_t a, uint8x16_t) {
      return vreinterpretq_u8_s16(vshrq_n_s16(vreinterpretq_s16_u8(a), 8));
    });
  }
  static Vector narrow16(const Vector& a, const Vector& b) noexcept {
    return {vuzp1q_u8(a.half[0], a.half[1]), vuzp1q_u8(b.half[0], b.half[1])};
  }
  static Vector multiply16(const Vector& a, const Vector& b) noexcept {
    return map(a, b, [](uint8x16_t s, uint8x16_t t) {
      return vreinterpretq_u8_u16(vmulq_u16(vreinterpretq_u16_u8(s), vreinterpretq_u16_u8(t)));
    });
  }
  static Vector add_products16(const Vector& sum, const Vector& a, const Vector& b) noexcept {
    const auto one = [&](int h) {
      const int16x8_t s = vreinterpretq_s16_u8(a.half[h]), t = vreinterpretq_s16_u8(b.half[h]);
      const int32x4_t products =
          vpaddq_s32(vmull_s16(vget_low_s16(s), vget_low_s16(t)), vmull_high_s16(s, t));
      return vreinterpretq_u8_s32(vaddq_s32(vreinterpretq_s32_u8(sum.half[h]), products));
    };
    return {one(0), one(1)};
  }
  static Vector add_products8(const Vector& sum, const Vector& a, const Vector& b) noexcept {
    const auto one = [&](int h) {
      const int8x16_t s = vreinterpretq_s8_u8(a.half[h]), t = vreinterpretq_s8_u8(b.half[h]);
      const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(s), vget_low_s8(t))),
                      high = vpaddlq_s16(vmull_high_s8(s, t));
      return vreinterpretq_u8_s32(
          vaddq_s32(vreinterpretq_s32_u8(sum.half[h]), vpaddq_s32(low, high)));
    };
    return {one(0), one(1)};
  }
  static std::int64_t sum32(const Vector& v) noexcept {
    return vaddlvq_s32(vreinterpretq_s32_u8(v.half[0])) +
           vaddlvq_s32(vreinterpretq_s32_u8(v.half[1]));
  }

  static Floats zero_floats() noexcept { return {vdupq_n_f32(0), vdupq_n_f32(0)}; }
  static Floats add_scaled32(const Floats& sum, const Vector& v, float factor) noexcept {
    const auto one = [&](int h) {
      return vfmaq_n_f32(sum.half[h], vcvtq_f32_s32(vreinterpretq_s32_u8(v.half[h])), factor);
    };
    return {one(0), one(1)};
  }
  static float sum_floats(const Floats& v) noexcept {
    const float32x4_t four = vaddq_f32(v.half[0], v.half[1]);
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
  }

 private:
  static uint32x4_t words(uint8x16_t v) noexcept { return vreinterpretq_u32_u8(v); }
  static uint8x16_t bytes(uint32x4_t v) noexcept { return vreinterpretq_u8_u32(v); }
  template <class F>
  static Vector map(const Vector& a, const Vector& b, F&& f) noexcept {
    return {f(a.half[0], b.half[0]), f(a.half[1], b.half[1])};
  }
};
#endif

}  // namespace cafeq::simd
