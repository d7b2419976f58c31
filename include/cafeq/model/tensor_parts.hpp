/// Whether a tensor holds matrices of weights, and where one of them ends and the next begins.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "cafeq/model/model.hpp"
#include "cafeq/model/naming_schemes.hpp"
#include "cafeq/model/roles.hpp"

namespace cafeq::detail {

/// Why a tensor is not a matrix, or a stack of them; empty where it is.
inline std::string matrix_problem(const TensorInfo& tensor, const Leaf* leaf) {
  const std::size_t rank = leaf != nullptr && leaf->packing == Packing::experts ? 3 : 2;
  if (!tensor.loadable) return message("its elements are ", tensor.type);
  if (tensor.shape.size() != rank)
    return message("has ", tensor.shape.size(),
                   tensor.shape.size() == 1 ? " dimension" : " dimensions");
  if (element_count(tensor.shape).value_or(0) <= 0) return "is empty";
  return {};
}

/// One of the matrices of a tensor, in which they lie one below the other.
struct Part {
  Role role;
  Index rows;
};

/// The matrices of a tensor of that many rows, from the first row to the last; one of role other
/// where the configuration does not tell where they part.
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
