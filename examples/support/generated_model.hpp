/// A model of the Llama architecture with random weights, as a directory of Hugging Face.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "cafeq/core/executor.hpp"
#include "cafeq/core/rng.hpp"
#include "cafeq/io/sharded_safetensors.hpp"

namespace cafeq::example {

struct GeneratedModel {
  std::string directory;
  Index hidden = 2048, intermediate = 5632, layers = 22, heads = 32, kv_heads = 4,
        vocabulary = 32000;
  bool tied_embeddings = false;
  std::uint64_t seed = 0;
  bool fp32 = false;
  Index shard_bytes = 1'000'000'000;
};

namespace detail {

inline std::string config_of(const GeneratedModel& model) {
  const cafeq::detail::Json config{{"architectures", {"LlamaForCausalLM"}},
                                   {"model_type", "llama"},
                                   {"hidden_act", "silu"},
                                   {"hidden_size", model.hidden},
                                   {"intermediate_size", model.intermediate},
                                   {"max_position_embeddings", 2048},
                                   {"num_attention_heads", model.heads},
                                   {"num_hidden_layers", model.layers},
                                   {"num_key_value_heads", model.kv_heads},
                                   {"rms_norm_eps", 1e-5},
                                   {"rope_theta", 10000.0},
                                   {"tie_word_embeddings", model.tied_embeddings},
                                   {"torch_dtype", model.fp32 ? "float32" : "bfloat16"},
                                   {"vocab_size", model.vocabulary}};
  return config.dump(2) + "\n";
}

inline std::vector<SafetensorsEntry> entries_of(const GeneratedModel& model) {
  std::vector<SafetensorsEntry> entries;
  const auto add = [&](const std::string& name, std::vector<Index> shape) {
    entries.push_back(
        {name + ".weight", model.fp32 ? ScalarType::f32 : ScalarType::bf16, std::move(shape)});
  };
  const Index kv_width = model.hidden / model.heads * model.kv_heads;
  add("model.embed_tokens", {model.vocabulary, model.hidden});
  for (Index l = 0; l < model.layers; ++l) {
    const std::string layer = message("model.layers.", l, ".");
    add(layer + "self_attn.q_proj", {model.hidden, model.hidden});
    add(layer + "self_attn.k_proj", {kv_width, model.hidden});
    add(layer + "self_attn.v_proj", {kv_width, model.hidden});
    add(layer + "self_attn.o_proj", {model.hidden, model.hidden});
    add(layer + "mlp.gate_proj", {model.intermediate, model.hidden});
    add(layer + "mlp.up_proj", {model.intermediate, model.hidden});
    add(layer + "mlp.down_proj", {model.hidden, model.intermediate});
    add(layer + "input_layernorm", {model.hidden});
    add(layer + "post_attention_layernorm", {model.hidden});
  }
  add("model.norm", {model.hidden});
  if (!model.tied_embeddings) add("lm_head", {model.vocabulary, model.hidden});
  return entries;
}

/// Student's t with 4 degrees of freedom, times 0.02: its value at each of 2^16 quantiles. W. T.
/// Shaw, "Sampling Student's T distribution", 2006.
inline std::vector<bf16> heavy_tailed_quantiles() {
  std::vector<bf16> values;
  for (int i = 0; i < 1 << 16; ++i) {
    const double p = (i + 0.5) / (1 << 16);
    const double a = std::sqrt(4 * p * (1 - p));
    const double t = 2 * std::sqrt(std::cos(std::acos(a) / 3) / a - 1);
    values.emplace_back(float(p < 0.5 ? -0.02 * t : 0.02 * t));
  }
  return values;
}

}  // namespace detail

/// Writes config.json and safetensors files into the directory, which must exist. Weights of
/// matrices are heavy-tailed, gains of norms 1; the same for the same seed.
inline void write_generated_model(const GeneratedModel& model, ExecutorRef executor) {
  const auto quantiles = detail::heavy_tailed_quantiles();
  const auto entries = detail::entries_of(model);
  ShardedSafetensorsWriter writer(model.directory, entries, {{"format", "pt"}}, model.shard_bytes);
  std::vector<bf16> weights;
  for (const auto& [name, type, shape] : entries) {
    weights.assign(std::size_t(*element_count(shape)), bf16(1.0f));
    if (shape.size() > 1) {
      const CounterRng rng(model.seed, stream_of(name));
      executor.parallel_for(Index(weights.size()), 1 << 16, [&](Index begin, Index end, Index) {
        for (Index i = begin; i < end; i += 8) {
          const auto random = rng.block(std::uint64_t(i));
          for (Index k = 0; k < std::min<Index>(8, end - i); ++k)
            weights[std::size_t(i + k)] =
                quantiles[random[std::size_t(k / 2)] >> (k % 2 * 16) & 0xffff];
        }
      });
    }
    if (model.fp32) {
      const std::vector<float> wide(weights.begin(), weights.end());
      writer.write(name, std::as_bytes(std::span(wide)));
    } else {
      writer.write(name, std::as_bytes(std::span(weights)));
    }
  }
  AtomicFile config(model.directory + "/config.json");
  const std::string text = detail::config_of(model);
  config.write(std::as_bytes(std::span(text)));
  writer.commit();
  config.commit();
}

}  // namespace cafeq::example
