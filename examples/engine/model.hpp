/// A language model as the forward pass sees it (forward.hpp), whatever file it comes from
/// (load.hpp).
#pragma once

#include <memory>
#include <vector>

#include "cafeq/core/error.hpp"
#include "cafeq/model/model.hpp"
#include "cafeq/model/roles.hpp"
#include "kernels.hpp"
#include "token.hpp"

namespace engine {

/// y = W x + b for weights W [out, in]; no bias: 0.
struct Linear {
  Index out = 0;
  Product multiply;
  std::vector<float> bias{};
};

/// What takes one input: y is what each of them makes of it, one after the other.
using Stack = std::vector<Linear>;

/// Gains of a norm; none where the model has no such norm.
using Norm = std::vector<float>;

struct Layer {
  Norm attention_norm;            // [hidden]
  Stack query_key_value;          // [(heads + 2 · kv_heads) · head_dim, hidden]
  Norm query_norm{}, key_norm{};  // [head_dim], of each head
  Stack output;                   // [hidden, heads · head_dim]
  Norm post_attention_norm{};     // [hidden]
  Norm mlp_norm;                  // [hidden]
  Stack gate_up;                  // [2 · intermediate, hidden]
  Stack down;                     // [hidden, intermediate]
  Norm post_mlp_norm{};           // [hidden]
};

/// One of the matrices of a layer, by what it does.
inline Linear& linear_of(Layer& layer, cafeq::Role role) {
  using cafeq::Role;
  switch (role) {
    case Role::query: return layer.query_key_value[0];
    case Role::key: return layer.query_key_value[1];
    case Role::value: return layer.query_key_value[2];
    case Role::output: return layer.output[0];
    case Role::gate: return layer.gate_up[0];
    case Role::up: return layer.gate_up[1];
    case Role::down: return layer.down[0];
    default:
      raise(cafeq::ErrorCode::invalid_argument,
            cafeq::message("a layer has no ", name_of(role), " that is multiplied by"));
  }
}

struct Model {
  cafeq::ModelConfig config;
  std::shared_ptr<const Panels> embedding;  // of [vocabulary, hidden]
  std::vector<Layer> layers{};
  Norm norm;              // [hidden]
  Linear head{};          // [vocabulary, hidden]
  bool own_head = false;  // false: it is the embedding
};

/// The same model, of which it shares all else, with other weights in one place.
inline Model with_weights(Model model, const cafeq::MatrixRole& place, View<const float> W) {
  const bool is_embedding = place.role == cafeq::Role::embedding;
  if (place.layer < 0 && !is_embedding && !model.own_head)
    return model;  // what is stored is unused
  auto panels = kernels().pack(W);
  if (place.layer >= 0) {
    linear_of(model.layers[std::size_t(place.layer)], place.role).multiply =
        kernels().dense(std::move(panels));
    return model;
  }
  if (is_embedding) model.embedding = panels;
  if (!is_embedding || !model.own_head) model.head.multiply = kernels().dense(std::move(panels));
  return model;
}

}  // namespace engine
