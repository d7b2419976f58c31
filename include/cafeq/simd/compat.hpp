/// What xsimd 8.1 lacks or does slowly: fused multiply-adds on every architecture that has them, reductions, transposes, loads that widen.
///
/// Each function has a branch by native registers and a generic one; both give the same bits (NaN payloads aside). `Arch` is an architecture of
/// xsimd; a batch of it has `Batch<float, Arch>::size` lanes.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "cafeq/core/numeric.hpp"
#include "cafeq/simd/arch.hpp"

#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#endif
#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace cafeq::simd {

/// Whether Arch is this one or has all of it. A branch by intrinsics stands inside `#if defined(__AVX2__)` (or __AVX512F__, __aarch64__ …) and
/// asks these besides, since a program may use a narrower architecture than its flags allow.
template <class Arch>
inline constexpr bool is_sse2 = std::is_base_of_v<xsimd::sse2, Arch>;
template <class Arch>
inline constexpr bool is_avx2 = std::is_base_of_v<xsimd::avx2, Arch>;
template <class Arch>
inline constexpr bool is_avx512 = std::is_base_of_v<xsimd::avx512f, Arch>;
template <class Arch>
inline constexpr bool is_neon64 = std::is_base_of_v<xsimd::neon64, Arch>;

/// Whether fma() rounds once.
template <class Arch>
inline constexpr bool has_fma =
    std::is_base_of_v<xsimd::fma3<xsimd::avx2>, Arch> || std::is_base_of_v<xsimd::fma3<xsimd::avx>, Arch> ||
    std::is_base_of_v<xsimd::fma3<xsimd::sse4_2>, Arch> || std::is_base_of_v<xsimd::fma4, Arch> || is_avx512<Arch> || is_neon64<Arch>;

/// x·y + z, rounded once where the architecture can. (xsimd 8.1 rounds twice on AVX-512.)
template <class T, class Arch>
inline Batch<T, Arch> fma(Batch<T, Arch> x, Batch<T, Arch> y, Batch<T, Arch> z) noexcept {
#if defined(__AVX512F__)
  if constexpr (is_avx512<Arch> && std::is_same_v<T, float>) return _mm512_fmadd_ps(x, y, z);
  else if constexpr (is_avx512<Arch>) return _mm512_fmadd_pd(x, y, z);
#endif
  return xsimd::fma(x, y, z);
}

/// x·y − z.
template <class T, class Arch>
inline Batch<T, Arch> fms(Batch<T, Arch> x, Batch<T, Arch> y, Batch<T, Arch> z) noexcept {
#if defined(__AVX512F__)
  if constexpr (is_avx512<Arch> && std::is_same_v<T, float>) return _mm512_fmsub_ps(x, y, z);
  else if constexpr (is_avx512<Arch>) return _mm512_fmsub_pd(x, y, z);
#endif
  return xsimd::fms(x, y, z);
}

/// x·y − z where x·y and z nearly cancel: fms(), and without fused operations the same but for an error of 2^-45 of x·y, at nine times the cost.
/// |x| and |y| below 2^100.
template <class Arch>
inline Batch<float, Arch> compensated_fms(Batch<float, Arch> x, Batch<float, Arch> y, Batch<float, Arch> z) noexcept {
  using V = Batch<float, Arch>;
  if constexpr (has_fma<Arch>) {
    return simd::fms(x, y, z);
  } else {  // Dekker's product: halves of 12 bits, whose products are exact
    const V splitter(4097.0f);
    const V x_high = splitter * x - (splitter * x - x), x_low = x - x_high;
    const V y_high = splitter * y - (splitter * y - y), y_low = y - y_high;
    const V product = x * y;
    const V lost = ((x_high * y_high - product) + x_high * y_low + x_low * y_high) + x_low * y_low;
    return (product - z) + lost;
  }
}

/// z − x·y. (xsimd 8.1 rounds twice on AVX-512 and NEON.)
template <class T, class Arch>
inline Batch<T, Arch> fnma(Batch<T, Arch> x, Batch<T, Arch> y, Batch<T, Arch> z) noexcept {
#if defined(__AVX512F__)
  if constexpr (is_avx512<Arch> && std::is_same_v<T, float>) return _mm512_fnmadd_ps(x, y, z);
  else if constexpr (is_avx512<Arch>) return _mm512_fnmadd_pd(x, y, z);
#endif
#if defined(__aarch64__)
  if constexpr (is_neon64<Arch> && std::is_same_v<T, float>) return vfmsq_f32(z, x, y);
  else if constexpr (is_neon64<Arch>) return vfmsq_f64(z, x, y);
#endif
  return xsimd::fnma(x, y, z);
}

namespace detail {

/// Lanes folded in halves, lane l with lane l + size/2, down to one.
template <class T, class Arch, class F>
inline T fold_lanes(Batch<T, Arch> v, F&& f) noexcept {
  constexpr std::size_t size = Batch<T, Arch>::size;
  alignas(64) T lane[size];
  v.store_aligned(lane);
  CAFEQ_UNROLL
  for (std::size_t half = size / 2; half > 0; half /= 2) {
    CAFEQ_UNROLL
    for (std::size_t l = 0; l < half; ++l) lane[l] = f(lane[l], lane[l + half]);
  }
  return lane[0];
}

#if defined(__AVX__)
template <class F>
inline float fold_lanes_avx(__m256 v, F&& f) noexcept {
  const __m128 four = f(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = f(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(f(two, _mm_movehdup_ps(two)));
}
#endif
#if defined(__AVX512F__)
inline __m256 upper_half(__m512 v) noexcept { return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1)); }
#endif

}  // namespace detail

/// The sum of all lanes as a tree of halves: lane l plus lane l + size/2, and so on; the same order whatever the architecture.
template <class T, class Arch>
inline T reduce_add(Batch<T, Arch> v) noexcept {
#if defined(__AVX2__)
  [[maybe_unused]] const auto add = [](auto a, auto b) { return decltype(a)(a + b); };
  if constexpr (is_avx2<Arch> && std::is_same_v<T, float>) return detail::fold_lanes_avx(v, add);
#if defined(__AVX512F__)
  else if constexpr (is_avx512<Arch> && std::is_same_v<T, float>)
    return detail::fold_lanes_avx(_mm256_add_ps(_mm512_castps512_ps256(v), detail::upper_half(v)), add);
#endif
#endif
  return detail::fold_lanes(v, [](T a, T b) { return T(a + b); });
}

/// The smallest lane. No lane may be NaN.
template <class T, class Arch>
inline T reduce_min(Batch<T, Arch> v) noexcept {
#if defined(__AVX2__)
  [[maybe_unused]] const auto min = [](__m128 a, __m128 b) { return _mm_min_ps(a, b); };
  if constexpr (is_avx2<Arch> && std::is_same_v<T, float>) return detail::fold_lanes_avx(v, min);
#if defined(__AVX512F__)
  else if constexpr (is_avx512<Arch> && std::is_same_v<T, float>)
    return detail::fold_lanes_avx(_mm256_min_ps(_mm512_castps512_ps256(v), detail::upper_half(v)), min);
#endif
#endif
  return detail::fold_lanes(v, [](T a, T b) { return b < a ? b : a; });
}

/// The largest lane. No lane may be NaN.
template <class T, class Arch>
inline T reduce_max(Batch<T, Arch> v) noexcept {
#if defined(__AVX2__)
  [[maybe_unused]] const auto max = [](__m128 a, __m128 b) { return _mm_max_ps(a, b); };
  if constexpr (is_avx2<Arch> && std::is_same_v<T, float>) return detail::fold_lanes_avx(v, max);
#if defined(__AVX512F__)
  else if constexpr (is_avx512<Arch> && std::is_same_v<T, float>)
    return detail::fold_lanes_avx(_mm256_max_ps(_mm512_castps512_ps256(v), detail::upper_half(v)), max);
#endif
#endif
  return detail::fold_lanes(v, [](T a, T b) { return a < b ? b : a; });
}

namespace detail {

#if defined(__AVX__)
/// Transposes the 4 × 4 blocks that lie side by side in r[0] … r[3] (each half of a register is one block).
inline void transpose_in_halves(__m256* r) noexcept {
  const __m256 a = _mm256_unpacklo_ps(r[0], r[1]), b = _mm256_unpackhi_ps(r[0], r[1]);
  const __m256 c = _mm256_unpacklo_ps(r[2], r[3]), d = _mm256_unpackhi_ps(r[2], r[3]);
  r[0] = _mm256_shuffle_ps(a, c, 0x44);
  r[1] = _mm256_shuffle_ps(a, c, 0xee);
  r[2] = _mm256_shuffle_ps(b, d, 0x44);
  r[3] = _mm256_shuffle_ps(b, d, 0xee);
}
#endif
#if defined(__AVX512F__)
inline void transpose_in_quarters(__m512* r) noexcept {
  const __m512 a = _mm512_unpacklo_ps(r[0], r[1]), b = _mm512_unpackhi_ps(r[0], r[1]);
  const __m512 c = _mm512_unpacklo_ps(r[2], r[3]), d = _mm512_unpackhi_ps(r[2], r[3]);
  r[0] = _mm512_shuffle_ps(a, c, 0x44);
  r[1] = _mm512_shuffle_ps(a, c, 0xee);
  r[2] = _mm512_shuffle_ps(b, d, 0x44);
  r[3] = _mm512_shuffle_ps(b, d, 0xee);
}
#endif

}  // namespace detail

/// Lane j of row[i] and lane i of row[j] change places, for as many rows as there are lanes: 8 × 8 floats with AVX2, 4 × 4 with SSE and NEON,
/// 16 × 16 with AVX-512.
template <class Arch>
inline void transpose(Batch<float, Arch>* row) noexcept {
  constexpr std::size_t size = Batch<float, Arch>::size;
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch>) {
    __m256 r[8];
    CAFEQ_UNROLL
    for (int i = 0; i < 8; ++i) r[i] = row[i];
    detail::transpose_in_halves(r);
    detail::transpose_in_halves(r + 4);
    CAFEQ_UNROLL
    for (int i = 0; i < 4; ++i) {
      row[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
      row[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
    }
    return;
  }
#endif
#if defined(__AVX512F__)
  if constexpr (is_avx512<Arch>) {
    __m512 r[16];
    CAFEQ_UNROLL
    for (int i = 0; i < 16; ++i) r[i] = row[i];
    CAFEQ_UNROLL
    for (int i = 0; i < 16; i += 4) detail::transpose_in_quarters(r + i);
    // r[4b + i] now holds, in quarter q, the rows 4b … 4b + 3 of column 4q + i.
    CAFEQ_UNROLL
    for (int i = 0; i < 4; ++i) {
      const __m512 even_low = _mm512_shuffle_f32x4(r[i], r[4 + i], 0x88), odd_low = _mm512_shuffle_f32x4(r[i], r[4 + i], 0xdd);
      const __m512 even_high = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0x88), odd_high = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0xdd);
      row[i] = _mm512_shuffle_f32x4(even_low, even_high, 0x88);
      row[i + 4] = _mm512_shuffle_f32x4(odd_low, odd_high, 0x88);
      row[i + 8] = _mm512_shuffle_f32x4(even_low, even_high, 0xdd);
      row[i + 12] = _mm512_shuffle_f32x4(odd_low, odd_high, 0xdd);
    }
    return;
  }
#endif
  if constexpr (size == 4) {
    const auto a = xsimd::zip_lo(row[0], row[2]), b = xsimd::zip_hi(row[0], row[2]);
    const auto c = xsimd::zip_lo(row[1], row[3]), d = xsimd::zip_hi(row[1], row[3]);
    row[0] = xsimd::zip_lo(a, c);
    row[1] = xsimd::zip_hi(a, c);
    row[2] = xsimd::zip_lo(b, d);
    row[3] = xsimd::zip_hi(b, d);
  } else {
    alignas(64) float lane[size][size];
    for (std::size_t i = 0; i < size; ++i) row[i].store_aligned(lane[i]);
    for (std::size_t i = 0; i < size; ++i)
      for (std::size_t j = 0; j < i; ++j) std::swap(lane[i][j], lane[j][i]);
    for (std::size_t i = 0; i < size; ++i) row[i] = Batch<float, Arch>::load_aligned(lane[i]);
  }
}

/// Lane i of the result is row[i] folded by f as a tree of halves: f(lane l, lane l + size/2), and so on, for as many rows as there are lanes. f takes two
/// batches and must be commutative. One reduction of each row would cost three times as much.
template <class Arch, class F>
inline Batch<float, Arch> reduce_rows(const Batch<float, Arch>* row, F&& f) noexcept {
  using V = Batch<float, Arch>;
  constexpr std::size_t size = V::size;
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch> && size == 8) {
    const auto halves = [&](const V& a, const V& b) {  // 4 sums of a, 4 of b
      return f(V(_mm256_blend_ps(a, b, 0xf0)), V(_mm256_permute2f128_ps(a, b, 0x21)));
    };
    const auto quarters = [&](const V& a, const V& b) {
      return f(V(_mm256_shuffle_ps(a, b, 0x44)), V(_mm256_shuffle_ps(a, b, 0xee)));
    };
    const V low = quarters(halves(row[0], row[4]), halves(row[1], row[5]));
    const V high = quarters(halves(row[2], row[6]), halves(row[3], row[7]));
    return f(V(_mm256_shuffle_ps(low, high, 0x88)), V(_mm256_shuffle_ps(low, high, 0xdd)));
  }
#endif
  V r[size];
  for (std::size_t i = 0; i < size; ++i) r[i] = row[i];
  transpose<Arch>(r);
  CAFEQ_UNROLL
  for (std::size_t half = size / 2; half > 0; half /= 2) {
    CAFEQ_UNROLL
    for (std::size_t l = 0; l < half; ++l) r[l] = f(r[l], r[l + half]);
  }
  return r[0];
}

/// The same vector, as a register: a value that several instructions read from memory would otherwise be loaded once for each of them.
template <class Arch>
inline Batch<float, Arch> in_register(Batch<float, Arch> v) noexcept {
#if defined(__AVX__) && defined(__GNUC__)
  typename Batch<float, Arch>::register_type r = v;
  asm("" : "+x"(r));
  return r;
#else
  return v;
#endif
}

namespace detail {

template <class Word, class Arch, class F>
inline Batch<float, Arch> pick_bits(Batch<float, Arch> a, Batch<float, Arch> b, F&& first) noexcept {
  constexpr std::size_t size = Batch<float, Arch>::size;
  alignas(64) float s[size], t[size];
  a.store_aligned(s);
  b.store_aligned(t);
  for (std::size_t l = 0; l < size; ++l)
    if (!first(std::bit_cast<Word>(s[l]), std::bit_cast<Word>(t[l]))) s[l] = t[l];
  return Batch<float, Arch>::load_aligned(s);
}

}  // namespace detail

/// The float whose bits are the larger signed integer: the larger float unless both are negative. (Integer units are free where the float ones are busy.)
template <class Arch>
inline Batch<float, Arch> max_signed_bits(Batch<float, Arch> a, Batch<float, Arch> b) noexcept {
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch> && Batch<float, Arch>::size == 8)
    return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
#endif
#if defined(__AVX512F__)
  if constexpr (is_avx512<Arch>) return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
#endif
  return detail::pick_bits<std::int32_t>(a, b, [](std::int32_t s, std::int32_t t) { return s > t; });
}

/// The float whose bits are the smaller signed integer: the smaller float unless both are negative.
template <class Arch>
inline Batch<float, Arch> min_signed_bits(Batch<float, Arch> a, Batch<float, Arch> b) noexcept {
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch> && Batch<float, Arch>::size == 8)
    return _mm256_castsi256_ps(_mm256_min_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
#endif
#if defined(__AVX512F__)
  if constexpr (is_avx512<Arch>) return _mm512_castsi512_ps(_mm512_min_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
#endif
  return detail::pick_bits<std::int32_t>(a, b, [](std::int32_t s, std::int32_t t) { return s < t; });
}

/// The float whose bits are the larger unsigned integer: a negative float before any positive one, of two of one sign the larger magnitude.
template <class Arch>
inline Batch<float, Arch> max_unsigned_bits(Batch<float, Arch> a, Batch<float, Arch> b) noexcept {
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch> && Batch<float, Arch>::size == 8)
    return _mm256_castsi256_ps(_mm256_max_epu32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
#endif
#if defined(__AVX512F__)
  if constexpr (is_avx512<Arch>) return _mm512_castsi512_ps(_mm512_max_epu32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
#endif
  return detail::pick_bits<std::uint32_t>(a, b, [](std::uint32_t s, std::uint32_t t) { return s > t; });
}

/// The nearest integers, ties to even; of what no int32 holds, some integer.
template <class Arch>
inline Batch<std::int32_t, Arch> nearest_int32(Batch<float, Arch> v) noexcept {
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch> && Batch<float, Arch>::size == 8) return _mm256_cvtps_epi32(v);
#endif
#if defined(__AVX512F__)
  if constexpr (is_avx512<Arch>) return _mm512_cvtps_epi32(v);
#endif
#if defined(__SSE2__)
  if constexpr (is_sse2<Arch> && Batch<float, Arch>::size == 4) return _mm_cvtps_epi32(v);
#endif
#if defined(__aarch64__)
  if constexpr (is_neon64<Arch>) return vcvtnq_s32_f32(v);
#endif
  return xsimd::to_int(xsimd::nearbyint(v));
}

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

namespace detail {

template <std::size_t H, class T, class Arch, std::size_t... Lane>
inline Batch<T, Arch> exchange_lanes(Batch<T, Arch> v, std::index_sequence<Lane...>) noexcept {
  using Word = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
#if XSIMD_VERSION_MAJOR >= 13
  return xsimd::swizzle(v, xsimd::batch_constant<Word, Arch, (Lane ^ H)...>());
#else
  return xsimd::swizzle(v, xsimd::batch_constant<xsimd::batch<Word, Arch>, (Lane ^ H)...>());
#endif
}

}  // namespace detail

/// Lane l of the result is lane l ^ H of v, H a power of two below the number of lanes. (xsimd permutes across the whole register, at four times the
/// latency of an exchange within its halves.)
template <std::size_t H, class T, class Arch>
inline Batch<T, Arch> exchange_lanes(Batch<T, Arch> v) noexcept {
  static_assert(H > 0 && 2 * H <= Batch<T, Arch>::size);
#if defined(__AVX512F__)
  // The masks are all ones: g++ 12 warns about the unmasked forms.
  if constexpr (is_avx512<Arch> && std::is_same_v<T, float>) {
    if constexpr (H == 1) return _mm512_maskz_permute_ps(0xFFFF, v, _MM_SHUFFLE(2, 3, 0, 1));
    else if constexpr (H == 2) return _mm512_maskz_permute_ps(0xFFFF, v, _MM_SHUFFLE(1, 0, 3, 2));
    else return _mm512_maskz_shuffle_f32x4(0xFFFF, v, v, H == 4 ? _MM_SHUFFLE(2, 3, 0, 1) : _MM_SHUFFLE(1, 0, 3, 2));
  } else if constexpr (is_avx512<Arch>) {
    if constexpr (H == 1) return _mm512_maskz_permute_pd(0xFF, v, 0b01010101);
    else return _mm512_maskz_shuffle_f64x2(0xFF, v, v, H == 2 ? _MM_SHUFFLE(2, 3, 0, 1) : _MM_SHUFFLE(1, 0, 3, 2));
  }
#endif
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch> && !is_avx512<Arch> && 2 * H == Batch<T, Arch>::size) {
    if constexpr (std::is_same_v<T, float>) return _mm256_permute2f128_ps(v, v, 1);
    else return _mm256_permute2f128_pd(v, v, 1);
  } else if constexpr (is_avx2<Arch> && !is_avx512<Arch>) {
    if constexpr (std::is_same_v<T, double>) return _mm256_permute_pd(v, 0b0101);
    else return _mm256_permute_ps(v, H == 1 ? _MM_SHUFFLE(2, 3, 0, 1) : _MM_SHUFFLE(1, 0, 3, 2));
  }
#endif
#if defined(__aarch64__)
  if constexpr (is_neon64<Arch> && std::is_same_v<T, double>) {
    return vextq_f64(v, v, 1);
  } else if constexpr (is_neon64<Arch>) {
    if constexpr (H == 1) return vrev64q_f32(v);
    else return vextq_f32(v, v, 2);
  }
#endif
  return detail::exchange_lanes<H>(v, std::make_index_sequence<Batch<T, Arch>::size>{});
}

/// Consecutive bytes as 32-bit integers, one a lane of floats. Reads no byte beyond them.
template <class Arch>
inline Batch<std::int32_t, Arch> load_int32(const std::uint8_t* p) noexcept {
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch>) return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#endif
#if defined(__AVX512F__)
  if constexpr (is_avx512<Arch>) return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
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
  if constexpr (is_avx2<Arch>) return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#endif
#if defined(__AVX512F__)
  if constexpr (is_avx512<Arch>) return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
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

/// Consecutive elements of any type that a matrix or a code may have, converted to floats; exact except from double.
template <class Arch>
inline Batch<float, Arch> load_float(const float* p) noexcept {
  return Batch<float, Arch>::load_unaligned(p);
}
template <class Arch>
inline Batch<float, Arch> load_float(const std::uint8_t* p) noexcept {
  return xsimd::to_float(load_int32<Arch>(p));
}
template <class Arch>
inline Batch<float, Arch> load_float(const std::int8_t* p) noexcept {
  return xsimd::to_float(load_int32<Arch>(p));
}
template <class Arch>
inline Batch<float, Arch> load_float(const double* p) noexcept {
  return detail::load_lanes<float, Arch>(p);
}
template <class Arch>
inline Batch<float, Arch> load_float(const fp16* p) noexcept {
#if defined(__F16C__) && defined(__AVX2__)
  if constexpr (is_avx2<Arch>) return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#endif
#if defined(__AVX512F__)
  if constexpr (is_avx512<Arch>) return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#endif
#if defined(__aarch64__)
  if constexpr (is_neon64<Arch>) return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const std::uint16_t*>(p))));
#endif
  return detail::load_lanes<float, Arch>(p);
}
template <class Arch>
inline Batch<float, Arch> load_float(const bf16* p) noexcept {
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch>)
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16));
#endif
#if defined(__AVX512F__)
  if constexpr (is_avx512<Arch>)
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16));
#endif
#if defined(__aarch64__)
  if constexpr (is_neon64<Arch>) return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(reinterpret_cast<const std::uint16_t*>(p)), 16));
#endif
  return detail::load_lanes<float, Arch>(p);
}

/// Floats stored as elements of that type, rounded as its constructor rounds: ties to even, overflow to infinity.
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
  if constexpr (is_avx2<Arch>) return _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
#endif
#if defined(__AVX512F__)
  if constexpr (is_avx512<Arch>) return _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
#endif
#if defined(__aarch64__)
  if constexpr (is_neon64<Arch>) return vst1_u16(reinterpret_cast<std::uint16_t*>(p), vreinterpret_u16_f16(vcvt_f16_f32(v)));
#endif
  detail::store_lanes<fp16, Arch>(p, v);
}
template <class Arch>
inline void store_float(bf16* p, Batch<float, Arch> v) noexcept {
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch>) {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256 is_nan = _mm256_cmp_ps(v, v, _CMP_UNORD_Q);
    const __m256i upper = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(is_nan)), 16);
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
    const __m128i halves = _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
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
    const std::uint32_t four = vget_lane_u32(vreinterpret_u32_u8(vmovn_u16(vcombine_u16(halves, halves))), 0);
    std::memcpy(p, &four, sizeof four);
  } else
#endif
    detail::store_lanes<std::uint8_t, Arch>(p, v);
}

/// Asks for the cache line `ahead` bytes after p, which may lie past the end of its buffer.
inline void prefetch([[maybe_unused]] const void* p, [[maybe_unused]] std::ptrdiff_t ahead) noexcept {
#if defined(__GNUC__)
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(p) + std::uintptr_t(ahead)));
#endif
}

/// Of the lanes of a, then those of b, the even ones and the odd ones: what separates pairs.
template <class Arch>
inline std::pair<Batch<float, Arch>, Batch<float, Arch>> unzip(Batch<float, Arch> a, Batch<float, Arch> b) noexcept {
  using V = Batch<float, Arch>;
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch> && V::size == 8) {
    const auto in_order = [](__m256 v) { return V(_mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(v), 0xd8))); };
    return {in_order(_mm256_shuffle_ps(a, b, 0x88)), in_order(_mm256_shuffle_ps(a, b, 0xdd))};
  }
#endif
  constexpr std::size_t size = V::size;
  alignas(64) float pair[2 * size], even[size], odd[size];
  a.store_aligned(pair);
  b.store_aligned(pair + size);
  for (std::size_t l = 0; l < size; ++l) {
    even[l] = pair[2 * l];
    odd[l] = pair[2 * l + 1];
  }
  return {V::load_aligned(even), V::load_aligned(odd)};
}

/// The lanes of a and b in turns, the inverse of unzip().
template <class Arch>
inline std::pair<Batch<float, Arch>, Batch<float, Arch>> zip(Batch<float, Arch> a, Batch<float, Arch> b) noexcept {
  using V = Batch<float, Arch>;
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch> && V::size == 8) {
    const __m256 low = _mm256_unpacklo_ps(a, b), high = _mm256_unpackhi_ps(a, b);
    return {V(_mm256_permute2f128_ps(low, high, 0x20)), V(_mm256_permute2f128_ps(low, high, 0x31))};
  }
#endif
  constexpr std::size_t size = V::size;
  alignas(64) float s[size], t[size], pair[2 * size];
  a.store_aligned(s);
  b.store_aligned(t);
  for (std::size_t l = 0; l < size; ++l) {
    pair[2 * l] = s[l];
    pair[2 * l + 1] = t[l];
  }
  return {V::load_aligned(pair), V::load_aligned(pair + size)};
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
  if constexpr (is_avx2<Arch>) return {_mm256_cvtps_pd(_mm256_castps256_ps128(v)), _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1))};
  else
#endif
#if defined(__AVX512F__)
    if constexpr (is_avx512<Arch>) return {_mm512_cvtps_pd(_mm512_castps512_ps256(v)), _mm512_cvtps_pd(detail::upper_half(v))};
  else
#endif
#if defined(__SSE2__)
    if constexpr (is_sse2<Arch> && Batch<float, Arch>::size == 4) return {_mm_cvtps_pd(v), _mm_cvtps_pd(_mm_movehl_ps(v, v))};
  else
#endif
#if defined(__aarch64__)
    if constexpr (is_neon64<Arch>) return {vcvt_f64_f32(vget_low_f32(v)), vcvt_high_f64_f32(v)};
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
