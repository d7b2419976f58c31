/// Codes of 1 to 8 bits to and from the dense rows of core/packed.hpp, a vector at a time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "cafeq/core/packed.hpp"
#include "cafeq/kernel/codec.hpp"

namespace cafeq::kernel {

namespace detail {

#if defined(__AVX2__)
/// inverse_scale() of up to eight.
inline void inverse_scales(const float* scale, Index count, float* inverse) noexcept {
  if (count < 8) {
    for (Index g = 0; g < count; ++g) inverse[g] = inverse_scale(scale[g]);
    return;
  }
  const __m256 s = _mm256_loadu_ps(scale);
  _mm256_storeu_ps(inverse, _mm256_and_ps(_mm256_cmp_ps(s, _mm256_setzero_ps(), _CMP_NEQ_UQ),
                                          _mm256_div_ps(_mm256_set1_ps(1.0f), s)));
}

/// 32 codes become 4 · Bits bytes; writes 16 bytes beyond the first 2 · Bits.
template <class Arch>
inline void pack_32(const std::uint8_t* codes, int bits, __m256i compress,
                    std::uint8_t* out) noexcept {
  const __m256i c = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
  // Neighbours join: two codes in 16 bits, four in 32, eight in 64.
  const __m256i twos = _mm256_maddubs_epi16(_mm256_set1_epi16(short(1 | (1 << bits << 8))), c);
  const __m256i fours = _mm256_madd_epi16(twos, _mm256_set1_epi32(1 | (1 << 2 * bits << 16)));
  const __m256i low = _mm256_and_si256(fours, _mm256_set1_epi64x(0xffffffff));
  const __m256i eights =
      _mm256_or_si256(low, _mm256_slli_epi64(_mm256_srli_epi64(fours, 32), 4 * bits));
  const __m256i dense = _mm256_shuffle_epi8(eights, compress);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_castsi256_si128(dense));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2 * bits), _mm256_extracti128_si256(dense, 1));
}
#endif

}  // namespace detail

/// pack_codes(), vectorised with AVX2 up to 7 bits; elsewhere pack_codes() itself.
template <class Arch = DefaultArch>
void pack(std::span<const std::uint8_t> codes, int bits, std::span<std::uint8_t> packed) noexcept {
  std::size_t done = 0;
  if (bits == 8) {
    std::copy(codes.begin(), codes.end(), packed.begin());
    return;
  }
#if defined(__AVX2__)
  if constexpr (simd::is_avx2<Arch> || simd::is_avx512<Arch>) {
    alignas(32) std::int8_t order[32];
    for (int i = 0; i < 32; ++i) {
      const int byte = i % 16;
      order[i] = std::int8_t(byte < bits ? byte : byte < 2 * bits ? 8 + byte - bits : -1);
    }
    const __m256i compress = _mm256_load_si256(reinterpret_cast<const __m256i*>(order));
    std::uint8_t* out = packed.data();
    const std::uint8_t* end = out + packed.size();
    for (; done + 32 <= codes.size() && end - out >= 2 * bits + 16; done += 32, out += 4 * bits)
      detail::pack_32<Arch>(codes.data() + done, bits, compress, out);
  }
#endif
  pack_codes(codes.subspan(done), bits, packed.subspan(done / 8 * std::size_t(bits)));
}

/// The codes of consecutive groups of `width` weights at their scales and offsets, packed, the last
/// group perhaps shorter; width a multiple of 8. Fused for 4 bits and groups of a multiple of 64
/// with AVX2; elsewhere a few codes at a time wait on the stack.
template <class Arch = DefaultArch, class Levels>
void encode_packed(std::span<const float> x, Index width, const Levels& levels, const float* scale,
                   const float* offset, int bits, std::span<std::uint8_t> packed) noexcept {
  CAFEQ_ASSERT(width % 8 == 0 || width >= Index(x.size()));
  const Index n = Index(x.size());
#if defined(__AVX2__)
  if constexpr (simd::is_avx2<Arch> || simd::is_avx512<Arch>) {
    if (bits == 4 && width % 64 == 0 && n % 64 == 0) {
      alignas(32) float per_unit[8];
      for (Index j = 0, g = 0; j < n; ++g) {
        if (g % 8 == 0)
          detail::inverse_scales(scale + g, n - j >= 8 * width ? 8 : ceil_div(n - j, width),
                                 per_unit);
        const __m256 inverse = _mm256_set1_ps(per_unit[g % 8]), start = _mm256_set1_ps(offset[g]);
        for (const Index end = std::min(j + width, n); j < end; j += 64)
          detail::encode_64_nibbles<Arch>(x.data() + j, levels, inverse, start,
                                          packed.data() + j / 2);
      }
      return;
    }
  }
#endif
  constexpr Index at_once = 1024;
  std::uint8_t codes[at_once];
  Index g = 0, next_group = width;
  for (Index begin = 0; begin < n; begin += at_once) {
    const Index end = std::min(begin + at_once, n);
    for (Index j = begin; j < end;) {
      if (j == next_group) ++g, next_group += width;
      const Index stop = std::min(end, next_group);
      encode<Arch>(x.subspan(std::size_t(j), std::size_t(stop - j)), levels,
                   ScaleOffset{scale[g], offset[g]},
                   std::span(codes).subspan(std::size_t(j - begin), std::size_t(stop - j)));
      j = stop;
    }
    pack<Arch>(std::span<const std::uint8_t>(codes).first(std::size_t(end - begin)), bits,
               packed.subspan(std::size_t(begin / 8 * bits)));
  }
}

/// out[i] = scale[g] · code i + start[g] of consecutive groups of `width` weights, unpacked and
/// decoded at once; width a multiple of 8. (The product of a half and a code is exact, so that no
/// contraction can change the sum.) Vectorised with AVX2, plain loops elsewhere.
template <class Arch = DefaultArch>
void decode_packed(std::span<const std::uint8_t> packed, int bits, Index width, const float* scale,
                   const float* start, std::span<float> out) noexcept {
  const Index n = Index(out.size());
  CAFEQ_ASSERT((width % 8 == 0 || width >= n) && Index(packed.size()) >= ceil_div(n * bits, 8));
  Index done = 0;
#if defined(__AVX2__)
  if constexpr (simd::is_avx2<Arch> || simd::is_avx512<Arch>) {
    alignas(32) std::int8_t bytes[32];
    alignas(32) std::int32_t shifts[8];
    for (int k = 0; k < 8; ++k) {  // the two bytes that code k lies in
      bytes[4 * k] = std::int8_t(k * bits / 8);
      bytes[4 * k + 1] = std::int8_t(k * bits / 8 + 1);
      bytes[4 * k + 2] = bytes[4 * k + 3] = -1;
      shifts[k] = k * bits % 8;
    }
    const __m256i spread = _mm256_load_si256(reinterpret_cast<const __m256i*>(bytes));
    const __m256i shift = _mm256_load_si256(reinterpret_cast<const __m256i*>(shifts));
    const __m256i mask = _mm256_set1_epi32((1 << bits) - 1);
    // Eight bytes are read for eight codes.
    const Index readable = Index(packed.size()) < 8 ? 0 : (Index(packed.size()) - 8) / bits + 1;
    const Index eights = std::min(n / 8, readable);
    for (Index g = 0; done < 8 * eights; ++g) {
      const __m256 s = _mm256_set1_ps(scale[g]), z = _mm256_set1_ps(start[g]);
      const Index end = std::min(done + width, 8 * eights);
      const std::uint8_t* p = packed.data() + done / 8 * bits;
      for (; done < end; done += 8, p += bits) {
        const __m256i eight =
            _mm256_broadcastq_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
        const __m256i codes =
            _mm256_and_si256(_mm256_srlv_epi32(_mm256_shuffle_epi8(eight, spread), shift), mask);
        _mm256_storeu_ps(out.data() + done,
                         _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(codes), s), z));
      }
    }
  }
#endif
  std::uint8_t codes[64];
  for (; done < n;) {
    const Index count = std::min<Index>(n - done, 64);
    unpack_codes(packed.subspan(std::size_t(done / 8 * bits)), bits,
                 std::span(codes).first(std::size_t(count)));
    for (Index i = 0; i < count; ++i) {
      const Index g = (done + i) / width;
      out[std::size_t(done + i)] = float(codes[i]) * scale[g] + start[g];
    }
    done += count;
  }
}

}  // namespace cafeq::kernel
