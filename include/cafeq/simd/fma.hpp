/// Fused multiply-adds on every architecture that has them; elsewhere the same, rounded twice.
#pragma once

#include <type_traits>

#include "cafeq/simd/arch.hpp"

namespace cafeq::simd {

/// Whether fma() rounds once.
template <class Arch>
inline constexpr bool has_fma =
    std::is_base_of_v<xsimd::fma3<xsimd::avx2>, Arch> ||
    std::is_base_of_v<xsimd::fma3<xsimd::avx>, Arch> ||
    std::is_base_of_v<xsimd::fma3<xsimd::sse4_2>, Arch> || std::is_base_of_v<xsimd::fma4, Arch> ||
    is_avx512<Arch> || is_neon64<Arch>;

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

/// x·y − z where x·y and z nearly cancel: fms(), and without fused operations the same but for an
/// error of 2^-45 of x·y, at nine times the cost. |x| and |y| below 2^100.
template <class Arch>
inline Batch<float, Arch> compensated_fms(Batch<float, Arch> x, Batch<float, Arch> y,
                                          Batch<float, Arch> z) noexcept {
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

}  // namespace cafeq::simd
