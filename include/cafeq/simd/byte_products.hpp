/// Products of bytes, added up in fours.
///
/// ByteProducts<Arch, Signed> is a set of static functions over batches of 32-bit lanes, each of
/// which holds four bytes: add() gives sum + a_0 b_0 + … + a_3 b_3 in every lane, for bytes a below
/// 128 (of any sign where Signed) and b in −127 … 127. Where `narrow`, a sum is a pair of 16-bit
/// sums, which the caller must widen() before one of them can overflow: registers of x86 multiply
/// bytes into 16 bits. Elsewhere sums have 32 bits from the start, and widen() leaves them alone.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cafeq/simd/arch.hpp"

namespace cafeq::simd {

template <class Arch, bool Signed>
struct ByteProducts {
  using I = Batch<std::int32_t, Arch>;
  using Sum = I;
  static constexpr bool narrow = false;

  static Sum zero() noexcept { return I(0); }
  static Sum add(const Sum& sum, const I& a, const I& b) noexcept {
    alignas(64) std::int8_t s[4 * I::size], t[4 * I::size];
    alignas(64) std::int32_t total[I::size];
    a.store_aligned(reinterpret_cast<std::int32_t*>(s));
    b.store_aligned(reinterpret_cast<std::int32_t*>(t));
    sum.store_aligned(total);
    for (std::size_t l = 0; l < I::size; ++l)
      for (std::size_t i = 4 * l; i < 4 * l + 4; ++i)
        total[l] += std::int32_t(s[i]) * std::int32_t(t[i]);
    return I::load_aligned(total);
  }
  static I widen(const Sum& sum) noexcept { return sum; }
};

#if defined(__AVX2__)
template <class Arch, bool Signed>
  requires is_avx2<Arch>
struct ByteProducts<Arch, Signed> {
  using I = Batch<std::int32_t, Arch>;
  using Sum = I;
  static constexpr bool narrow = true;

  static Sum zero() noexcept { return _mm256_setzero_si256(); }
  static Sum add(const Sum& sum, const I& a, const I& b) noexcept {
    __m256i products;
    if constexpr (Signed)
      products = _mm256_maddubs_epi16(_mm256_abs_epi8(a), _mm256_sign_epi8(b, a));
    else products = _mm256_maddubs_epi16(a, b);
    return _mm256_add_epi16(sum, products);
  }
  static I widen(const Sum& sum) noexcept { return _mm256_madd_epi16(sum, _mm256_set1_epi16(1)); }
};
#endif

#if defined(__AVX512BW__)
template <class Arch, bool Signed>
  requires is_avx512<Arch>
struct ByteProducts<Arch, Signed> {
  using I = Batch<std::int32_t, Arch>;
  using Sum = I;
  static constexpr bool narrow = true;

  static Sum zero() noexcept { return _mm512_setzero_si512(); }
  static Sum add(const Sum& sum, const I& a, const I& b) noexcept {
    __m512i products;
    if constexpr (Signed)
      products = _mm512_maddubs_epi16(
          _mm512_abs_epi8(a),
          _mm512_mask_sub_epi8(b, _mm512_movepi8_mask(a), _mm512_setzero_si512(), b));
    else products = _mm512_maddubs_epi16(a, b);
    return _mm512_add_epi16(sum, products);
  }
  static I widen(const Sum& sum) noexcept { return _mm512_madd_epi16(sum, _mm512_set1_epi16(1)); }
};
#endif

#if defined(__aarch64__)
template <class Arch, bool Signed>
  requires is_neon64<Arch>
struct ByteProducts<Arch, Signed> {
  using I = Batch<std::int32_t, Arch>;
  using Sum = I;
  static constexpr bool narrow = false;

  static Sum zero() noexcept { return I(0); }
  static Sum add(const Sum& sum, const I& a, const I& b) noexcept {
    const int8x16_t s = vreinterpretq_s8_s32(a), t = vreinterpretq_s8_s32(b);
    const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(s), vget_low_s8(t)));
    const int32x4_t high = vpaddlq_s16(vmull_high_s8(s, t));
    return vaddq_s32(sum, vpaddq_s32(low, high));
  }
  static I widen(const Sum& sum) noexcept { return sum; }
};
#endif

}  // namespace cafeq::simd
