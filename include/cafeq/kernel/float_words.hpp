/// Words of packed codes times fp32 activations: what PackedProduct does to a block of them.
#pragma once

#include "cafeq/kernel/code_words.hpp"

namespace cafeq::kernel {

namespace detail {

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
  /// Weights of one sum, so that rounding errors do not pile up.
  static constexpr Index longest = 1024;
  static constexpr float bias = 0;
  /// Fields from the middle of the word on are shifted down to the first ones: no field reaches the
  /// sign.
  static constexpr int half = fields / 2;

  template <int Rows, int Vectors, bool>
  struct Tile {
    const float* table;
    /// Of the even fields and of the odd ones: one chain of additions would be slower than what
    /// feeds it.
    V sum[Rows][Vectors][2];

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
            code[r] = simd::look_up<Bits>(table + 16 * (k % half),
                                          k == 0 ? word[r] : word[r] >> (Bits * k));
          else code[r] = simd::to_float(word[r] & mask);
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

}  // namespace detail

}  // namespace cafeq::kernel
