/// Floats rounded to bytes, 32 at a time.
///
/// RoundToBytes<Arch, Shifted, Down> makes of every float x the byte
///     clamp(round((x − origin) · factor) + raise, 0, top),
/// where round is to the nearest integer, ties to even, or downwards where Down; without Shifted
/// there is no origin, and with it no raise. The difference is computed before the product, neither
/// of them fused. NaN gives some byte from 0 to top.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "cafeq/config/config.hpp"
#include "cafeq/simd/arch.hpp"

namespace cafeq::simd {

/// By plain loops; `fast` says whether the architecture has something better.
template <class Arch, bool Shifted, bool Down>
class PortableRoundToBytes {
 public:
  static constexpr bool fast = false;

  /// raise within 0 … 32767, top within 0 … 255.
  PortableRoundToBytes(int raise, int top) noexcept : raise_(raise), top_(top) {}
  /// What the floats from here on are measured by.
  void measure(float origin, float factor) noexcept {
    origin_ = origin;
    factor_ = factor;
  }

  /// 32 bytes.
  void store(const float* x, std::uint8_t* bytes) const noexcept {
    for (std::size_t i = 0; i < 32; ++i) bytes[i] = byte(x[i]);
  }
  /// 64 bytes below 16, two to a byte, the first of them in the low bits.
  void store_nibbles(const float* x, std::uint8_t* packed) const noexcept {
    for (std::size_t i = 0; i < 32; ++i)
      packed[i] = std::uint8_t(byte(x[2 * i]) | byte(x[2 * i + 1]) << 4);
  }

 private:
  std::uint8_t byte(float x) const noexcept {
    float u = (Shifted ? x - origin_ : x) * factor_;
    u = (Down ? std::floor(u) : std::nearbyint(u)) + (Shifted ? 0.0f : float(raise_));
    const float raised = u > 0 ? u : 0.0f;  // NaN becomes 0
    return std::uint8_t(raised < float(top_) ? raised : float(top_));
  }

  int raise_, top_;
  float origin_ = 0, factor_ = 1;
};

template <class Arch, bool Shifted, bool Down>
class RoundToBytes : public PortableRoundToBytes<Arch, Shifted, Down> {
 public:
  using PortableRoundToBytes<Arch, Shifted, Down>::PortableRoundToBytes;
};

#if defined(__AVX2__)
template <class Arch, bool Shifted, bool Down>
  requires(is_avx2<Arch> || is_avx512<Arch>)
class RoundToBytes<Arch, Shifted, Down> {
 public:
  static constexpr bool fast = true;

  RoundToBytes(int raise, int top) noexcept
      : raise_(_mm256_set1_epi16(short(raise))), top_(_mm256_set1_epi8(char(top))) {}
  void measure(float origin, float factor) noexcept {
    origin_ = _mm256_set1_ps(origin);
    factor_ = _mm256_set1_ps(factor);
  }

  void store(const float* x, std::uint8_t* bytes) const noexcept {
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(bytes),
                        _mm256_permutevar8x32_epi32(shuffled(x), order));
  }
  void store_nibbles(const float* x, std::uint8_t* packed) const noexcept {
    const __m256i pairs = _mm256_set1_epi16(0x1001);  // byte 2j + 16 · byte 2j + 1
    const __m256i a = _mm256_maddubs_epi16(shuffled(x), pairs);
    const __m256i b = _mm256_maddubs_epi16(shuffled(x + 32), pairs);
    // Counted in fours, which are two bytes now: the even ones of a and of b, then the odd ones of
    // both.
    const __m256i fours = _mm256_packus_epi16(a, b);
    const __m128i even = _mm256_castsi256_si128(fours), odd = _mm256_extracti128_si256(fours, 1);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(packed), _mm_unpacklo_epi16(even, odd));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(packed + 16), _mm_unpackhi_epi16(even, odd));
  }

 private:
  /// 32 bytes in the order 0–3, 8–11, 16–19, 24–27, 4–7, 12–15, 20–23, 28–31.
  __m256i shuffled(const float* x) const noexcept {
    __m256i level[4];
    CAFEQ_UNROLL
    for (int i = 0; i < 4; ++i) {
      __m256 u = _mm256_loadu_ps(x + 8 * i);
      if constexpr (Shifted) u = _mm256_sub_ps(u, origin_);
      // Beyond 2^30, which may be more than an integer holds, every u gives top. The bits of floats
      // are in the order of the floats.
      u = _mm256_castsi256_ps(_mm256_min_epi32(_mm256_castps_si256(_mm256_mul_ps(u, factor_)),
                                               _mm256_castps_si256(_mm256_set1_ps(0x1p30f))));
      if constexpr (Down) u = _mm256_floor_ps(u);
      level[i] = _mm256_cvtps_epi32(u);
    }
    __m256i first = _mm256_packs_epi32(level[0], level[1]),
            second = _mm256_packs_epi32(level[2], level[3]);
    if constexpr (!Shifted) {
      first = _mm256_adds_epi16(first, raise_);
      second = _mm256_adds_epi16(second, raise_);
    }
    return _mm256_min_epu8(_mm256_packus_epi16(first, second), top_);
  }

  __m256i raise_, top_;
  __m256 origin_{}, factor_{};
};
#endif

}  // namespace cafeq::simd
