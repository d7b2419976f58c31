/// ModelConfig from the config.json of a Hugging Face model.
///
/// Architectures that cafeq/model/architectures.hpp does not list are read as well, but of their
/// pairs none is known to be exact.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/complete_config.hpp"
#include "cafeq/io/json.hpp"
#include "cafeq/io/json_members.hpp"
#include "cafeq/io/json_rope.hpp"
#include "cafeq/model/architectures.hpp"
#include "cafeq/model/model.hpp"

namespace cafeq {

/// `text` is the content of a config.json; of a multimodal model what it says of the language model
/// is read ("text_config"). `file` is for messages. Raises corrupt for what is not JSON, for values
/// of another type than they must have, and for numbers that no model has.
inline ModelConfig config_from_json(std::string_view text, std::string_view file = "config.json");

namespace detail {

/// What transformers takes where a config.json does not say, as far as published files leave it
/// out: of a language model within a multimodal one they write only what differs.
inline constexpr std::array<std::pair<std::string_view, std::string_view>, 5> config_defaults{
    {{"mistral", R"({"sliding_window": 4096})"},
     {"qwen2", R"({"max_window_layers": 28, "use_sliding_window": false})"},
     {"qwen3", R"({"max_window_layers": 28, "use_sliding_window": false})"},
     {"gemma2", R"({"attn_logit_softcapping": 50, "final_logit_softcapping": 30, "head_dim": 256,
       "query_pre_attn_scalar": 256, "sliding_window": 4096})"},
     {"gemma3_text", R"({"head_dim": 256, "max_position_embeddings": 131072,
       "num_attention_heads": 8, "num_key_value_heads": 4, "query_pre_attn_scalar": 256,
       "rms_norm_eps": 1e-6, "sliding_window": 4096, "vocab_size": 262208})"}}};

/// The configuration of a language model with what it leaves out. A null stays one.
inline Json with_defaults(const Json& config) {
  const std::string* type = find_string(config, "model_type");
  for (const auto& [name, defaults] : config_defaults)
    if (type != nullptr && *type == name) {
      Json complete = parse_json(defaults, name);
      complete.update(config);
      return complete;
    }
  return config;
}

/// The activation that transformers names so.
inline Activation activation_named(std::string_view name) noexcept {
  if (name == "silu" || name == "swish") return Activation::silu;
  if (name == "relu") return Activation::relu;
  if (name == "leaky_relu") return Activation::leaky_relu;
  return name.starts_with("gelu") ? Activation::gelu : Activation::other;
}

/// How many coordinates of each head are rotated.
inline Index rotary_dims(const JsonConfig& json, const Architecture& architecture, Index head_dim) {
  if (const Index dims = json.count({"rotary_dim"}); dims > 0) return dims;
  auto fraction = json.number({"partial_rotary_factor", "rotary_pct"}, 1);
  if (!fraction) fraction = json.object("rope_parameters").number({"partial_rotary_factor"}, 1);
  return Index(double(head_dim) * fraction.value_or(architecture.rotary_fraction));
}

/// Which layers attend to a window only.
inline void read_window(ModelConfig& config, const Architecture& architecture,
                        const JsonConfig& json) {
  Index window = json.count({"sliding_window"}, size_limit);
  if (!json.flag({"use_sliding_window"}).value_or(true)) window = 0;
  const Index period = json.count({"sliding_window_pattern"});
  set_window(config, window, period > 0 ? period : architecture.window_period,
             json.count({"max_window_layers"}));

  const auto types = json.texts({"layer_types"});
  if (window == 0 || !types) return;
  config.windowed.clear();
  for (const std::string& type : *types) config.windowed.push_back(type == "sliding_attention");
}

/// What becomes of scores and logits.
inline void read_scores(ModelConfig& config, const JsonConfig& json) {
  if (const auto width = json.number({"query_pre_attn_scalar"}); width && *width > 0)
    config.attention_scale = 1 / std::sqrt(*width);
  config.attention_softcap = json.number({"attn_logit_softcapping"}).value_or(0);
  config.logit_softcap = json.number({"final_logit_softcapping"}).value_or(0);
}

/// The traits of the architecture, and what the configuration adds to them.
inline void set_traits(ModelConfig& config, const Architecture& architecture,
                       const JsonConfig& json) {
  set_traits(config, architecture, architecture.rotary,
             rotary_dims(json, architecture, config.head_dim));
  AttentionTraits& attention = config.attention;
  attention.qk_norm |= json.flag({"use_qk_norm", "qk_layernorm"}).value_or(false);
  attention.gated_output |= json.flag({"attn_output_gate"}).value_or(false);
  attention.clipped |= json.number({"clip_qkv"}).has_value();

  if (const auto activation =
          json.text({"hidden_activation", "hidden_act", "activation_function", "activation"}))
    config.mlp.activation = activation_named(*activation);

  const auto positions = json.text({"position_embedding_type"}).value_or("absolute");
  if (!architecture.rotary && positions != "absolute")
    config.attention_doubt =
        message("what position_embedding_type ", positions, " does to the scores is not known");

  // One number for each layer, 0 where that layer does without rotary positions.
  const auto rotated = json.counts({"no_rope_layers"}).value_or(std::vector<Index>{});
  AttentionTraits unrotated = attention;
  unrotated.rotary.reset();
  for (std::size_t layer = 0; layer < rotated.size(); ++layer)
    if (rotated[layer] == 0) config.other_attention.emplace_back(Index(layer), unrotated);
}

}  // namespace detail

inline ModelConfig config_from_json(std::string_view text, std::string_view file) {
  const detail::Json root = detail::parse_json(text, file);
  const detail::JsonConfig whole(root, std::string(file));
  const bool is_nested = !whole.object("text_config").empty();
  const detail::Json complete = detail::with_defaults(is_nested ? root["text_config"] : root);
  const detail::JsonConfig json(complete,
                                is_nested ? message(file, ": text_config") : std::string(file));

  ModelConfig config;
  config.architecture = json.text({"model_type"}).value_or("");
  config.layers = json.count({"num_hidden_layers", "n_layer", "n_layers", "num_layers"});
  config.hidden = json.count({"hidden_size", "n_embd", "d_model", "dim"}, detail::size_limit);
  config.intermediate =
      json.count({"intermediate_size", "n_inner", "ffn_dim", "hidden_dim"}, detail::size_limit);
  config.vocabulary = json.count({"vocab_size"}, detail::size_limit);
  config.heads = json.count({"num_attention_heads", "n_head", "n_heads", "num_heads"});
  config.kv_heads =
      json.flag({"multi_query"}).value_or(false) ? 1 : json.count({"num_key_value_heads"});
  config.head_dim = json.count({"head_dim"});
  config.experts = json.count({"num_local_experts", "num_experts", "n_routed_experts"});
  config.context = json.count({"max_position_embeddings", "n_positions"}, detail::size_limit);
  config.norm_epsilon =
      json.number({"rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps"}).value_or(0);
  detail::complete_heads(config, file);

  const detail::Architecture* architecture = detail::find_architecture(config.architecture);
  config.tied_embeddings =
      json.flag({"tie_word_embeddings"})
          .value_or(whole.flag({"tie_word_embeddings"})
                        .value_or(architecture != nullptr && architecture->tied_embeddings));
  if (architecture != nullptr) {
    detail::set_traits(config, *architecture, json);
    detail::read_window(config, *architecture, json);
    detail::read_scores(config, json);
    config.norm_offset = architecture->norm_offset;
  }
  detail::read_rope(config, json, architecture);
  return config;
}

}  // namespace cafeq
