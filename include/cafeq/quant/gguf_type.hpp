/// Element types of GGUF files: their numbers, names and block sizes, as ggml defines them.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "cafeq/core/numeric.hpp"

namespace cafeq {

enum class GgufType : std::uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q2_k = 10,
  q3_k = 11,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  iq4_nl = 20,
  iq4_xs = 23,
  bf16 = 30,
};

/// A row is a whole number of blocks of `weights` weights, `bytes` bytes each.
struct GgufTypeInfo {
  GgufType type;
  std::string_view name;  ///< as llama.cpp spells it
  Index weights;
  Index bytes;

  double bits_per_weight() const noexcept { return 8.0 * double(bytes) / double(weights); }
};

inline constexpr std::array<GgufTypeInfo, 15> gguf_types{{{GgufType::f32, "F32", 1, 4},
                                                          {GgufType::f16, "F16", 1, 2},
                                                          {GgufType::bf16, "BF16", 1, 2},
                                                          {GgufType::q8_0, "Q8_0", 32, 34},
                                                          {GgufType::q4_0, "Q4_0", 32, 18},
                                                          {GgufType::q4_1, "Q4_1", 32, 20},
                                                          {GgufType::q5_0, "Q5_0", 32, 22},
                                                          {GgufType::q5_1, "Q5_1", 32, 24},
                                                          {GgufType::q2_k, "Q2_K", 256, 84},
                                                          {GgufType::q3_k, "Q3_K", 256, 110},
                                                          {GgufType::q4_k, "Q4_K", 256, 144},
                                                          {GgufType::q5_k, "Q5_K", 256, 176},
                                                          {GgufType::q6_k, "Q6_K", 256, 210},
                                                          {GgufType::iq4_nl, "IQ4_NL", 32, 18},
                                                          {GgufType::iq4_xs, "IQ4_XS", 256, 136}}};

/// Nothing for types that this library does not know.
constexpr std::optional<GgufTypeInfo> gguf_type_info(std::uint32_t number) noexcept {
  for (const auto& info : gguf_types)
    if (std::uint32_t(info.type) == number) return info;
  return std::nullopt;
}
constexpr const GgufTypeInfo& gguf_type_info(GgufType type) noexcept {
  std::size_t i = 0;
  while (gguf_types[i].type != type) ++i;
  return gguf_types[i];
}

/// In capitals or small letters.
constexpr std::optional<GgufType> gguf_type_named(std::string_view name) noexcept {
  const auto small = [](char c) { return c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c; };
  for (const auto& info : gguf_types) {
    bool equal = info.name.size() == name.size();
    for (std::size_t i = 0; equal && i < name.size(); ++i)
      equal = small(info.name[i]) == small(name[i]);
    if (equal) return info.type;
  }
  return std::nullopt;
}

/// The bytes of a row, or nothing where it is not a whole number of blocks.
constexpr std::optional<Index> gguf_row_bytes(GgufType type, Index cols) noexcept {
  const auto& info = gguf_type_info(type);
  Index bytes = 0;
  if (cols % info.weights != 0 || __builtin_mul_overflow(cols / info.weights, info.bytes, &bytes))
    return std::nullopt;
  return bytes;
}

}  // namespace cafeq
