/// Whether a tensor holds matrices of weights, and where they part.
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "cafeq/model/model.hpp"
#include "cafeq/model/tensor_names.hpp"
#include "cafeq/quant/gguf_type.hpp"

namespace cafeq::detail {

/// Whether elements of a type, as any of the formats spells it, can be read as weights.
inline bool are_weights(std::string_view type) noexcept {
  if (const auto scalar = scalar_type_named(type))
    return *scalar == ScalarType::f16 || *scalar == ScalarType::bf16 ||
           *scalar == ScalarType::f32 || *scalar == ScalarType::f64;
  constexpr std::array<std::string_view, 4> floats{
      "float32", "float16", "uint16", "uint8"};  // TensorFlow.js: the last two quantize floats
  return gguf_type_named(type) || std::find(floats.begin(), floats.end(), type) != floats.end();
}

/// Why a tensor is not a matrix, or a stack of them; empty where it is.
inline std::string matrix_problem(const TensorInfo& tensor, const Leaf* leaf) {
  const std::size_t rank = leaf != nullptr && leaf->packing == Packing::experts ? 3 : 2;
  if (!are_weights(tensor.type)) return message("its elements are ", tensor.type);
  if (tensor.shape.size() != rank)
    return message("has ", tensor.shape.size(),
                   tensor.shape.size() == 1 ? " dimension" : " dimensions");
  if (element_count(tensor.shape).value_or(0) <= 0) return "is empty";
  return {};
}

/// Where the rows of a tensor part into matrices.
struct Part {
  Role role;
  Index rows;
};

inline std::vector<Part> parts_of(const Leaf* leaf, Index rows, const ModelConfig& config) {
  const Packing packing = leaf == nullptr ? Packing::none : leaf->packing;
  if (packing == Packing::query_key_value) {
    const auto [head_dim, heads, kv_heads] = config.head_layout();
    if (head_dim <= 0 || rows % head_dim != 0 || heads <= 0 ||
        heads + 2 * kv_heads != rows / head_dim)
      return {{Role::other, rows}};
    return {{Role::query, heads * head_dim},
            {Role::key, kv_heads * head_dim},
            {Role::value, kv_heads * head_dim}};
  }
  if ((packing == Packing::gate_up && rows % 2 == 0) ||
      (packing == Packing::gate_up_if_tall && config.intermediate > 0 && rows % 2 == 0 &&
       rows / 2 == config.intermediate))
    return {{Role::gate, rows / 2}, {Role::up, rows / 2}};
  return {{leaf == nullptr ? Role::other : leaf->role, rows}};
}

}  // namespace cafeq::detail
