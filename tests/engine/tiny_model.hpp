// A model of a few numbers, in memory and in files; and its forward pass, one number at a time.
#pragma once
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cafeq/core/rng.hpp"
#include "cafeq/core/thread_pool.hpp"
#include "cafeq/io/byte_cursor.hpp"
#include "cafeq/io/safetensors.hpp"
#include "engine/forward.hpp"
#include "io/temporary_directory.hpp"

namespace engine::test {

using cafeq::test::TemporaryDirectory;
using Json = nlohmann::json;
using Tensors = std::map<std::string, Matrix<float>>;

/// Weights k/64 with |k| <= 64, which all types of weights hold exactly, under the names of
/// transformers. Vectors have one row.
struct TinyModel {
  cafeq::ModelConfig config;
  Tensors tensors;

  const Matrix<float>* find(const std::string& name) const {
    const auto found = tensors.find(name);
    return found == tensors.end() ? nullptr : &found->second;
  }
  Model model() const;
};

inline cafeq::ModelConfig tiny_config() {
  cafeq::ModelConfig c{.architecture = "llama",
                       .layers = 2,
                       .hidden = 16,
                       .intermediate = 24,
                       .vocabulary = 11,
                       .heads = 4,
                       .kv_heads = 2,
                       .head_dim = 4,
                       .context = 20,
                       .norm_epsilon = 1e-5,
                       .rope_base = 10000,
                       .tied_embeddings = true};
  c.attention.rotary = cafeq::Rotary{4, cafeq::Rotary::Pairing::interleaved};
  return c;
}

/// Which tensors a model has beside those of Llama.
struct Extras {
  bool biases = false;          ///< of queries, keys and values
  bool head_norms = false;      ///< of queries and keys
  bool sandwich_norms = false;  ///< of what layers add
};

inline TinyModel tiny_model(const cafeq::ModelConfig& c = tiny_config(),
                            const Extras& extras = {}) {
  TinyModel model{c, {}};
  const auto add = [&](const std::string& name, Index rows, Index cols) {
    const cafeq::CounterRng rng(7, cafeq::stream_of(name));
    Matrix<float> m(rows, cols);
    for (Index i = 0; i < m.size(); ++i)
      m.data()[i] = float(rng.below(std::uint64_t(i), 129)) / 64 - 1;
    model.tensors.emplace(name, std::move(m));
  };
  const Index queries = c.heads * c.head_dim, keys = c.kv_heads * c.head_dim;
  add("model.embed_tokens.weight", c.vocabulary, c.hidden);
  add("model.norm.weight", 1, c.hidden);
  if (!c.tied_embeddings) add("lm_head.weight", c.vocabulary, c.hidden);
  for (Index l = 0; l < c.layers; ++l) {
    const auto in_layer = [&](const std::string& name, Index rows, Index cols) {
      add("model.layers." + std::to_string(l) + "." + name, rows, cols);
    };
    in_layer("input_layernorm.weight", 1, c.hidden);
    in_layer("self_attn.q_proj.weight", queries, c.hidden);
    in_layer("self_attn.k_proj.weight", keys, c.hidden);
    in_layer("self_attn.v_proj.weight", keys, c.hidden);
    in_layer("self_attn.o_proj.weight", c.hidden, queries);
    in_layer("post_attention_layernorm.weight", 1, c.hidden);
    in_layer("mlp.gate_proj.weight", c.intermediate, c.hidden);
    in_layer("mlp.up_proj.weight", c.intermediate, c.hidden);
    in_layer("mlp.down_proj.weight", c.hidden, c.intermediate);
    if (extras.biases) {
      in_layer("self_attn.q_proj.bias", 1, queries);
      in_layer("self_attn.k_proj.bias", 1, keys);
      in_layer("self_attn.v_proj.bias", 1, keys);
    }
    for (const char* name : {"self_attn.q_norm.weight", "self_attn.k_norm.weight"})
      if (extras.head_norms) in_layer(name, 1, c.head_dim);
    for (const char* name :
         {"pre_feedforward_layernorm.weight", "post_feedforward_layernorm.weight"})
      if (extras.sandwich_norms) in_layer(name, 1, c.hidden);
  }
  return model;
}

inline Model TinyModel::model() const {
  const auto linear = [&](const std::string& name) {
    const Matrix<float>& W = tensors.at(name + ".weight");
    Linear result{W.rows(), kernels().dense(kernels().pack(W.view()))};
    if (const auto* bias = find(name + ".bias"))
      result.bias.assign(bias->data(), bias->data() + bias->size());
    return result;
  };
  const auto norm = [&](const std::string& name) {
    Norm gains;
    if (const auto* own = find(name + ".weight"))
      for (const float gain : own->row(0)) gains.push_back(gain + float(config.norm_offset));
    return gains;
  };
  const auto E = kernels().pack(tensors.at("model.embed_tokens.weight").view());
  Model model{.config = config, .embedding = E, .norm = norm("model.norm")};
  for (Index l = 0; l < config.layers; ++l) {
    const std::string p = "model.layers." + std::to_string(l) + ".";
    const bool sandwich = find(p + "pre_feedforward_layernorm.weight") != nullptr;
    model.layers.push_back(
        {.attention_norm = norm(p + "input_layernorm"),
         .query_key_value = {linear(p + "self_attn.q_proj"), linear(p + "self_attn.k_proj"),
                             linear(p + "self_attn.v_proj")},
         .query_norm = norm(p + "self_attn.q_norm"),
         .key_norm = norm(p + "self_attn.k_norm"),
         .output = {linear(p + "self_attn.o_proj")},
         .post_attention_norm = sandwich ? norm(p + "post_attention_layernorm") : Norm(),
         .mlp_norm =
             norm(p + (sandwich ? "pre_feedforward_layernorm" : "post_attention_layernorm")),
         .gate_up = {linear(p + "mlp.gate_proj"), linear(p + "mlp.up_proj")},
         .down = {linear(p + "mlp.down_proj")},
         .post_mlp_norm = sandwich ? norm(p + "post_feedforward_layernorm") : Norm()});
  }
  model.head = {config.tied_embeddings ? Linear{config.vocabulary, kernels().dense(E)}
                                       : linear("lm_head")};
  return model;
}

inline Matrix<float> logits_of(const Model& model, const std::vector<Token>& tokens,
                               Index threads = 1) {
  cafeq::ThreadPool pool(threads);
  const Transformer transformer(model, pool);
  Text text;
  const Matrix<float> states = transformer.forward(text, tokens);
  Matrix<float> logits(states.rows(), model.config.vocabulary);
  transformer.logits(states.view(), logits.view());
  return logits;
}

/// Rows of queries and keys in the order of transformers: of each head first what is rotated as x,
/// then what is rotated as y.
inline Tensors half_split(const TinyModel& model) {
  const Index dim = model.config.head_dim;
  Tensors result = model.tensors;
  for (auto& [name, m] : result) {
    if (name.find("q_proj.weight") == name.npos && name.find("k_proj.weight") == name.npos)
      continue;
    const Matrix<float> before = m;
    for (Index i = 0; i < m.rows(); ++i) {
      const Index head = i / dim, j = i % dim;
      std::ranges::copy(before.row(i), m.row(head * dim + j / 2 + (j % 2) * (dim / 2)).begin());
    }
  }
  return result;
}

inline Json config_json(const cafeq::ModelConfig& c) {
  return {
      {"model_type", c.architecture},
      {"hidden_size", c.hidden},
      {"intermediate_size", c.intermediate},
      {"num_hidden_layers", c.layers},
      {"num_attention_heads", c.heads},
      {"num_key_value_heads", c.kv_heads},
      {"head_dim", c.head_dim},
      {"vocab_size", c.vocabulary},
      {"max_position_embeddings", c.context},
      {"rms_norm_eps", c.norm_epsilon},
      {"rope_theta", c.rope_base},
      {"hidden_act", c.mlp.activation == cafeq::Activation::gelu ? "gelu_pytorch_tanh" : "silu"},
      {"tie_word_embeddings", c.tied_embeddings}};
}

/// A checkpoint of version 0.
inline std::string llama2c_bytes(const TinyModel& model) {
  const cafeq::ModelConfig& c = model.config;
  std::string bytes;
  for (const Index size : {c.hidden, c.intermediate, c.layers, c.heads, c.kv_heads,
                           c.tied_embeddings ? c.vocabulary : -c.vocabulary, c.context})
    cafeq::detail::append_number(bytes, std::int32_t(size));
  const auto append = [&](const std::string& name) {
    const Matrix<float>& m = model.tensors.at(name + ".weight");
    bytes.append(reinterpret_cast<const char*>(m.data()), std::size_t(m.size()) * sizeof(float));
  };
  append("model.embed_tokens");
  for (const char* name : {"input_layernorm", "self_attn.q_proj", "self_attn.k_proj",
                           "self_attn.v_proj", "self_attn.o_proj", "post_attention_layernorm",
                           "mlp.gate_proj", "mlp.down_proj", "mlp.up_proj"})
    for (Index l = 0; l < c.layers; ++l) append("model.layers." + std::to_string(l) + "." + name);
  append("model.norm");
  bytes.append(std::size_t(c.context * c.head_dim * 4), '\x7f');  // rotations that nobody reads
  if (!c.tied_embeddings) append("lm_head");
  return bytes;
}

/// As model.safetensors in a directory.
template <class Element = float>
void write_safetensors(const TemporaryDirectory& directory, const Tensors& tensors) {
  std::map<std::string, Matrix<Element>> converted;
  cafeq::TensorViewMap views;
  for (const auto& [name, m] : tensors) {
    auto& to = converted.emplace(name, Matrix<Element>(m.rows(), m.cols())).first->second;
    for (Index i = 0; i < m.size(); ++i) to.data()[i] = Element(m.data()[i]);
    auto view = cafeq::as_tensor(std::as_const(to).view());
    if (m.rows() == 1) view.shape = {m.cols()};
    views.emplace(name, view);
  }
  cafeq::write_safetensors(directory / "model.safetensors", views);
}

/// config.json, with changes, and model.safetensors.
template <class Element = float>
void write_hugging_face(const TemporaryDirectory& directory, const TinyModel& model,
                        const Json& changes = Json::object()) {
  Json config = config_json(model.config);
  config.update(changes);
  directory.write("config.json", config.dump());
  write_safetensors<Element>(directory, half_split(model));
}

}  // namespace engine::test
