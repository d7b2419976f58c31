/// `general.file_type`: what llama.cpp calls a GGUF file by the type of its layers. Internal.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <span>

#include "cafeq/io/gguf_file.hpp"

namespace cafeq::detail {

/// What llama.cpp calls a file whose layers are mostly of one type.
inline std::uint32_t gguf_file_type(GgufType type) noexcept {
  switch (type) {
    case GgufType::f32: return 0;
    case GgufType::f16: return 1;
    case GgufType::q4_0: return 2;
    case GgufType::q4_1: return 3;
    case GgufType::q8_0: return 7;
    case GgufType::q5_0: return 8;
    case GgufType::q5_1: return 9;
    case GgufType::q2_k: return 10;
    case GgufType::q3_k: return 11;
    case GgufType::q4_k: return 14;
    case GgufType::q5_k: return 16;
    case GgufType::q6_k: return 18;
    case GgufType::iq4_nl: return 25;
    case GgufType::iq4_xs: return 30;
    case GgufType::bf16: return 32;
  }
  return 0;
}

/// The type that most weights of the layers have, if it is a known one.
inline std::optional<GgufType> most_used_type(std::span<const GgufEntry> entries) {
  std::map<GgufType, Index> weights;
  for (const GgufEntry& entry : entries)
    if (entry.name.starts_with("blk.") && entry.shape.size() >= 2)
      weights[entry.type] += element_count(entry.shape).value_or(0);
  const auto most =
      std::max_element(weights.begin(), weights.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  return most != weights.end() && is_known(most->first) ? std::optional(most->first) : std::nullopt;
}

/// Says so in the metadata of a file with these tensors.
inline void set_file_type(GgufMetadata& metadata, std::span<const GgufEntry> entries) {
  if (const auto type = most_used_type(entries))
    metadata.set("general.file_type", GgufValue(gguf_file_type(*type)));
}

}  // namespace cafeq::detail
