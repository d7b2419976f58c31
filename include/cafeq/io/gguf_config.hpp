/// ModelConfig from a GGUF file: from its metadata, and from those of its tensors that say what
/// other formats have in their configuration.
///
/// What llama.cpp has in its code, by architecture, is in the table below. Architectures that are
/// not listed here are read as well, but of their pairs none is known to be exact.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cafeq/io/complete_config.hpp"
#include "cafeq/io/gguf_fields.hpp"
#include "cafeq/io/gguf_file.hpp"
#include "cafeq/io/gguf_metadata.hpp"
#include "cafeq/io/gguf_rope.hpp"
#include "cafeq/model/architectures.hpp"
#include "cafeq/model/model.hpp"

namespace cafeq {

/// What the metadata says of a model. Raises corrupt for fields of another type than they must
/// have, and for numbers that no model has.
inline ModelConfig config_from_gguf(const GgufMetadata& metadata);

/// The same, and what the tensors say: the vocabulary where the metadata does not, whether the
/// embedding is also the unembedding, factors of rotary frequencies. Raises corrupt for factors
/// that are not what they must be.
inline ModelConfig config_from_gguf(const GgufReader& file);

namespace detail {

/// An architecture as GGUF names it.
struct GgufArchitecture {
  std::string_view name;        ///< general.architecture
  std::string_view model_type;  ///< what transformers calls it, as in cafeq/model/architectures.hpp
  bool interleaved = false;     ///< rows of queries and keys are in the order that makes neighbours
                                ///< of rotary pairs, whatever order they have in transformers
  bool windowed = false;        ///< llama.cpp heeds the window
  Index window = 0;             ///< where the metadata does not say
  double attention_softcap = 0;  ///< likewise; 0: whatever it says, llama.cpp takes none
  double logit_softcap = 0;      ///< likewise
  Index wide_layers = 0;         ///< of the one model whose scores are over √(hidden / heads)
};

/// Not every architecture of transformers has a name of its own: files of Mistral's models say
/// "llama".
inline constexpr std::array gguf_architectures{
    GgufArchitecture{.name = "llama", .model_type = "llama", .interleaved = true},
    GgufArchitecture{.name = "qwen2", .model_type = "qwen2"},
    GgufArchitecture{.name = "qwen2moe", .model_type = "qwen2_moe"},
    GgufArchitecture{.name = "qwen3", .model_type = "qwen3"},
    GgufArchitecture{.name = "qwen3moe", .model_type = "qwen3_moe"},
    GgufArchitecture{.name = "gemma", .model_type = "gemma"},
    GgufArchitecture{.name = "gemma2",
                     .model_type = "gemma2",
                     .windowed = true,
                     .window = 4096,
                     .attention_softcap = 50,
                     .logit_softcap = 30,
                     .wide_layers = 46},
    GgufArchitecture{
        .name = "gemma3", .model_type = "gemma3_text", .windowed = true, .wide_layers = 62},
    GgufArchitecture{.name = "phi2", .model_type = "phi"},
    GgufArchitecture{.name = "phi3", .model_type = "phi3"},
    GgufArchitecture{.name = "granite", .model_type = "granite", .interleaved = true},
    GgufArchitecture{.name = "olmo", .model_type = "olmo", .interleaved = true},
    GgufArchitecture{.name = "olmo2", .model_type = "olmo2"},
    GgufArchitecture{.name = "olmoe", .model_type = "olmoe"},
    GgufArchitecture{.name = "stablelm", .model_type = "stablelm"},
    GgufArchitecture{.name = "starcoder2", .model_type = "starcoder2"},
    GgufArchitecture{.name = "gpt-oss", .model_type = "gpt_oss", .windowed = true},
    GgufArchitecture{.name = "bitnet", .model_type = "bitnet"},
    GgufArchitecture{.name = "gpt2", .model_type = "gpt2"},
    GgufArchitecture{.name = "starcoder", .model_type = "gpt_bigcode"},
    GgufArchitecture{.name = "gptneox", .model_type = "gpt_neox"},
    GgufArchitecture{.name = "bert", .model_type = "bert"}};

/// The architecture that GGUF names so, or null where it is not known.
inline const GgufArchitecture* find_gguf_architecture(std::string_view name) noexcept {
  for (const GgufArchitecture& architecture : gguf_architectures)
    if (architecture.name == name) return &architecture;
  return nullptr;
}

/// Which layers attend to a window only.
inline void read_window(ModelConfig& config, const GgufArchitecture& gguf,
                        const Architecture& architecture, const GgufConfig& fields) {
  if (!gguf.windowed) return;
  constexpr std::string_view pattern = "attention.sliding_window_pattern";
  const Index period = fields.count(pattern);
  set_window(config,
             fields.has("attention.sliding_window")
                 ? fields.count("attention.sliding_window", size_limit)
                 : gguf.window,
             period > 0 ? period : architecture.window_period);
  const auto by_layer = fields.flags(pattern);
  if (config.window > 0 && by_layer) config.windowed = *by_layer;
  if (config.window > 0)
    config.window_rope_base = fields.number("rope.freq_base_swa", architecture.window_rope_base);
}

/// What becomes of scores and logits.
inline void read_scores(ModelConfig& config, const GgufArchitecture& gguf,
                        const GgufConfig& fields) {
  if (gguf.wide_layers > 0 && config.layers == gguf.wide_layers && config.heads > 0)
    config.attention_scale = 1 / std::sqrt(double(config.hidden / config.heads));
  if (gguf.attention_softcap > 0)
    config.attention_softcap = fields.number("attn_logit_softcapping", gguf.attention_softcap);
  config.logit_softcap = fields.number("final_logit_softcapping", gguf.logit_softcap);
}

}  // namespace detail

inline ModelConfig config_from_gguf(const GgufMetadata& metadata) {
  constexpr std::string_view file = "metadata";
  ModelConfig config;
  config.architecture = metadata.get<std::string_view>("general.architecture").value_or("");
  const detail::GgufConfig fields(metadata, config.architecture);

  config.layers = fields.count("block_count");
  config.hidden = fields.count("embedding_length", detail::size_limit);
  config.intermediate = fields.count("feed_forward_length", detail::size_limit);
  config.vocabulary = fields.count("vocab_size", detail::size_limit);
  config.heads = fields.count("attention.head_count");
  config.kv_heads = fields.count("attention.head_count_kv");
  config.head_dim = fields.count("attention.key_length");
  config.experts = fields.count("expert_count");
  config.context = fields.count("context_length", detail::size_limit);
  const double rms_epsilon = fields.number("attention.layer_norm_rms_epsilon");
  config.norm_epsilon =
      rms_epsilon > 0 ? rms_epsilon : fields.number("attention.layer_norm_epsilon");
  config.rope_base = fields.number("rope.freq_base", 10000);
  detail::complete_heads(config, file);

  const detail::GgufArchitecture* gguf = detail::find_gguf_architecture(config.architecture);
  if (gguf == nullptr) return config;
  const detail::Architecture& architecture = *detail::find_architecture(gguf->model_type);
  const Index dims = fields.count("rope.dimension_count");
  detail::set_traits(config, architecture,
                     gguf->interleaved ? Rotary::Pairing::interleaved : architecture.rotary,
                     dims > 0 ? dims : config.head_dim);
  config.attention.clipped |= fields.number("attention.clamp_kqv") > 0;
  detail::read_window(config, *gguf, architecture, fields);
  detail::read_scores(config, *gguf, fields);
  detail::read_rope_scaling(config, fields);

  const Index value_dim = fields.count("attention.value_length");
  if (value_dim > 0 && value_dim != config.head_dim)
    config.attention_doubt = message("heads of keys have ", config.head_dim,
                                     " coordinates, those of values ", value_dim);
  return config;
}

inline ModelConfig config_from_gguf(const GgufReader& file) {
  ModelConfig config = config_from_gguf(file.metadata());
  const GgufTensor* embedding = file.find("token_embd.weight");
  if (embedding != nullptr && embedding->shape.size() == 2) {
    if (config.vocabulary == 0) config.vocabulary = embedding->shape.front();
    config.tied_embeddings = file.find("output.weight") == nullptr;
  }
  detail::read_rope_factors(config, {file.metadata(), config.architecture}, file);
  return config;
}

}  // namespace cafeq
