/// Batches of 16-bit words: what xsimd 8.1 lacks or does slowly.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cafeq/simd/lanes.hpp"
#include "cafeq/simd/lanewise.hpp"

namespace cafeq::simd {

/// Whether vectors of 16-bit words have instructions in AVX-512, which its first edition leaves
/// out.
template <class Arch>
inline constexpr bool has_wide_words = std::is_base_of_v<xsimd::avx512bw, Arch>;

template <class Arch>
using Words = Batch<std::uint16_t, Arch>;
template <class Arch>
using SignedWords = Batch<std::int16_t, Arch>;

/// The architecture for `Count` words whose lanes are gathered and reduced, which costs a vector
/// that is too wide more than it saves.
#if defined(__AVX2__)
template <class Arch, int Count>
using few_words =
    std::conditional_t<is_avx2<Arch> || is_avx512<Arch>,
                       std::conditional_t<(Count >= 16), xsimd::avx2, xsimd::sse4_2>, Arch>;
#else
template <class Arch, int Count>
using few_words = Arch;
#endif

/// The upper halves of squares: v² >> 16, at most 2^14.
template <class Arch>
inline Words<Arch> square_high(SignedWords<Arch> v) noexcept {
#if defined(__AVX512BW__)
  if constexpr (has_wide_words<Arch>) return _mm512_mulhi_epi16(v, v);
#endif
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch> && Words<Arch>::size == 16) return _mm256_mulhi_epi16(v, v);
#endif
#if defined(__SSE2__)
  if constexpr (is_sse2<Arch> && Words<Arch>::size == 8) return _mm_mulhi_epi16(v, v);
#endif
  constexpr std::size_t size = Words<Arch>::size;
  alignas(64) std::int16_t lane[size];
  alignas(64) std::uint16_t square[size];
  v.store_aligned(lane);
  for (std::size_t l = 0; l < size; ++l)
    square[l] = std::uint16_t(std::int32_t(lane[l]) * lane[l] >> 16);
  return Words<Arch>::load_aligned(square);
}

/// The smaller words, unsigned.
template <class Arch>
inline Words<Arch> min_words(Words<Arch> a, Words<Arch> b) noexcept {
#if defined(__SSE2__)
  if constexpr (is_sse2<Arch> && Words<Arch>::size == 8)
    return _mm_sub_epi16(a, _mm_subs_epu16(a, b));
#endif
  return xsimd::min(a, b);
}

/// The smallest lane, unsigned.
template <class Arch>
inline std::uint16_t smallest_word(Words<Arch> v) noexcept {
#if defined(__AVX512BW__)
  if constexpr (has_wide_words<Arch>) {
    const __m256i half = _mm256_min_epu16(_mm512_maskz_extracti64x4_epi64(0xf, v, 0),
                                          _mm512_maskz_extracti64x4_epi64(0xf, v, 1));
    return std::uint16_t(_mm_cvtsi128_si32(_mm_minpos_epu16(
        _mm_min_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1)))));
  }
#endif
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch> && Words<Arch>::size == 16)
    return std::uint16_t(_mm_cvtsi128_si32(_mm_minpos_epu16(
        _mm_min_epu16(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1)))));
#endif
  return detail::fold_lanes(v, [](std::uint16_t a, std::uint16_t b) { return b < a ? b : a; });
}

/// The smallest lane, unsigned, and the first that holds it.
struct SmallestLane {
  std::uint32_t value;
  std::uint32_t lane;
};

template <class Arch>
inline SmallestLane smallest_lane(Words<Arch> v) noexcept {
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch> && Words<Arch>::size == 16) {
    const auto low = std::uint32_t(_mm_cvtsi128_si32(
        _mm_minpos_epu16(_mm256_castsi256_si128(v))));  // the lane above the value
    const auto high =
        std::uint32_t(_mm_cvtsi128_si32(_mm_minpos_epu16(_mm256_extracti128_si256(v, 1))));
    const bool is_low = (low & 0xffff) <= (high & 0xffff);
    return {(is_low ? low : high) & 0xffff, is_low ? low >> 16 : (high >> 16) + 8};
  }
#endif
#if defined(__SSE4_1__)
  if constexpr (std::is_base_of_v<xsimd::sse4_1, Arch> && Words<Arch>::size == 8) {
    const auto both = std::uint32_t(_mm_cvtsi128_si32(_mm_minpos_epu16(v)));
    return {both & 0xffff, both >> 16};
  }
#endif
  constexpr std::size_t size = Words<Arch>::size;
  alignas(64) std::uint16_t lane[size];
  v.store_aligned(lane);
  std::uint32_t least = 0;
  for (std::uint32_t l = 1; l < size; ++l)
    if (lane[l] < lane[least]) least = l;
  return {lane[least], least};
}

/// Lane l is p[l · stride].
template <class Arch, class T>
inline Batch<T, Arch> load_strided(const T* p, std::ptrdiff_t stride) noexcept {
  static_assert(sizeof(T) == 2);
  [[maybe_unused]] const auto at = [&](int l) { return std::int16_t(p[l * stride]); };
#if defined(__SSE2__)
  if constexpr (is_sse2<Arch> && Batch<T, Arch>::size == 8)
    return _mm_setr_epi16(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7));
#endif
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch> && Batch<T, Arch>::size == 16)
    return _mm256_setr_epi16(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8), at(9),
                             at(10), at(11), at(12), at(13), at(14), at(15));
#endif
  constexpr std::size_t size = Batch<T, Arch>::size;
  alignas(64) T lane[size];
  for (std::size_t l = 0; l < size; ++l) lane[l] = p[std::ptrdiff_t(l) * stride];
  return Batch<T, Arch>::load_aligned(lane);
}

/// Each word 2^Shift times: lane l is p[l >> Shift], Shift from 1 to 5. Reads no word beyond those.
template <int Shift, class Arch>
inline Words<Arch> load_repeated(const std::uint16_t* p) noexcept {
  static_assert(Shift >= 1 && Shift <= 5);
  constexpr std::size_t size = Words<Arch>::size;
  [[maybe_unused]] const auto at = [&](int i) { return std::int16_t(p[i]); };
#if defined(__AVX2__)
  [[maybe_unused]] const auto pair = [&] {
    return std::int32_t(std::uint32_t(p[0]) | std::uint32_t(p[1]) << 16);
  };
  [[maybe_unused]] const auto four = [&] {
    std::int64_t words;
    std::memcpy(&words, p, sizeof words);
    return words;
  };
#endif
#if defined(__AVX512BW__)
  // Each quarter of a register takes its words from a copy of all of them. (The masks are all ones:
  // g++ 12 warns about the unmasked forms.)
  if constexpr (has_wide_words<Arch> && Shift >= 2) {
    constexpr std::int64_t word = 0x0100010001000100;
    constexpr std::int64_t next = 0x0202020202020202;
    if constexpr (Shift == 5) {
      return _mm512_set1_epi16(at(0));
    } else if constexpr (Shift == 4) {
      return _mm512_maskz_shuffle_epi8(~__mmask64(0), _mm512_set1_epi32(pair()),
                                       _mm512_set_epi64(word + next, word + next, word + next,
                                                        word + next, word, word, word, word));
    } else if constexpr (Shift == 3) {
      return _mm512_maskz_shuffle_epi8(
          ~__mmask64(0), _mm512_set1_epi64(four()),
          _mm512_set_epi64(word + 3 * next, word + 3 * next, word + 2 * next, word + 2 * next,
                           word + next, word + next, word, word));
    } else {
      return _mm512_maskz_shuffle_epi8(
          ~__mmask64(0),
          _mm512_maskz_broadcast_i32x4(0xffff,
                                       _mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          _mm512_set_epi64(word + 7 * next, word + 6 * next, word + 5 * next, word + 4 * next,
                           word + 3 * next, word + 2 * next, word + next, word));
    }
  }
#endif
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch> && size == 16 && Shift >= 2) {
    constexpr std::int64_t word = 0x0100010001000100;
    constexpr std::int64_t next = 0x0202020202020202;
    if constexpr (Shift >= 4) return _mm256_set1_epi16(at(0));
    else if constexpr (Shift == 3)
      return _mm256_shuffle_epi8(_mm256_set1_epi32(pair()),
                                 _mm256_set_epi64x(word + next, word + next, word, word));
    else
      return _mm256_shuffle_epi8(
          _mm256_set1_epi64x(four()),
          _mm256_set_epi64x(word + 3 * next, word + 2 * next, word + next, word));
  }
#endif
#if defined(__SSE2__)
  if constexpr (is_sse2<Arch> && size == 8) {
    if constexpr (Shift >= 3) return _mm_set1_epi16(at(0));
    else if constexpr (Shift == 2)
      return _mm_set_epi16(at(1), at(1), at(1), at(1), at(0), at(0), at(0), at(0));
    else return _mm_set_epi16(at(3), at(3), at(2), at(2), at(1), at(1), at(0), at(0));
  }
#endif
  alignas(64) std::uint16_t lane[size];
  for (std::size_t l = 0; l < size; ++l) lane[l] = p[l >> Shift];
  return Words<Arch>::load_aligned(lane);
}

}  // namespace cafeq::simd
