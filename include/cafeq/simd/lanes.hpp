/// All lanes of a vector, or of as many vectors as there are lanes: reductions and transposes.
/// Every tree of sums has the same order on every architecture.
#pragma once

#include <cstddef>
#include <type_traits>

#include "cafeq/config/config.hpp"
#include "cafeq/simd/arch.hpp"

namespace cafeq::simd {

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
inline __m256 upper_half(__m512 v) noexcept {
  return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1));
}
#endif

}  // namespace detail

/// The sum of all lanes as a tree of halves: lane l plus lane l + size/2, and so on; the same order
/// whatever the architecture.
template <class T, class Arch>
inline T reduce_add(Batch<T, Arch> v) noexcept {
#if defined(__AVX2__)
  [[maybe_unused]] const auto add = [](auto a, auto b) { return decltype(a)(a + b); };
  if constexpr (is_avx2<Arch> && std::is_same_v<T, float>) return detail::fold_lanes_avx(v, add);
#if defined(__AVX512F__)
  else if constexpr (is_avx512<Arch> && std::is_same_v<T, float>)
    return detail::fold_lanes_avx(_mm256_add_ps(_mm512_castps512_ps256(v), detail::upper_half(v)),
                                  add);
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
    return detail::fold_lanes_avx(_mm256_min_ps(_mm512_castps512_ps256(v), detail::upper_half(v)),
                                  min);
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
    return detail::fold_lanes_avx(_mm256_max_ps(_mm512_castps512_ps256(v), detail::upper_half(v)),
                                  max);
#endif
#endif
  return detail::fold_lanes(v, [](T a, T b) { return a < b ? b : a; });
}

namespace detail {

#if defined(__AVX__)
/// Transposes the 4 × 4 blocks that lie side by side in r[0] … r[3] (each half of a register is one
/// block).
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

/// Lane j of row[i] and lane i of row[j] change places, for as many rows as there are lanes: 8 × 8
/// floats with AVX2, 4 × 4 with SSE and NEON, 16 × 16 with AVX-512.
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
      const __m512 even_low = _mm512_shuffle_f32x4(r[i], r[4 + i], 0x88),
                   odd_low = _mm512_shuffle_f32x4(r[i], r[4 + i], 0xdd);
      const __m512 even_high = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0x88),
                   odd_high = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0xdd);
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

/// Lane i of the result is row[i] folded by f as a tree of halves: f(lane l, lane l + size/2), and
/// so on, for as many rows as there are lanes. f takes two batches and must be commutative. One
/// reduction of each row would cost three times as much.
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

/// The same vector, as a register whose value the compiler knows nothing about: what several
/// instructions read from memory would otherwise be loaded once for each of them, and a constant
/// would be seen through.
template <class T, class Arch>
inline Batch<T, Arch> in_register(Batch<T, Arch> v) noexcept {
#if defined(__AVX__) && defined(__GNUC__)
  typename Batch<T, Arch>::register_type r = v;
  asm("" : "+x"(r));
  return r;
#else
  return v;
#endif
}

}  // namespace cafeq::simd
