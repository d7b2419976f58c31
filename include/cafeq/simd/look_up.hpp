/// Tables of a few floats, read by every lane at a place of its own.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cafeq/simd/arch.hpp"

namespace cafeq::simd {

/// Lane l of the result is the entry of a table of 16 floats, aligned to 64 bytes, that the low 4
/// bits of lane l name. With Bits below 4 the table has its first 8 entries twice, and only 3 of
/// the bits are looked at.
template <int Bits, class Arch>
inline Batch<float, Arch> look_up(const float* table,
                                  const Batch<std::int32_t, Arch>& index) noexcept {
  static_assert(Bits >= 1 && Bits <= 4);
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch>) {
    const __m256 low = _mm256_permutevar8x32_ps(_mm256_load_ps(table), index);
    if constexpr (Bits < 4) return low;
    const __m256 high = _mm256_permutevar8x32_ps(_mm256_load_ps(table + 8), index);
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
  }
#endif
#if defined(__AVX512F__)
  if constexpr (is_avx512<Arch>) return _mm512_permutexvar_ps(index, _mm512_load_ps(table));
#endif
  constexpr std::size_t size = Batch<float, Arch>::size;
  alignas(64) std::int32_t place[size];
  alignas(64) float entry[size];
  index.store_aligned(place);
  for (std::size_t l = 0; l < size; ++l) entry[l] = table[place[l] & 15];
  return Batch<float, Arch>::load_aligned(entry);
}

}  // namespace cafeq::simd
