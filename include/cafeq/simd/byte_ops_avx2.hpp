/// The operations of byte_ops.hpp in one register of AVX2.
#pragma once

#include <cstdint>

#include "cafeq/simd/arch.hpp"

#if defined(__AVX2__)

namespace cafeq::simd {

template <class Arch>
struct Avx2ByteOps {
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

}  // namespace cafeq::simd

#endif
