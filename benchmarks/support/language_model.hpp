/// A language model with random weights: the shapes of one of 135 million weights, with fewer
/// layers and tokens.
#pragma once

#include <memory>
#include <string_view>

#include "engine/forward.hpp"
#include "engine/packed.hpp"
#include "support/bench.hpp"

namespace bench {

inline cafeq::ModelConfig language_model_config() {
  cafeq::ModelConfig config{.architecture = "llama",
                            .layers = smoke() ? 1 : 4,
                            .hidden = 576,
                            .intermediate = 1536,
                            .vocabulary = 2048,
                            .heads = 9,
                            .kv_heads = 3,
                            .head_dim = 64,
                            .context = 512,
                            .norm_epsilon = 1e-5,
                            .rope_base = 10000,
                            .tied_embeddings = true};
  config.attention.rotary = cafeq::Rotary{.dims = 64};
  return config;
}

/// Weights of its layers by one of engine::quantizers; without a name floats.
inline engine::Model language_model(std::string_view quantizer) {
  const auto config = language_model_config();
  const Index dim = config.hidden, queries = config.heads * config.head_dim,
              keys = config.kv_heads * config.head_dim;
  std::uint64_t seed = 0;
  const auto random = [&](Index out, Index in) {
    cafeq::Matrix<float> W(out, in);
    const auto x = weights(W.size(), ++seed);
    std::copy(x.begin(), x.end(), W.data());
    return W;
  };
  const auto linear = [&](Index out, Index in) {
    const auto W = random(out, in);
    const auto& kernels = engine::kernels();
    return engine::Linear{out, quantizer.empty()
                                   ? kernels.dense(kernels.pack(W.view()))
                                   : engine::packed_weights().quantize(quantizer, W.view(), {})};
  };
  const engine::Norm gains(std::size_t(dim), 1.0f);
  const auto E = random(config.vocabulary, dim);
  engine::Model model{
      .config = config, .embedding = engine::kernels().pack(E.view()), .norm = gains};
  for (Index l = 0; l < config.layers; ++l)
    model.layers.push_back(
        {.attention_norm = gains,
         .query_key_value = {linear(queries, dim), linear(keys, dim), linear(keys, dim)},
         .output = {linear(dim, queries)},
         .mlp_norm = gains,
         .gate_up = {linear(config.intermediate, dim), linear(config.intermediate, dim)},
         .down = {linear(dim, config.intermediate)}});
  model.head = {config.vocabulary, engine::kernels().dense(model.embedding)};
  return model;
}

}  // namespace bench
