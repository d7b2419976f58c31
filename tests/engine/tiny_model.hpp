// A model of a few numbers, and the files that hold it.
#pragma once
#include <bit>
#include <cstring>
#include <map>
#include <string>

#include "cafeq/core/rng.hpp"
#include "cafeq/core/thread_pool.hpp"
#include "engine/forward.hpp"
#include "engine/hugging_face.hpp"
#include "engine/llama2c.hpp"
#include "io/temporary_directory.hpp"

namespace engine::test {

using cafeq::test::TemporaryDirectory;
using Tensors = std::map<std::string, Matrix>;

/// Weights k/64 with |k| <= 64, which all types of weights hold exactly. Rows of queries and keys
/// are those of llama2.c.
struct TinyModel {
  Config config;
  Tensors tensors;

  Checkpoint checkpoint() const {
    return {config, [all = tensors](const std::string& name, std::size_t, std::size_t) {
              return all.at(name);
            }};
  }
};

inline Config tiny_config() {
  Config c;
  c.dim = 16, c.hidden = 24, c.layers = 2, c.heads = 4, c.kv_heads = 2, c.head_dim = 4,
  c.vocabulary = 11, c.context = 20;
  c.rope_interleaved = true;
  c.tied_embeddings = true;
  return c;
}

inline TinyModel tiny_model(const Config& c = tiny_config()) {
  TinyModel model{c, {}};
  const auto add = [&](const std::string& name, std::size_t rows, std::size_t cols) {
    const cafeq::CounterRng rng(7, cafeq::stream_of(name));
    Matrix m(rows, cols);
    for (std::size_t i = 0; i < m.values.size(); ++i)
      m.values[i] = float(rng.below(i, 129)) / 64 - 1;
    model.tensors[name + ".weight"] = m;
  };
  const std::size_t queries = c.heads * c.head_dim, keys = c.kv_heads * c.head_dim;
  add("model.embed_tokens", c.vocabulary, c.dim);
  add("model.norm", 1, c.dim);
  if (!c.tied_embeddings) add("lm_head", c.vocabulary, c.dim);
  for (std::size_t l = 0; l < c.layers; ++l) {
    const std::string layer = "model.layers." + std::to_string(l) + ".";
    add(layer + "input_layernorm", 1, c.dim);
    add(layer + "self_attn.q_proj", queries, c.dim);
    add(layer + "self_attn.k_proj", keys, c.dim);
    add(layer + "self_attn.v_proj", keys, c.dim);
    add(layer + "self_attn.o_proj", c.dim, queries);
    add(layer + "post_attention_layernorm", 1, c.dim);
    add(layer + "mlp.gate_proj", c.hidden, c.dim);
    add(layer + "mlp.up_proj", c.hidden, c.dim);
    add(layer + "mlp.down_proj", c.dim, c.hidden);
  }
  return model;
}

inline Matrix logits(const Checkpoint& checkpoint, const std::vector<Token>& tokens,
                     cafeq::Index threads = 1) {
  const Model model = load_model(checkpoint);
  cafeq::ThreadPool pool(threads);
  Transformer transformer(model, pool);
  return transformer.logits(transformer.forward(tokens));
}

inline void append(std::string& to, const void* from, std::size_t bytes) {
  to.append(static_cast<const char*>(from), bytes);
}

inline std::string llama2c_bytes(const TinyModel& model) {
  const Config& c = model.config;
  const auto i = [](std::size_t n) { return std::int32_t(n); };
  const std::int32_t header[] = {i(c.dim),      i(c.hidden),
                                 i(c.layers),   i(c.heads),
                                 i(c.kv_heads), (c.tied_embeddings ? 1 : -1) * i(c.vocabulary),
                                 i(c.context)};
  std::string bytes;
  append(bytes, header, sizeof header);
  const auto tensor = [&](const std::string& name) {
    append(bytes, model.tensors.at(name + ".weight").values.data(),
           model.tensors.at(name + ".weight").values.size() * 4);
  };
  tensor("model.embed_tokens");
  for (const char* name : {"input_layernorm", "self_attn.q_proj", "self_attn.k_proj",
                           "self_attn.v_proj", "self_attn.o_proj", "post_attention_layernorm",
                           "mlp.gate_proj", "mlp.down_proj", "mlp.up_proj"})
    for (std::size_t l = 0; l < c.layers; ++l)
      tensor("model.layers." + std::to_string(l) + "." + name);
  tensor("model.norm");
  bytes.append(c.context * c.head_dim * 4, '\x7f');  // rotations that nobody reads
  if (!c.tied_embeddings) tensor("lm_head");
  return bytes;
}

/// Rows of queries and keys in the order of transformers: of each head first what is rotated as x,
/// then what is rotated as y.
inline Tensors half_split(const TinyModel& model) {
  const std::size_t dim = model.config.head_dim;
  Tensors result = model.tensors;
  for (auto& [name, m] : result) {
    if (name.find("q_proj") == name.npos && name.find("k_proj") == name.npos) continue;
    const Matrix before = m;
    for (std::size_t i = 0; i < m.rows; ++i) {
      const std::size_t head = i / dim, j = i % dim;
      std::ranges::copy(before.row(i), m.row(head * dim + j / 2 + (j % 2) * (dim / 2)).begin());
    }
  }
  return result;
}

/// The bits of a number that the type holds exactly.
inline std::uint16_t to_bf16(float x) {
  return std::uint16_t(std::bit_cast<std::uint32_t>(x) >> 16);
}
inline std::uint16_t to_fp16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (x == 0) return 0;
  return std::uint16_t((bits >> 16 & 0x8000) | ((bits >> 13 & 0x3ffff) - ((127 - 15) << 10)));
}

inline std::string safetensors_bytes(const Json& header, const std::string& data) {
  const std::string text = header.dump();
  const std::uint64_t length = text.size();
  std::string bytes;
  append(bytes, &length, 8);
  return bytes + text + data;
}

inline std::string safetensors_bytes(const Tensors& tensors, const std::string& type) {
  Json header;
  std::string data;
  for (const auto& [name, m] : tensors) {
    const std::size_t begin = data.size();
    for (const float x : m.values) {
      const std::uint16_t half = type == "BF16" ? to_bf16(x) : to_fp16(x);
      if (type == "F32") append(data, &x, 4);
      else append(data, &half, 2);
    }
    const Json shape = m.rows == 1 ? Json{m.cols} : Json{m.rows, m.cols};
    header[name] = {{"dtype", type}, {"shape", shape}, {"data_offsets", {begin, data.size()}}};
  }
  return safetensors_bytes(header, data);
}

inline Json config_json(const Config& c) {
  return {{"model_type", "llama"},
          {"hidden_size", c.dim},
          {"intermediate_size", c.hidden},
          {"num_hidden_layers", c.layers},
          {"num_attention_heads", c.heads},
          {"num_key_value_heads", c.kv_heads},
          {"head_dim", c.head_dim},
          {"vocab_size", c.vocabulary},
          {"max_position_embeddings", c.context},
          {"rms_norm_eps", c.norm_epsilon},
          {"rope_theta", c.rope_base},
          {"rope_scaling", nullptr},
          {"tie_word_embeddings", c.tied_embeddings},
          {"eos_token_id", {2, 3}}};
}

/// config.json and model.safetensors.
inline void write_hugging_face(const TemporaryDirectory& directory, const TinyModel& model,
                               const std::string& type) {
  directory.write("config.json", config_json(model.config).dump());
  directory.write("model.safetensors", safetensors_bytes(half_split(model), type));
}

/// The same in two files and an index.
inline void write_sharded(const TemporaryDirectory& directory, const TinyModel& model,
                          const std::string& type) {
  directory.write("config.json", config_json(model.config).dump());
  const std::string names[] = {"model-00001-of-00002.safetensors",
                               "model-00002-of-00002.safetensors"};
  Tensors shards[2];
  Json index;
  std::size_t i = 0;
  for (const auto& [name, m] : half_split(model)) {
    shards[i % 2][name] = m;
    index["weight_map"][name] = names[i++ % 2];
  }
  for (i = 0; i < 2; ++i) directory.write(names[i], safetensors_bytes(shards[i], type));
  directory.write("model.safetensors.index.json", index.dump());
}

}  // namespace engine::test
