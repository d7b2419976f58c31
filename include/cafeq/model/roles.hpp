/// What the tensors of a model are: which matrices they hold, what each matrix does in its layer,
/// and which of them meet so that an M between the two leaves the model unchanged. This is what
/// find_roles() (cafeq/model/find_roles.hpp) finds out.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cafeq/core/numeric.hpp"
#include "cafeq/pair/attention.hpp"
#include "cafeq/pair/gated_mlp.hpp"

namespace cafeq {

/// What a matrix, or another tensor, does in its layer.
enum class Role {
  query,
  key,
  value,
  output,
  gate,  ///< of an MLP: its outputs pass the activation and are multiplied with those of `up`
  up,
  down,
  embedding,
  position,  ///< learned vectors of positions, or of segments
  unembedding,
  router,  ///< chooses the experts that a token goes to
  norm,
  bias,
  other,
};

constexpr std::string_view name_of(Role role) noexcept {
  constexpr std::array<std::string_view, 14> names{
      "query",     "key",      "value",       "output", "gate", "up",   "down",
      "embedding", "position", "unembedding", "router", "norm", "bias", "other"};
  return names[std::size_t(role)];
}

/// The first of the roles that read the same input as this one: query of query, key and value, gate
/// of gate and up. Engines often multiply these as one matrix.
constexpr Role first_reader(Role role) noexcept {
  switch (role) {
    case Role::key:
    case Role::value: return Role::query;
    case Role::up: return Role::gate;
    default: return role;
  }
}

/// Which matrices meet: see cafeq/loss/pair_product.hpp.
enum class PairKind { value_output, query_key, up_down };

constexpr std::string_view name_of(PairKind kind) noexcept {
  switch (kind) {
    case PairKind::value_output: return "value/output";
    case PairKind::query_key: return "query/key";
    default: return "up/down";
  }
}

/// Where a matrix [out, in] lies in a tensor: its rows [begin, begin + out), or these columns where
/// the tensor is stored [in, out].
struct MatrixPlace {
  std::string tensor;
  Index slice = -1;  ///< along the first dimension of a tensor that stacks experts; -1 in a tensor
                     ///< that is one matrix
  bool transposed = false;
  Index begin = 0;
  Index out = 0;
  Index in = 0;
};

/// Where the bias of a matrix lies: as many entries as the matrix has rows, from `begin`.
struct BiasPlace {
  std::string tensor;
  Index slice = -1;
  Index begin = 0;
};

/// A matrix of weights.
struct MatrixRole {
  Role role = Role::other;
  Index layer = -1;      ///< -1 outside of the layers
  Index expert = -1;     ///< -1 where it belongs to no expert
  std::string module{};  ///< "model.layers.0.self_attn": its matrices work together, those of each
                         ///< expert by themselves
  MatrixPlace place{};
  std::optional<BiasPlace> bias{};
  std::string note{};  ///< what a reader of the plan should know of it
};

/// A tensor that holds no matrix of weights.
struct KeptTensor {
  std::string tensor;
  Role role = Role::other;
  std::string why;
};

/// Two matrices that meet, as indices into ModelRoles::matrices, in the canonical order of
/// cafeq/loss/pair_product.hpp.
struct PairRole {
  PairKind kind = PairKind::value_output;
  std::size_t first = 0;   ///< output, query or down
  std::size_t second = 0;  ///< value, key or up
  HeadLayout layout{};
  AttentionTraits attention{};  ///< of value/output and query/key
  MlpTraits mlp{};              ///< of up/down
  std::string refusal{};        ///< why M is not exact, or not known to be; empty where it is
};

/// Each element of each tensor belongs to one of the matrices, or its tensor is one of the others.
struct ModelRoles {
  std::vector<MatrixRole> matrices;
  std::vector<PairRole> pairs;
  std::vector<KeptTensor> others;
};

}  // namespace cafeq
