/// Words of packed codes times int8 activations: what PackedProduct does to a block of them.
#pragma once

#include "cafeq/kernel/code_words.hpp"
#include "cafeq/simd/byte_products.hpp"

namespace cafeq::kernel {

namespace detail {

/// Codes as bytes, in `streams` vectors a block, times int8 activations. Codes of 8 bits are taken
/// less 128.
template <int Bits, class A>
struct ByteKernel {
  using Arch = A;
  using V = Batch<float, Arch>;
  using I = Batch<std::int32_t, Arch>;
  using X = std::int8_t;
  using Products = simd::ByteProducts<Arch, Bits == 8>;
  static constexpr Index lanes = Index(V::size);
  static constexpr Index fields = word_fields(Bits);
  static constexpr Index block = lanes * fields;
  static constexpr Index block_bytes = block * Bits / 8;
  static constexpr int streams = int(fields) / 4;
  static constexpr float bias = Bits == 8 ? 128 : 0;
  /// The largest magnitude of a code as it is multiplied.
  static constexpr Index largest = Bits == 8 ? 128 : (1 << Bits) - 1;
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
    typename Products::Sum narrow[Rows][Vectors];
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
      if constexpr (Short) return simd::to_float(Products::widen(narrow[r][v]));
      else return simd::to_float(wide[r][v]);
    }
  };

  static V factor(const V& scale, const float* steps, Index word) noexcept {
    return scale * V::load_aligned(steps + word);
  }
};

}  // namespace detail

}  // namespace cafeq::kernel
