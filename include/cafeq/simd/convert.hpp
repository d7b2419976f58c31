/// Elements of other types loaded as floats and stored from them.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cafeq/core/numeric.hpp"
#include "cafeq/simd/lanes.hpp"
#include "cafeq/simd/lanewise.hpp"

namespace cafeq::simd {

namespace detail {

template <class T, class Arch, class From>
inline Batch<T, Arch> load_lanes(const From* p) noexcept {
  constexpr std::size_t size = Batch<T, Arch>::size;
  alignas(64) T lane[size];
  for (std::size_t l = 0; l < size; ++l) lane[l] = static_cast<T>(p[l]);
  return Batch<T, Arch>::load_aligned(lane);
}

template <class To, class Arch>
inline void store_lanes(To* p, Batch<float, Arch> v) noexcept {
  constexpr std::size_t size = Batch<float, Arch>::size;
  alignas(64) float lane[size];
  v.store_aligned(lane);
  for (std::size_t l = 0; l < size; ++l) p[l] = static_cast<To>(lane[l]);
}

}  // namespace detail

/// Consecutive bytes as 32-bit integers, one a lane of floats. Reads no byte beyond them.
template <class Arch>
inline Batch<std::int32_t, Arch> load_int32(const std::uint8_t* p) noexcept {
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch>)
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#endif
#if defined(__AVX512F__)
  if constexpr (is_avx512<Arch>)
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#endif
#if defined(__SSE2__)
  if constexpr (is_sse2<Arch>) {
    std::int32_t four;
    std::memcpy(&four, p, sizeof four);
    const __m128i words = _mm_unpacklo_epi8(_mm_cvtsi32_si128(four), _mm_setzero_si128());
    return _mm_unpacklo_epi16(words, _mm_setzero_si128());
  }
#endif
#if defined(__aarch64__)
  if constexpr (is_neon64<Arch>) {
    std::uint32_t four;
    std::memcpy(&four, p, sizeof four);
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four)))));
  }
#endif
  return detail::load_lanes<std::int32_t, Arch>(p);
}

template <class Arch>
inline Batch<std::int32_t, Arch> load_int32(const std::int8_t* p) noexcept {
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch>)
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#endif
#if defined(__AVX512F__)
  if constexpr (is_avx512<Arch>)
    return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#endif
#if defined(__SSE2__)
  if constexpr (is_sse2<Arch>) {
    std::int32_t four;
    std::memcpy(&four, p, sizeof four);
    const __m128i bytes = _mm_cvtsi32_si128(four);
    const __m128i words = _mm_unpacklo_epi8(bytes, bytes);
    return _mm_srai_epi32(_mm_unpacklo_epi16(words, words), 24);
  }
#endif
#if defined(__aarch64__)
  if constexpr (is_neon64<Arch>) {
    std::uint32_t four;
    std::memcpy(&four, p, sizeof four);
    return vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(four))));
  }
#endif
  return detail::load_lanes<std::int32_t, Arch>(p);
}

/// Consecutive little-endian integers of 24 bits, unsigned, one a lane. Reads no byte beyond them.
template <class Arch>
inline Batch<std::int32_t, Arch> load_uint24(const std::uint8_t* p) noexcept {
  using I = Batch<std::int32_t, Arch>;
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch> && I::size == 8) {
    // The upper half starts 8 bytes on rather than 12, so that nothing past the 24 bytes is read.
    const __m256i bytes = _mm256_inserti128_si256(
        _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)), 1);
    return _mm256_shuffle_epi8(
        bytes, _mm256_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1,  //
                                4, 5, 6, -1, 7, 8, 9, -1, 10, 11, 12, -1, 13, 14, 15, -1));
  }
#endif
  alignas(64) std::int32_t word[I::size];
  for (std::size_t l = 0; l < I::size; ++l)
    word[l] =
        std::int32_t(p[3 * l]) | std::int32_t(p[3 * l + 1]) << 8 | std::int32_t(p[3 * l + 2]) << 16;
  return I::load_aligned(word);
}

/// Consecutive elements of any type that a matrix or a code may have, converted to floats; exact
/// except from double.
template <class Arch>
inline Batch<float, Arch> load_float(const float* p) noexcept {
  return Batch<float, Arch>::load_unaligned(p);
}
template <class Arch>
inline Batch<float, Arch> load_float(const std::uint8_t* p) noexcept {
  return simd::to_float(load_int32<Arch>(p));
}
template <class Arch>
inline Batch<float, Arch> load_float(const std::int8_t* p) noexcept {
  return simd::to_float(load_int32<Arch>(p));
}
template <class Arch>
inline Batch<float, Arch> load_float(const double* p) noexcept {
  return detail::load_lanes<float, Arch>(p);
}
template <class Arch>
inline Batch<float, Arch> load_float(const fp16* p) noexcept {
#if defined(__F16C__) && defined(__AVX2__)
  if constexpr (is_avx2<Arch>)
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#endif
#if defined(__AVX512F__)
  if constexpr (is_avx512<Arch>)
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#endif
#if defined(__aarch64__)
  if constexpr (is_neon64<Arch>)
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const std::uint16_t*>(p))));
#endif
  return detail::load_lanes<float, Arch>(p);
}
template <class Arch>
inline Batch<float, Arch> load_float(const bf16* p) noexcept {
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch>)
    return _mm256_castsi256_ps(_mm256_slli_epi32(
        _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16));
#endif
#if defined(__AVX512F__)
  if constexpr (is_avx512<Arch>)
    return _mm512_castsi512_ps(_mm512_slli_epi32(
        _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16));
#endif
#if defined(__aarch64__)
  if constexpr (is_neon64<Arch>)
    return vreinterpretq_f32_u32(
        vshll_n_u16(vld1_u16(reinterpret_cast<const std::uint16_t*>(p)), 16));
#endif
  return detail::load_lanes<float, Arch>(p);
}

/// Floats stored as elements of that type, rounded as its constructor rounds: ties to even,
/// overflow to infinity.
template <class Arch>
inline void store_float(float* p, Batch<float, Arch> v) noexcept {
  v.store_unaligned(p);
}
template <class Arch>
inline void store_float(double* p, Batch<float, Arch> v) noexcept {
  detail::store_lanes<double, Arch>(p, v);
}
template <class Arch>
inline void store_float(fp16* p, Batch<float, Arch> v) noexcept {
#if defined(__F16C__) && defined(__AVX2__)
  if constexpr (is_avx2<Arch>)
    return _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                            _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
#endif
#if defined(__AVX512F__)
  if constexpr (is_avx512<Arch>)
    return _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                               _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
#endif
#if defined(__aarch64__)
  if constexpr (is_neon64<Arch>)
    return vst1_u16(reinterpret_cast<std::uint16_t*>(p), vreinterpret_u16_f16(vcvt_f16_f32(v)));
#endif
  detail::store_lanes<fp16, Arch>(p, v);
}
template <class Arch>
inline void store_float(bf16* p, Batch<float, Arch> v) noexcept {
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch>) {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256 is_nan = _mm256_cmp_ps(v, v, _CMP_UNORD_Q);
    const __m256i upper =
        _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(is_nan)), 16);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(upper, upper), 0x08);
    return _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
  }
#endif
  detail::store_lanes<bf16, Arch>(p, v);
}

/// Floats that are whole numbers 0 … 255 as consecutive bytes. Writes no byte beyond them.
template <class Arch>
inline void store_uint8(std::uint8_t* p, Batch<float, Arch> v) noexcept {
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch>) {
    const __m256i words = _mm256_cvttps_epi32(v);
    const __m128i halves =
        _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(halves, halves));
  } else
#endif
#if defined(__AVX512F__)
      if constexpr (is_avx512<Arch>)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(v)));
  else
#endif
#if defined(__SSE2__)
      if constexpr (is_sse2<Arch> && Batch<float, Arch>::size == 4) {
    const __m128i words = _mm_cvttps_epi32(v);
    const __m128i halves = _mm_packs_epi32(words, words);
    const std::int32_t four = _mm_cvtsi128_si32(_mm_packus_epi16(halves, halves));
    std::memcpy(p, &four, sizeof four);
  } else
#endif
#if defined(__aarch64__)
      if constexpr (is_neon64<Arch>) {
    const uint16x4_t halves = vmovn_u32(vcvtq_u32_f32(v));
    const std::uint32_t four =
        vget_lane_u32(vreinterpret_u32_u8(vmovn_u16(vcombine_u16(halves, halves))), 0);
    std::memcpy(p, &four, sizeof four);
  } else
#endif
    detail::store_lanes<std::uint8_t, Arch>(p, v);
}

/// The lanes of a batch of floats in double: the first half of them and the second.
template <class Arch>
struct Widened {
  Batch<double, Arch> low;
  Batch<double, Arch> high;
};

template <class Arch>
inline Widened<Arch> widen(Batch<float, Arch> v) noexcept {
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch>)
    return {_mm256_cvtps_pd(_mm256_castps256_ps128(v)),
            _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1))};
  else
#endif
#if defined(__AVX512F__)
      if constexpr (is_avx512<Arch>)
    return {_mm512_cvtps_pd(_mm512_castps512_ps256(v)), _mm512_cvtps_pd(detail::upper_half(v))};
  else
#endif
#if defined(__SSE2__)
      if constexpr (is_sse2<Arch> && Batch<float, Arch>::size == 4)
    return {_mm_cvtps_pd(v), _mm_cvtps_pd(_mm_movehl_ps(v, v))};
  else
#endif
#if defined(__aarch64__)
      if constexpr (is_neon64<Arch>)
    return {vcvt_f64_f32(vget_low_f32(v)), vcvt_high_f64_f32(v)};
  else
#endif
  {
    constexpr std::size_t half = Batch<double, Arch>::size;
    alignas(64) float lane[2 * half];
    v.store_aligned(lane);
    return {detail::load_lanes<double, Arch>(lane), detail::load_lanes<double, Arch>(lane + half)};
  }
}

}  // namespace cafeq::simd
