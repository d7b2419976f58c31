/// Floats compared as the integers that their bits are. Of two floats that are not both negative
/// the larger one has the larger signed integer; of two negative ones, the larger magnitude has.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "cafeq/simd/arch.hpp"

namespace cafeq::simd {

namespace detail {

template <class Word, class Arch, class F>
inline Batch<float, Arch> pick_bits(Batch<float, Arch> a, Batch<float, Arch> b,
                                    F&& first) noexcept {
  constexpr std::size_t size = Batch<float, Arch>::size;
  alignas(64) float s[size], t[size];
  a.store_aligned(s);
  b.store_aligned(t);
  for (std::size_t l = 0; l < size; ++l)
    if (!first(std::bit_cast<Word>(s[l]), std::bit_cast<Word>(t[l]))) s[l] = t[l];
  return Batch<float, Arch>::load_aligned(s);
}

}  // namespace detail

/// The float whose bits are the larger signed integer: the larger float unless both are negative.
/// (Integer units are free where the float ones are busy.)
template <class Arch>
inline Batch<float, Arch> max_signed_bits(Batch<float, Arch> a, Batch<float, Arch> b) noexcept {
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch> && Batch<float, Arch>::size == 8)
    return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
#endif
#if defined(__AVX512F__)
  if constexpr (is_avx512<Arch>)
    return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
#endif
  return detail::pick_bits<std::int32_t>(a, b,
                                         [](std::int32_t s, std::int32_t t) { return s > t; });
}

/// The float whose bits are the smaller signed integer: the smaller float unless both are negative.
template <class Arch>
inline Batch<float, Arch> min_signed_bits(Batch<float, Arch> a, Batch<float, Arch> b) noexcept {
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch> && Batch<float, Arch>::size == 8)
    return _mm256_castsi256_ps(_mm256_min_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
#endif
#if defined(__AVX512F__)
  if constexpr (is_avx512<Arch>)
    return _mm512_castsi512_ps(_mm512_min_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
#endif
  return detail::pick_bits<std::int32_t>(a, b,
                                         [](std::int32_t s, std::int32_t t) { return s < t; });
}

/// The float whose bits are the larger unsigned integer: a negative float before any positive one,
/// of two of one sign the larger magnitude.
template <class Arch>
inline Batch<float, Arch> max_unsigned_bits(Batch<float, Arch> a, Batch<float, Arch> b) noexcept {
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch> && Batch<float, Arch>::size == 8)
    return _mm256_castsi256_ps(_mm256_max_epu32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
#endif
#if defined(__AVX512F__)
  if constexpr (is_avx512<Arch>)
    return _mm512_castsi512_ps(_mm512_max_epu32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
#endif
  return detail::pick_bits<std::uint32_t>(a, b,
                                          [](std::uint32_t s, std::uint32_t t) { return s > t; });
}

}  // namespace cafeq::simd
