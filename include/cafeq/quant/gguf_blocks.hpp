/// Bit layouts of GGUF's blocks, as ggml defines them: GgufBlock<Q> takes codes and parameters of a
/// quantizer to and from the bytes of one block.
///
/// Every format counts codes from the lowest level up, as quantizers here do. So a block is some
/// planes of bits of its codes, one or two halves and, in the K types, the integer scales of its
/// groups, which are planes of bits too.
#pragma once

#include <algorithm>
#include <array>

#include "cafeq/quant/gguf_k.hpp"
#include "cafeq/quant/gguf_type.hpp"
#include "cafeq/quant/iq4_nl.hpp"
#include "cafeq/quant/iq4_xs.hpp"

namespace cafeq {

namespace detail {

/// Bits of each of N codes, from bit From of a code and from byte Offset of a block on: Stride
/// bytes have those of Stride codes lowest, those of the next Stride codes above them, and so on
/// until they are full.
template <Index Offset, int Bits, Index Stride, int From = 0>
struct Plane {
  static constexpr int codes_a_byte = 8 / Bits;
  static constexpr unsigned mask = (1u << Bits) - 1u;

  /// Adds them to codes that have none there.
  template <Index N>
  static void read(const std::uint8_t* block, std::uint8_t* codes) noexcept {
    const std::uint8_t* bytes = block + Offset;
    for (Index i = 0; i < N; bytes += Stride)
      for (int k = 0; k < codes_a_byte; ++k, i += Stride)
        for (Index l = 0; l < Stride; ++l)
          codes[i + l] =
              std::uint8_t(codes[i + l] | ((unsigned(bytes[l]) >> (k * Bits)) & mask) << From);
  }
  template <Index N>
  static void write(const std::uint8_t* codes, std::uint8_t* block) noexcept {
    std::uint8_t* bytes = block + Offset;
    for (Index i = 0; i < N; i += codes_a_byte * Stride, bytes += Stride)
      for (Index l = 0; l < Stride; ++l) {
        unsigned byte = 0;
        for (int k = 0; k < codes_a_byte; ++k)
          byte |= ((unsigned(codes[i + k * Stride + l]) >> From) & mask) << (k * Bits);
        bytes[l] = std::uint8_t(byte);
      }
  }
};

/// All bits of N codes.
template <class... P>
struct Planes {
  template <Index N>
  static void read(const std::uint8_t* block, std::uint8_t* codes) noexcept {
    std::fill_n(codes, N, std::uint8_t(0));
    (P::template read<N>(block, codes), ...);
  }
  template <Index N>
  static void write(const std::uint8_t* codes, std::uint8_t* block) noexcept {
    (P::template write<N>(codes, block), ...);
  }
};

/// Codes of eight bits as signed numbers.
template <Index Offset>
struct SignedBytes {
  template <Index N>
  static void read(const std::uint8_t* block, std::uint8_t* codes) noexcept {
    for (Index i = 0; i < N; ++i) codes[i] = block[Offset + i] ^ 0x80;
  }
  template <Index N>
  static void write(const std::uint8_t* codes, std::uint8_t* block) noexcept {
    for (Index i = 0; i < N; ++i) block[Offset + i] = codes[i] ^ 0x80;
  }
};

/// Sixteen integers of six bits in twelve bytes: of every eight, four are whole and have two bits
/// each of the others above them.
template <Index Offset>
struct SixBits {
  template <Index N>
  static void read(const std::uint8_t* block, std::uint8_t* integers) noexcept {
    static_assert(N == 16);
    const std::uint8_t* b = block + Offset;
    for (Index j = 0; j < 4; ++j) {
      integers[j] = b[j] & 63;
      integers[j + 4] = std::uint8_t((b[j + 8] & 15) | b[j] >> 6 << 4);
      integers[j + 8] = b[j + 4] & 63;
      integers[j + 12] = std::uint8_t(b[j + 8] >> 4 | b[j + 4] >> 6 << 4);
    }
  }
  template <Index N>
  static void write(const std::uint8_t* integers, std::uint8_t* block) noexcept {
    static_assert(N == 16);
    std::uint8_t* b = block + Offset;
    for (Index j = 0; j < 4; ++j) {
      b[j] = std::uint8_t(integers[j] | integers[j + 4] >> 4 << 6);
      b[j + 4] = std::uint8_t(integers[j + 8] | integers[j + 12] >> 4 << 6);
      b[j + 8] = std::uint8_t((integers[j + 4] & 15) | (integers[j + 12] & 15) << 4);
    }
  }
};

inline fp16 read_half(const std::uint8_t* bytes) noexcept {
  return fp16::from_bits(std::uint16_t(bytes[0] | bytes[1] << 8));
}
inline void write_half(fp16 half, std::uint8_t* bytes) noexcept {
  bytes[0] = std::uint8_t(half.bits & 255u);
  bytes[1] = std::uint8_t(half.bits >> 8);
}

// Where the parameters of a block's groups are. for_each_half(params, f) calls f with those of a
// group's parameters that are halves.

/// One half at the beginning.
struct ScaleFirst {
  static constexpr Index groups = 1;
  template <class P>
  static void read(const std::uint8_t* block, P* params) noexcept {
    params->scale = read_half(block);
  }
  template <class P>
  static void write(const P* params, std::uint8_t* block) noexcept {
    write_half(params->scale, block);
  }
  template <class P, class F>
  static void for_each_half(P& params, F&& f) {
    f(params.scale);
  }
};

/// Two halves at the beginning.
struct ScaleOffsetFirst {
  static constexpr Index groups = 1;
  template <class P>
  static void read(const std::uint8_t* block, P* params) noexcept {
    *params = {read_half(block), read_half(block + 2)};
  }
  template <class P>
  static void write(const P* params, std::uint8_t* block) noexcept {
    write_half(params->scale, block);
    write_half(params->offset, block + 2);
  }
  template <class P, class F>
  static void for_each_half(P& params, F&& f) {
    f(params.scale);
    f(params.offset);
  }
};

/// Two halves from byte Halves on; integers that are first the scales of all groups, then their
/// minima.
template <Index Groups, Index Halves, class Integers>
struct ScalesAndMinima {
  static constexpr Index groups = Groups;
  template <class P>
  static void read(const std::uint8_t* block, P* params) noexcept {
    std::array<std::uint8_t, std::size_t(2 * Groups)> integers;
    Integers::template read<2 * Groups>(block, integers.data());
    const fp16 d = read_half(block + Halves), dmin = read_half(block + Halves + 2);
    for (std::size_t g = 0; g < std::size_t(Groups); ++g)
      params[g] = {d, dmin, integers[g], integers[g + std::size_t(Groups)]};
  }
  template <class P>
  static void write(const P* params, std::uint8_t* block) noexcept {
    std::array<std::uint8_t, std::size_t(2 * Groups)> integers;
    for (std::size_t g = 0; g < std::size_t(Groups); ++g) {
      integers[g] = params[g].scale;
      integers[g + std::size_t(Groups)] = params[g].min;
    }
    Integers::template write<2 * Groups>(integers.data(), block);
    write_half(params->d, block + Halves);
    write_half(params->dmin, block + Halves + 2);
  }
  template <class P, class F>
  static void for_each_half(P& params, F&& f) {
    f(params.d);
    f(params.dmin);
  }
};

/// One half at byte Half; integers that are the scales of all groups plus Bias.
template <Index Groups, Index Half, int Bias, class Integers>
struct SignedScales {
  static constexpr Index groups = Groups;
  template <class P>
  static void read(const std::uint8_t* block, P* params) noexcept {
    std::array<std::uint8_t, std::size_t(Groups)> integers;
    Integers::template read<Groups>(block, integers.data());
    const fp16 d = read_half(block + Half);
    for (std::size_t g = 0; g < integers.size(); ++g)
      params[g] = {d, std::int8_t(integers[g] - Bias)};
  }
  template <class P>
  static void write(const P* params, std::uint8_t* block) noexcept {
    std::array<std::uint8_t, std::size_t(Groups)> integers;
    for (std::size_t g = 0; g < integers.size(); ++g)
      integers[g] = std::uint8_t(params[g].scale + Bias);
    Integers::template write<Groups>(integers.data(), block);
    write_half(params->d, block + Half);
  }
  template <class P, class F>
  static void for_each_half(P& params, F&& f) {
    f(params.d);
  }
};

template <GgufType Type, class Codes, class Parameters>
struct BlockLayout : Parameters {
  static constexpr GgufType type = Type;
  static constexpr Index weights = gguf_type_info(Type).weights;
  static constexpr Index bytes = gguf_type_info(Type).bytes;
  static constexpr Index group = weights / Parameters::groups;

  template <class P>
  static void read(const std::uint8_t* block, std::uint8_t* codes, P* params) noexcept {
    Codes::template read<weights>(block, codes);
    Parameters::read(block, params);
  }
  template <class P>
  static void write(const std::uint8_t* codes, const P* params, std::uint8_t* block) noexcept {
    Codes::template write<weights>(codes, block);
    Parameters::write(params, block);
  }
};

}  // namespace detail

/// Defined for the quantizers whose codes and parameters some block holds, those of the simple
/// types with groups of 32:
///   type, weights, bytes, group, groups       the format; weights of a block and of a group
///   read(bytes, codes, params), write(codes, params, bytes)
///   for_each_half(params, f)                  f for the halves among the parameters of a group;
///       all groups of a block have the same
template <class Q>
struct GgufBlock;

template <>
struct GgufBlock<Symmetric<8>>
    : detail::BlockLayout<GgufType::q8_0, detail::SignedBytes<2>, detail::ScaleFirst> {};
template <>
struct GgufBlock<Symmetric<4>>
    : detail::BlockLayout<GgufType::q4_0, detail::Planes<detail::Plane<2, 4, 16>>,
                          detail::ScaleFirst> {};
template <>
struct GgufBlock<Affine<4>>
    : detail::BlockLayout<GgufType::q4_1, detail::Planes<detail::Plane<4, 4, 16>>,
                          detail::ScaleOffsetFirst> {};
template <>
struct GgufBlock<Symmetric<5>>
    : detail::BlockLayout<GgufType::q5_0,
                          detail::Planes<detail::Plane<6, 4, 16>, detail::Plane<2, 1, 1, 4>>,
                          detail::ScaleFirst> {};
template <>
struct GgufBlock<Affine<5>>
    : detail::BlockLayout<GgufType::q5_1,
                          detail::Planes<detail::Plane<8, 4, 16>, detail::Plane<4, 1, 1, 4>>,
                          detail::ScaleOffsetFirst> {};
template <>
struct GgufBlock<Iq4Nl>
    : detail::BlockLayout<GgufType::iq4_nl, detail::Planes<detail::Plane<2, 4, 16>>,
                          detail::ScaleFirst> {};
template <>
struct GgufBlock<Iq4Xs>
    : detail::BlockLayout<
          GgufType::iq4_xs, detail::Planes<detail::Plane<8, 4, 16>>,
          detail::SignedScales<8, 0, 32,
                               detail::Planes<detail::Plane<4, 4, 1>, detail::Plane<2, 2, 1, 4>>>> {
};
template <>
struct GgufBlock<AffineK<2, 16, 4>>
    : detail::BlockLayout<
          GgufType::q2_k, detail::Planes<detail::Plane<16, 2, 32>>,
          detail::ScalesAndMinima<16, 80, detail::Planes<detail::Plane<0, 4, 16>>>> {};
template <>
struct GgufBlock<SymmetricK<3, 6>>
    : detail::BlockLayout<
          GgufType::q3_k, detail::Planes<detail::Plane<32, 2, 32>, detail::Plane<0, 1, 32, 2>>,
          detail::SignedScales<
              16, 108, 32, detail::Planes<detail::Plane<96, 4, 8>, detail::Plane<104, 2, 4, 4>>>> {
};
template <>
struct GgufBlock<AffineK<4, 32, 6>>
    : detail::BlockLayout<GgufType::q4_k, detail::Planes<detail::Plane<16, 4, 32>>,
                          detail::ScalesAndMinima<8, 0, detail::SixBits<4>>> {};
template <>
struct GgufBlock<AffineK<5, 32, 6>>
    : detail::BlockLayout<GgufType::q5_k,
                          detail::Planes<detail::Plane<48, 4, 32>, detail::Plane<16, 1, 32, 4>>,
                          detail::ScalesAndMinima<8, 0, detail::SixBits<4>>> {};
template <>
struct GgufBlock<SymmetricK<6, 8>>
    : detail::BlockLayout<
          GgufType::q6_k, detail::Planes<detail::Plane<0, 4, 64>, detail::Plane<128, 2, 32, 4>>,
          detail::SignedScales<16, 208, 0, detail::Planes<detail::Plane<192, 8, 16>>>> {};

}  // namespace cafeq
