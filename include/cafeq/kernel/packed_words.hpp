/// Words of packed codes: what PackedProduct does to a block of them.
///
/// A block is one 32-bit word a lane (24 bits at 3 bits), each of which holds `fields` consecutive
/// codes, times activations that lie field by field, lane by lane. FloatKernel multiplies by
/// floats, ByteKernel by int8; both leave one float a lane, the sum of what its word has met.
/// Longer than most headers: each step has a branch for four kinds of registers.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cafeq/simd/compat.hpp"

namespace cafeq::kernel {

namespace detail {

static_assert(std::endian::native == std::endian::little,
              "cafeq: words of packed codes are read as they lie in memory");

/// Bits of the kernel that takes codes of `bits` bits.
constexpr int kernel_bits(int bits) noexcept {
  return bits == 2 || bits == 3 || bits == 4 ? bits : 8;
}
/// Codes of one word.
constexpr Index word_fields(int bits) noexcept { return bits == 3 ? 8 : 32 / bits; }

/// One word a lane.
template <int Bits, class Arch>
inline Batch<std::int32_t, Arch> load_words(const std::uint8_t* p) noexcept {
  using I = Batch<std::int32_t, Arch>;
  if constexpr (Bits != 3) {
    return I::load_unaligned(reinterpret_cast<const std::int32_t*>(p));
  } else {
#if defined(__AVX2__)
    if constexpr (simd::is_avx2<Arch> && I::size == 8) {
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
      word[l] = std::int32_t(p[3 * l]) | std::int32_t(p[3 * l + 1]) << 8 |
                std::int32_t(p[3 * l + 2]) << 16;
    return I::load_aligned(word);
  }
}

/// Lane l of the result is the entry of a table of 16 that the low bits of lane l name.
template <int Bits, class Arch>
inline Batch<float, Arch> look_up(const float* table,
                                  const Batch<std::int32_t, Arch>& code) noexcept {
#if defined(__AVX2__)
  if constexpr (simd::is_avx2<Arch>) {
    const __m256 low = _mm256_permutevar8x32_ps(_mm256_load_ps(table), code);
    if constexpr (Bits < 4) return low;
    const __m256 high = _mm256_permutevar8x32_ps(_mm256_load_ps(table + 8), code);
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(code, 28)));
  }
#endif
#if defined(__AVX512F__)
  if constexpr (simd::is_avx512<Arch>) return _mm512_permutexvar_ps(code, _mm512_load_ps(table));
#endif
  constexpr std::size_t size = Batch<float, Arch>::size;
  alignas(64) std::int32_t index[size];
  alignas(64) float level[size];
  code.store_aligned(index);
  for (std::size_t l = 0; l < size; ++l) level[l] = table[index[l] & 15];
  return Batch<float, Arch>::load_aligned(level);
}

/// Codes in their places times fp32 activations that were divided by what the place is worth. With
/// a Table the codes name levels; table(k) has those of field k, times what its place is worth.
template <int Bits, class A, bool Table = false>
struct FloatKernel {
  static_assert(!Table || Bits <= 4);
  using Arch = A;
  using V = Batch<float, Arch>;
  using I = Batch<std::int32_t, Arch>;
  using X = float;
  static constexpr Index lanes = Index(V::size);
  static constexpr int fields = int(word_fields(Bits));
  static constexpr Index block = lanes * fields;
  static constexpr Index block_bytes = block * Bits / 8;
  static constexpr Index longest =
      1024;  // weights of one sum, so that rounding errors do not pile up
  static constexpr float bias = 0;
  /// Fields from the middle of the word on are shifted down to the first ones: no field reaches the
  /// sign.
  static constexpr int half = fields / 2;

  template <int Rows, int Vectors, bool>
  struct Tile {
    const float* table;
    V sum[Rows][Vectors][2];  // of the even fields and the odd ones: one chain of additions would
                              // be slower than what feeds it

    explicit Tile(const float* levels) noexcept : table(levels) {
      CAFEQ_UNROLL
      for (int r = 0; r < Rows; ++r) {
        CAFEQ_UNROLL
        for (int v = 0; v < Vectors; ++v) sum[r][v][0] = sum[r][v][1] = V(0.0f);
      }
    }
    void add(const std::uint8_t* const (&w)[Rows], Index byte, const float* x,
             Index stride) noexcept {
      I word[Rows];
      CAFEQ_UNROLL
      for (int r = 0; r < Rows; ++r) word[r] = load_words<Bits, Arch>(w[r] + byte);
      CAFEQ_UNROLL
      for (int k = 0; k < fields; ++k) {
        const I mask(((1 << Bits) - 1) << (Bits * (k % half)));
        if (k == half && !Table) {
          CAFEQ_UNROLL
          for (int r = 0; r < Rows; ++r) word[r] = word[r] >> (Bits * half);
        }
        V code[Rows];
        CAFEQ_UNROLL
        for (int r = 0; r < Rows; ++r) {
          if constexpr (Table)
            code[r] = look_up<Bits, Arch>(table + 16 * (k % half),
                                          k == 0 ? word[r] : word[r] >> (Bits * k));
          else code[r] = xsimd::to_float(word[r] & mask);
        }
        CAFEQ_UNROLL
        for (int v = 0; v < Vectors; ++v) {
          const V value = V::load_aligned(x + v * stride + k * lanes);
          CAFEQ_UNROLL
          for (int r = 0; r < Rows; ++r)
            sum[r][v][k % 2] = simd::fma(code[r], value, sum[r][v][k % 2]);
        }
      }
    }
    void carry() noexcept {}
    V total(int r, int v) const noexcept { return sum[r][v][0] + sum[r][v][1]; }
  };
  static constexpr Index run = longest;  // blocks between carries

  static V factor(const V& scale, const float*, Index) noexcept { return scale; }
};

/// Sums of four products of bytes a lane: codes below 128 or, where Signed, of any sign, times −127
/// … 127.
template <class Arch, bool Signed>
struct ByteProducts {
  using I = Batch<std::int32_t, Arch>;
  using Narrow = I;
  static constexpr bool narrow = false;  // whether Narrow holds 16-bit sums
  static Narrow zero() noexcept { return I(0); }
  static Narrow add(const Narrow& sum, const I& codes, const I& x) noexcept {
    alignas(64) std::int8_t a[4 * I::size], b[4 * I::size];
    alignas(64) std::int32_t s[I::size];
    codes.store_aligned(reinterpret_cast<std::int32_t*>(a));
    x.store_aligned(reinterpret_cast<std::int32_t*>(b));
    sum.store_aligned(s);
    for (std::size_t l = 0; l < I::size; ++l)
      for (std::size_t i = 4 * l; i < 4 * l + 4; ++i)
        s[l] += std::int32_t(a[i]) * std::int32_t(b[i]);
    return I::load_aligned(s);
  }
  static I widen(const Narrow& sum) noexcept { return sum; }
};

#if defined(__AVX2__)
template <class Arch, bool Signed>
  requires simd::is_avx2<Arch>
struct ByteProducts<Arch, Signed> {
  using I = Batch<std::int32_t, Arch>;
  using Narrow = I;
  static constexpr bool narrow = true;
  static Narrow zero() noexcept { return _mm256_setzero_si256(); }
  static Narrow add(const Narrow& sum, const I& codes, const I& x) noexcept {
    __m256i products;
    if constexpr (Signed)
      products = _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes));
    else products = _mm256_maddubs_epi16(codes, x);
    return _mm256_add_epi16(sum, products);
  }
  static I widen(const Narrow& sum) noexcept {
    return _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
  }
};
#endif
#if defined(__AVX512BW__)
template <class Arch, bool Signed>
  requires simd::is_avx512<Arch>
struct ByteProducts<Arch, Signed> {
  using I = Batch<std::int32_t, Arch>;
  using Narrow = I;
  static constexpr bool narrow = true;
  static Narrow zero() noexcept { return _mm512_setzero_si512(); }
  static Narrow add(const Narrow& sum, const I& codes, const I& x) noexcept {
    __m512i products;
    if constexpr (Signed)
      products = _mm512_maddubs_epi16(
          _mm512_abs_epi8(codes),
          _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(codes), _mm512_setzero_si512(), x));
    else products = _mm512_maddubs_epi16(codes, x);
    return _mm512_add_epi16(sum, products);
  }
  static I widen(const Narrow& sum) noexcept {
    return _mm512_madd_epi16(sum, _mm512_set1_epi16(1));
  }
};
#endif
#if defined(__aarch64__)
template <class Arch, bool Signed>
  requires simd::is_neon64<Arch>
struct ByteProducts<Arch, Signed> {
  using I = Batch<std::int32_t, Arch>;
  using Narrow = I;
  static constexpr bool narrow = false;
  static Narrow zero() noexcept { return I(0); }
  static Narrow add(const Narrow& sum, const I& codes, const I& x) noexcept {
    const int8x16_t a = vreinterpretq_s8_s32(codes), b = vreinterpretq_s8_s32(x);
    const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
    const int32x4_t high = vpaddlq_s16(vmull_high_s8(a, b));
    return vaddq_s32(sum, vpaddq_s32(low, high));
  }
  static I widen(const Narrow& sum) noexcept { return sum; }
};
#endif

/// Codes as bytes, in `streams` vectors a block, times int8 activations. Codes of 8 bits are taken
/// less 128.
template <int Bits, class A>
struct ByteKernel {
  using Arch = A;
  using V = Batch<float, Arch>;
  using I = Batch<std::int32_t, Arch>;
  using X = std::int8_t;
  using Products = ByteProducts<Arch, Bits == 8>;
  static constexpr Index lanes = Index(V::size);
  static constexpr Index fields = word_fields(Bits);
  static constexpr Index block = lanes * fields;
  static constexpr Index block_bytes = block * Bits / 8;
  static constexpr int streams = int(fields) / 4;
  static constexpr float bias = Bits == 8 ? 128 : 0;
  static constexpr Index largest =
      Bits == 8 ? 128 : (1 << Bits) - 1;  // magnitude of what is multiplied
  /// A lane has at most longest/4 products of at most 128·127: below 2^24, so that the conversion
  /// of their sum to float is exact.
  static constexpr Index longest = 4096;
  static_assert(lanes >= 4 && longest / lanes * 128 * 127 < (1 << 24));
  /// Blocks whose products, two of each stream, are certain to fit in 16 bits.
  static constexpr Index run = Products::narrow ? 32767 / (2 * streams * largest * 127) : longest;
  static_assert(run >= 1);

  /// The entry of a block's x that stands at byte i of stream s: that of the code which unpack()
  /// brings there.
  static constexpr Index entry(Index s, Index i) noexcept {
    const Index word = i / 4, byte = i % 4;
    return fields * word + (Bits == 3 ? 4 * s + byte : streams * byte + s);
  }
  template <int S>
  static I unpack(const I& word) noexcept {
    if constexpr (Bits == 8) {
      return word ^ I(std::int32_t(0x80808080u));
    } else if constexpr (Bits == 3) {
      const I four = S == 0 ? word : word >> 12;
      const I pairs = (four & I(0x3f)) | ((four << 10) & I(0x3f0000));
      return (pairs & I(0x070007)) | ((pairs << 5) & I(0x07000700));
    } else {
      const I mask(Bits == 4 ? 0x0f0f0f0f : 0x03030303);
      return S == 0 ? word & mask : (word >> (Bits * S)) & mask;
    }
  }

  /// Short: no more than `run` blocks are added, and never carried.
  template <int Rows, int Vectors, bool Short>
  struct Tile {
    typename Products::Narrow narrow[Rows][Vectors];
    I wide[Short ? 1 : Rows][Short ? 1 : Vectors];

    explicit Tile(const float*) noexcept {
      CAFEQ_UNROLL
      for (int r = 0; r < Rows; ++r) {
        CAFEQ_UNROLL
        for (int v = 0; v < Vectors; ++v) {
          narrow[r][v] = Products::zero();
          if constexpr (!Short) wide[r][v] = I(0);
        }
      }
    }
    template <int S>
    void add_streams(const I (&word)[Rows], const std::int8_t* x, Index stride) noexcept {
      if constexpr (S < streams) {
        I codes[Rows];
        CAFEQ_UNROLL
        for (int r = 0; r < Rows; ++r) codes[r] = unpack<S>(word[r]);
        CAFEQ_UNROLL
        for (int v = 0; v < Vectors; ++v) {
          const I values = I::load_aligned(
              reinterpret_cast<const std::int32_t*>(x + v * stride + S * 4 * lanes));
          CAFEQ_UNROLL
          for (int r = 0; r < Rows; ++r)
            narrow[r][v] = Products::add(narrow[r][v], codes[r], values);
        }
        add_streams<S + 1>(word, x, stride);
      }
    }
    void add(const std::uint8_t* const (&w)[Rows], Index byte, const std::int8_t* x,
             Index stride) noexcept {
      I word[Rows];
      CAFEQ_UNROLL
      for (int r = 0; r < Rows; ++r) word[r] = load_words<Bits, Arch>(w[r] + byte);
      add_streams<0>(word, x, stride);
    }
    void carry() noexcept {
      if constexpr (!Short) {
        CAFEQ_UNROLL
        for (int r = 0; r < Rows; ++r) {
          CAFEQ_UNROLL
          for (int v = 0; v < Vectors; ++v) {
            wide[r][v] = wide[r][v] + Products::widen(narrow[r][v]);
            narrow[r][v] = Products::zero();
          }
        }
      }
    }
    V total(int r, int v) const noexcept {
      if constexpr (Short) return xsimd::to_float(Products::widen(narrow[r][v]));
      else return xsimd::to_float(wide[r][v]);
    }
  };

  static V factor(const V& scale, const float* steps, Index word) noexcept {
    return scale * V::load_aligned(steps + word);
  }
};

/// Eight codes of `bits` < 8 bits, as they lie in the low bits, one a byte.
template <class Arch>
inline std::uint64_t spread_codes(std::uint64_t codes, int bits) noexcept {
  const auto low = [bits](int count) { return (std::uint64_t(1) << (bits * count)) - 1; };
  codes = (codes & low(4)) | ((codes >> (4 * bits)) & low(4)) << 32;
  codes = (codes & low(2) * 0x0000000100000001u) |
          ((codes >> (2 * bits)) & low(2) * 0x0000000100000001u) << 16;
  return (codes & low(1) * 0x0001000100010001u) | ((codes >> bits) & low(1) * 0x0001000100010001u)
                                                      << 8;
}

/// The codes of a row plus `base`, one a byte.
template <class Arch>
inline void unpack_row(const std::uint8_t* packed, int bits, Index cols, std::uint8_t base,
                       std::uint8_t* codes) noexcept {
  const auto eight = [&](Index at, std::size_t size) {  // codes, as they lie
    std::uint64_t word = 0;
    std::memcpy(&word, packed + at, size);
    return spread_codes<Arch>(word, bits) + base * 0x0101010101010101u;
  };
  const Index bytes = ceil_div(cols * bits, 8);
  Index j = 0, at = 0;
  for (; at + 8 <= bytes && j + 8 <= cols; j += 8, at += bits) {
    const std::uint64_t spread = eight(at, 8);
    std::memcpy(codes + j, &spread, 8);
  }
  for (; j < cols; j += 8, at += bits) {
    const std::uint64_t spread = eight(at, std::size_t(std::min<Index>(bytes - at, 8)));
    std::memcpy(codes + j, &spread, std::size_t(std::min<Index>(cols - j, 8)));
  }
}

/// f(std::integral_constant<int, bits>) for the bits of a kernel.
template <class F>
void with_kernel_bits(int bits, F&& f) {
  switch (kernel_bits(bits)) {
    case 2: return f(std::integral_constant<int, 2>{});
    case 3: return f(std::integral_constant<int, 3>{});
    case 4: return f(std::integral_constant<int, 4>{});
    default: return f(std::integral_constant<int, 8>{});
  }
}

inline constexpr Index padded(Index n) noexcept { return ceil_div(n, 16) * 16; }

}  // namespace detail

}  // namespace cafeq::kernel
