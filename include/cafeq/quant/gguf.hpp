/// Rows of GGUF's block formats: weights to bytes and back, and the quantizers that stand for the
/// formats.
///
///   gguf::quantize_row(GgufType::q4_k, row, bytes);     // this library's search, any llama.cpp
///   gguf::dequantize_row(GgufType::q4_k, bytes, row);   // ggml's floats, bit for bit
///   gguf::write_row(gguf::q4_k, codes, params, bytes);  // codes of a rounder or a pair
/// A row is a whole number of blocks. Nothing here allocates.
#pragma once

#include <algorithm>
#include <cstring>

#include "cafeq/quant/gguf_blocks.hpp"
#include "cafeq/quant/rows.hpp"

namespace cafeq {

namespace detail {

/// A quantizer whose codes and parameters some block format holds.
template <class Q>
concept GgufQuantizer = LinearGrid<Q> && requires {
  { GgufBlock<Q>::type } -> std::convertible_to<GgufType>;
};

}  // namespace detail

namespace gguf {

inline constexpr Symmetric<8> q8_0{.group = 32};
inline constexpr Symmetric<4> q4_0{.group = 32};
inline constexpr Affine<4> q4_1{.group = 32};
inline constexpr Symmetric<5> q5_0{.group = 32};
inline constexpr Affine<5> q5_1{.group = 32};
inline constexpr Iq4Nl iq4_nl{};
inline constexpr Iq4Xs iq4_xs{};
inline constexpr AffineK<2, 16, 4> q2_k{};
inline constexpr SymmetricK<3, 6> q3_k{};
inline constexpr AffineK<4, 32, 6> q4_k{};
inline constexpr AffineK<5, 32, 6> q5_k{};
inline constexpr SymmetricK<6, 8> q6_k{};

/// f(quantizer) for a type of blocks. Raises for F32, F16 and BF16, which have none.
template <class F>
decltype(auto) with_quantizer(GgufType type, F&& f) {
  switch (type) {
    case GgufType::q8_0: return f(q8_0);
    case GgufType::q4_0: return f(q4_0);
    case GgufType::q4_1: return f(q4_1);
    case GgufType::q5_0: return f(q5_0);
    case GgufType::q5_1: return f(q5_1);
    case GgufType::iq4_nl: return f(iq4_nl);
    case GgufType::iq4_xs: return f(iq4_xs);
    case GgufType::q2_k: return f(q2_k);
    case GgufType::q3_k: return f(q3_k);
    case GgufType::q4_k: return f(q4_k);
    case GgufType::q5_k: return f(q5_k);
    case GgufType::q6_k: return f(q6_k);
    case GgufType::f32:
    case GgufType::f16:
    case GgufType::bf16: break;
  }
  raise(ErrorCode::invalid_argument,
        message("with_quantizer: ", gguf_type_info(type).name, " holds plain floats"));
}

/// Codes of one row, one a byte, with the parameters of its groups, to bytes. Halves are multiplied
/// by 2^exponent, that of a Quantized: exact unless the product is below 2^-14, where halves lose
/// digits (the integer scales of K types make up for most of it), or beyond 65504, which it
/// becomes. Raises where the groups of a block do not share their halves.
template <cafeq::detail::GgufQuantizer Q>
void write_row(const Q& q, std::span<const std::uint8_t> codes,
               std::span<const typename Q::Params> params, std::span<std::byte> bytes,
               int exponent = 0);

/// The inverse.
template <cafeq::detail::GgufQuantizer Q>
void read_row(const Q& q, std::span<const std::byte> bytes, std::span<std::uint8_t> codes,
              std::span<typename Q::Params> params);

/// Quantizes a row of finite weights at their own scale; what is too large for the type becomes the
/// largest that it has.
template <class Arch = DefaultArch>
void quantize_row(GgufType type, std::span<const float> x, std::span<std::byte> bytes);

template <class Arch = DefaultArch>
void dequantize_row(GgufType type, std::span<const std::byte> bytes, std::span<float> out);

}  // namespace gguf

namespace detail {

inline void check_gguf_row(const char* what, GgufType type, std::size_t weights,
                           std::size_t bytes) {
  const auto& info = gguf_type_info(type);
  const auto expected = gguf_row_bytes(type, Index(weights));
  if (!expected)
    raise(ErrorCode::invalid_shape,
          message(what, ": a row of ", weights, " weights is no whole number of ", info.name,
                  " blocks of ", info.weights));
  if (*expected != Index(bytes))
    raise(ErrorCode::invalid_shape, message(what, ": ", weights, " weights as ", info.name, " are ",
                                            *expected, " bytes, got ", bytes));
}

template <class Q>
void check_gguf_row(const char* what, const Q& q, std::size_t weights, std::size_t bytes,
                    std::size_t params) {
  using Block = GgufBlock<Q>;
  check_gguf_row(what, Block::type, weights, bytes);
  if (q.group != Block::group)
    raise(ErrorCode::invalid_argument,
          message(what, ": the quantizer has groups of ", Index(q.group), ", ",
                  gguf_type_info(Block::type).name, " of ", Block::group));
  if (Index(params) * Block::group != Index(weights))
    raise(ErrorCode::invalid_shape, message(what, ": ", weights, " weights in groups of ",
                                            Block::group, ", got ", params, " parameters"));
}

/// The halves of a group as one number.
template <class Block, class Params>
std::uint32_t halves_of(Params params) noexcept {
  std::uint32_t halves = 0;
  Block::for_each_half(params, [&](fp16 half) { halves = halves << 16 | half.bits; });
  return halves;
}

/// Parameters of 2^exponent times the weights, or the nearest that there are.
template <class Q>
typename Q::Params times_power_of_two(const Q& q, const typename Q::Params& params,
                                      int exponent) noexcept {
  const PowerOfTwo scale(exponent);
  typename Q::Params scaled = params;
  bool exact = true;
  GgufBlock<Q>::for_each_half(scaled, [&](fp16& half) {
    const double value = scale(double(half));
    half = half_beyond(value);
    exact &= double(half) == value;
  });
  return exact ? scaled
               : q.with_scale(scaled, float(scale(double(q.scale(params)))),
                              float(scale(double(q.offset(params)))));
}

inline const std::uint8_t* octets(std::span<const std::byte> bytes) noexcept {
  return reinterpret_cast<const std::uint8_t*>(bytes.data());
}
inline std::uint8_t* octets(std::span<std::byte> bytes) noexcept {
  return reinterpret_cast<std::uint8_t*>(bytes.data());
}

template <class Q>
void quantize_blocks(const Q& q, std::span<const float> x, std::uint8_t* bytes) noexcept {
  using Block = GgufBlock<Q>;
  constexpr std::size_t group = std::size_t(Block::group), at_once = groups_at_once * group;
  std::array<std::uint8_t, at_once> codes;
  Each<typename Q::Params> params;
  while (!x.empty()) {
    const auto some = x.first(std::min(x.size(), at_once));
    const std::size_t count = some.size() / group;
    q.fit_row(some, Block::group, std::span(params).first(count));
    for (std::size_t g = 0; g < count; ++g)
      q.encode_group(some.subspan(g * group, group), params[g],
                     std::span(codes).subspan(g * group, group));
    for (std::size_t g = 0; g < count; g += std::size_t(Block::groups), bytes += Block::bytes)
      Block::write(codes.data() + g * group, params.data() + g, bytes);
    x = x.subspan(some.size());
  }
}

template <class Q>
void dequantize_blocks(const Q& q, const std::uint8_t* bytes, std::span<float> out) noexcept {
  using Block = GgufBlock<Q>;
  std::uint8_t codes[Block::weights];
  typename Q::Params params[Block::groups];
  for (Index i = 0; i < Index(out.size()); i += Block::weights, bytes += Block::bytes) {
    Block::read(bytes, codes, params);
    for (Index g = 0; g < Block::groups; ++g) {
      const auto p = params[g];
      for (Index l = g * Block::group; l < (g + 1) * Block::group; ++l)
        out[std::size_t(i + l)] = q.decode(codes[l], p);
    }
  }
}

/// Floats as fp16 or bf16, none of them infinite.
template <class Half>
void store_halves(std::span<const float> x, float largest, std::byte* bytes) noexcept {
  for (const float v : x) {
    const Half half(std::min(std::max(v, -largest), largest));
    std::memcpy(bytes, &half, sizeof half);
    bytes += sizeof half;
  }
}
template <class Half>
void load_halves(const std::byte* bytes, std::span<float> out) noexcept {
  for (float& v : out) {
    Half half;
    std::memcpy(&half, bytes, sizeof half);
    bytes += sizeof half;
    v = half;
  }
}

}  // namespace detail

template <detail::GgufQuantizer Q>
void gguf::write_row(const Q& q, std::span<const std::uint8_t> codes,
                     std::span<const typename Q::Params> params, std::span<std::byte> bytes,
                     int exponent) {
  using Block = GgufBlock<Q>;
  detail::check_gguf_row("write_row", q, codes.size(), bytes.size(), params.size());
  std::uint8_t* to = detail::octets(bytes);
  for (std::size_t g = 0; g < params.size(); g += std::size_t(Block::groups), to += Block::bytes) {
    typename Q::Params block[Block::groups];
    for (std::size_t k = 0; k < std::size_t(Block::groups); ++k) {
      if (detail::halves_of<Block>(params[g + k]) != detail::halves_of<Block>(params[g]))
        raise(ErrorCode::invalid_argument, message("write_row: groups ", g, " and ", g + k,
                                                   " are of one block, but their halves differ"));
      block[k] = detail::times_power_of_two(q, params[g + k], exponent);
    }
    Block::write(codes.data() + g * std::size_t(Block::group), block, to);
  }
}

template <detail::GgufQuantizer Q>
void gguf::read_row(const Q& q, std::span<const std::byte> bytes, std::span<std::uint8_t> codes,
                    std::span<typename Q::Params> params) {
  using Block = GgufBlock<Q>;
  detail::check_gguf_row("read_row", q, codes.size(), bytes.size(), params.size());
  const std::uint8_t* from = detail::octets(bytes);
  for (std::size_t g = 0; g < params.size(); g += std::size_t(Block::groups), from += Block::bytes)
    Block::read(from, codes.data() + g * std::size_t(Block::group), params.data() + g);
}

template <class Arch>
void gguf::quantize_row(GgufType type, std::span<const float> x, std::span<std::byte> bytes) {
  detail::check_gguf_row("quantize_row", type, x.size(), bytes.size());
  check_finite(View<const float>{x.data(), 1, Index(x.size()), Index(x.size()), 1}, "x");
  if (type == GgufType::f32) std::copy_n(std::as_bytes(x).begin(), bytes.size(), bytes.begin());
  else if (type == GgufType::f16) detail::store_halves<fp16>(x, fp16_max, bytes.data());
  else if (type == GgufType::bf16) detail::store_halves<bf16>(x, 0x1.fep127f, bytes.data());
  else
    with_quantizer(type,
                   [&](const auto& q) { detail::quantize_blocks(q, x, detail::octets(bytes)); });
}

template <class Arch>
void gguf::dequantize_row(GgufType type, std::span<const std::byte> bytes, std::span<float> out) {
  detail::check_gguf_row("dequantize_row", type, out.size(), bytes.size());
  if (type == GgufType::f32)
    std::copy(bytes.begin(), bytes.end(), std::as_writable_bytes(out).begin());
  else if (type == GgufType::f16) detail::load_halves<fp16>(bytes.data(), out);
  else if (type == GgufType::bf16) detail::load_halves<bf16>(bytes.data(), out);
  else
    with_quantizer(
        type, [&](const auto& q) { detail::dequantize_blocks(q, detail::octets(bytes), out); });
}

}  // namespace cafeq
