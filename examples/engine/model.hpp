/// A Llama model: its configuration, its weights, and how they are loaded whatever file they come
/// from.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels.hpp"

namespace engine {

using Token = std::uint32_t;

[[noreturn]] inline void fail(const std::string& what) { throw std::runtime_error(what); }

/// Slows the rotations of long wavelengths down, so that a model reaches further than it was first
/// trained for (Llama 3.1).
struct RopeScaling {
  double factor = 1;
  double low_frequency_factor = 1;
  double high_frequency_factor = 4;
  double original_context = 8192;
};

struct Config {
  std::size_t dim = 0;     ///< width of the residual stream
  std::size_t hidden = 0;  ///< width of the feed-forward layers
  std::size_t layers = 0;
  std::size_t heads = 0;
  std::size_t kv_heads = 0;  ///< heads / kv_heads query heads share a key and a value
  std::size_t head_dim = 0;
  std::size_t vocabulary = 0;
  std::size_t context = 0;
  float norm_epsilon = 1e-5f;
  double rope_base = 10000;
  std::optional<RopeScaling> rope_scaling{};
  /// Rotates coordinate 2i with 2i + 1 rather than i with i + head_dim / 2.
  bool rope_interleaved = false;
  bool tied_embeddings = false;
  std::vector<Token> end{};  ///< any of them ends a text
};

/// A file, or a directory of them, that holds a model.
struct Checkpoint {
  Config config;
  /// The tensor [rows, cols] (a vector has one row) of a name that transformers would give it.
  /// Throws if it is missing or of another shape.
  std::function<Matrix(const std::string& name, std::size_t rows, std::size_t cols)> read;
};

struct Layer {
  std::vector<float> attention_norm;  // [dim]
  Linear query_key_value;             // [(heads + 2 · kv_heads) · head_dim, dim]
  Linear output;                      // [dim, heads · head_dim]
  std::vector<float> mlp_norm;        // [dim]
  Linear gate_up;                     // [2 · hidden, dim]
  Linear down;                        // [dim, hidden]
};

/// Matrices with the same input are stacked: one product is faster than two or three.
struct Model {
  Config config;
  std::shared_ptr<const Matrix> embeddings;  // [vocabulary, dim]
  std::vector<Layer> layers{};
  std::vector<float> norm;  // [dim]
  Linear head{};            // [vocabulary, dim]
};

/// Throws where the numbers of a configuration cannot be those of a model.
inline void check_config(const Config& c) {
  const std::pair<const char*, std::size_t> sizes[] = {{"dim", c.dim},
                                                       {"hidden", c.hidden},
                                                       {"layers", c.layers},
                                                       {"heads", c.heads},
                                                       {"kv_heads", c.kv_heads},
                                                       {"head_dim", c.head_dim},
                                                       {"vocabulary", c.vocabulary},
                                                       {"context", c.context}};
  for (const auto& [name, size] : sizes)
    if (size == 0 || size > 1 << 24)
      fail(name + std::string(" is ") + std::to_string(std::int64_t(size)));
  if (c.heads % c.kv_heads != 0)
    fail(std::to_string(c.heads) + " heads cannot share " + std::to_string(c.kv_heads) +
         " key/value heads");
  if (c.head_dim % 2 != 0)
    fail("heads of " + std::to_string(c.head_dim) + " coordinates cannot be rotated in pairs");
}

/// The one place where weights are loaded. Those of the layers become what `quantizer`, one of
/// `quantizers`, says.
inline Model load_model(const Checkpoint& checkpoint, std::string_view quantizer = "none",
                        cafeq::ExecutorRef threads = {}) {
  const Config& c = checkpoint.config;
  const std::size_t queries = c.heads * c.head_dim, keys = c.kv_heads * c.head_dim;
  std::string prefix = "model.";
  const auto matrix = [&](const std::string& name, std::size_t rows, std::size_t cols) {
    return checkpoint.read(prefix + name + ".weight", rows, cols);
  };
  const auto vector = [&](const std::string& name, std::size_t size) {
    return matrix(name, 1, size).values;
  };
  const auto plain = [](Matrix weights) {
    return kernels().plain(std::make_shared<const Matrix>(std::move(weights)));
  };
  struct Part {
    const char* name;
    std::size_t rows;
  };
  const auto stack = [&](std::initializer_list<Part> parts, std::size_t cols) {
    Matrix all(0, cols);
    for (const auto& [name, rows] : parts) {
      const Matrix part = matrix(name, rows, cols);
      all.values.insert(all.values.end(), part.values.begin(), part.values.end());
      all.rows += rows;
    }
    return quantizer == "none" ? plain(std::move(all)) : kernels().packed(quantizer, all, threads);
  };

  Model model{
      .config = c,
      .embeddings = std::make_shared<const Matrix>(matrix("embed_tokens", c.vocabulary, c.dim)),
      .norm = vector("norm", c.dim)};
  for (std::size_t l = 0; l < c.layers; ++l) {
    prefix = "model.layers." + std::to_string(l) + ".";
    model.layers.push_back({
        .attention_norm = vector("input_layernorm", c.dim),
        .query_key_value = stack(
            {{"self_attn.q_proj", queries}, {"self_attn.k_proj", keys}, {"self_attn.v_proj", keys}},
            c.dim),
        .output = stack({{"self_attn.o_proj", c.dim}}, queries),
        .mlp_norm = vector("post_attention_layernorm", c.dim),
        .gate_up = stack({{"mlp.gate_proj", c.hidden}, {"mlp.up_proj", c.hidden}}, c.dim),
        .down = stack({{"mlp.down_proj", c.dim}}, c.hidden),
    });
  }
  prefix.clear();
  model.head = c.tied_embeddings ? kernels().plain(model.embeddings)
                                 : plain(matrix("lm_head", c.vocabulary, c.dim));
  return model;
}

}  // namespace engine
