/// Lanes in another order: exchanges, pairs taken apart and put together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "cafeq/simd/arch.hpp"

namespace cafeq::simd {

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

/// Lane l of the result is lane l ^ H of v, H a power of two below the number of lanes. (xsimd
/// permutes across the whole register, at four times the latency of an exchange within its halves.)
template <std::size_t H, class T, class Arch>
inline Batch<T, Arch> exchange_lanes(Batch<T, Arch> v) noexcept {
  static_assert(H > 0 && 2 * H <= Batch<T, Arch>::size);
#if defined(__AVX512F__)
  // The masks are all ones: g++ 12 warns about the unmasked forms.
  if constexpr (is_avx512<Arch> && std::is_same_v<T, float>) {
    if constexpr (H == 1) return _mm512_maskz_permute_ps(0xFFFF, v, _MM_SHUFFLE(2, 3, 0, 1));
    else if constexpr (H == 2) return _mm512_maskz_permute_ps(0xFFFF, v, _MM_SHUFFLE(1, 0, 3, 2));
    else
      return _mm512_maskz_shuffle_f32x4(0xFFFF, v, v,
                                        H == 4 ? _MM_SHUFFLE(2, 3, 0, 1) : _MM_SHUFFLE(1, 0, 3, 2));
  } else if constexpr (is_avx512<Arch>) {
    if constexpr (H == 1) return _mm512_maskz_permute_pd(0xFF, v, 0b01010101);
    else
      return _mm512_maskz_shuffle_f64x2(0xFF, v, v,
                                        H == 2 ? _MM_SHUFFLE(2, 3, 0, 1) : _MM_SHUFFLE(1, 0, 3, 2));
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

/// Of the lanes of a, then those of b, the even ones and the odd ones: what separates pairs.
template <class Arch>
inline std::pair<Batch<float, Arch>, Batch<float, Arch>> unzip(Batch<float, Arch> a,
                                                               Batch<float, Arch> b) noexcept {
  using V = Batch<float, Arch>;
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch> && V::size == 8) {
    const auto in_order = [](__m256 v) {
      return V(_mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(v), 0xd8)));
    };
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
inline std::pair<Batch<float, Arch>, Batch<float, Arch>> zip(Batch<float, Arch> a,
                                                             Batch<float, Arch> b) noexcept {
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

}  // namespace cafeq::simd
