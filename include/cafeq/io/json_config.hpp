/// ModelConfig from the config.json of a Hugging Face model.
///
/// Architectures that cafeq/model/architectures.hpp does not list are read as well, but of their
/// pairs none is known to be exact.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/complete_config.hpp"
#include "cafeq/io/json.hpp"
#include "cafeq/model/architectures.hpp"
#include "cafeq/model/model.hpp"

namespace cafeq {

/// `text` is the content of a config.json; of a multimodal model what it says of the language model
/// is read ("text_config"). `file` is for messages. Raises corrupt for what is not JSON, for values
/// of another type than they must have, and for numbers that no model has.
inline ModelConfig config_from_json(std::string_view text, std::string_view file = "config.json");

namespace detail {

/// The activation that transformers names so.
inline Activation activation_named(std::string_view name) noexcept {
  if (name == "silu" || name == "swish") return Activation::silu;
  if (name == "relu") return Activation::relu;
  if (name == "leaky_relu") return Activation::leaky_relu;
  return name.starts_with("gelu") ? Activation::gelu : Activation::other;
}

/// The members of a configuration, each of which has one of several names. A member that is null
/// counts as missing, one of another type or beyond its limit is corrupt.
class JsonConfig {
 public:
  using Names = std::initializer_list<const char*>;

  /// `object` must outlive this view of it; `where` is for messages.
  JsonConfig(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) raise(ErrorCode::corrupt, message(where_, ": is not a JSON object"));
  }

  Index count(Names names, Index limit = count_limit) const {
    return get<Index>(names, count_up_to(limit),
                      [&](const Json& value) {
                        const auto number = to_size(value);
                        return number && *number <= limit ? number : std::nullopt;
                      })
        .value_or(0);
  }
  std::optional<double> number(Names names, double limit = 1e18) const {
    return get<double>(names, message("a number from 0 to ", limit), [&](const Json& value) {
      const double number = value.is_number() ? value.get<double>() : -1;
      return number >= 0 && number <= limit ? std::optional(number) : std::nullopt;
    });
  }
  std::optional<bool> flag(Names names) const {
    return get<bool>(names, "true or false", [](const Json& value) {
      return value.is_boolean() ? std::optional(value.get<bool>()) : std::nullopt;
    });
  }
  std::optional<std::string> text(Names names) const {
    return get<std::string>(names, "a string", [](const Json& value) {
      return value.is_string() ? std::optional(value.get<std::string>()) : std::nullopt;
    });
  }
  std::optional<std::vector<Index>> counts(Names names) const {
    return get<std::vector<Index>>(names, "an array of whole numbers",
                                   [](const Json& value) { return to_sizes(&value); });
  }
  /// The member, or one without members where there is none.
  JsonConfig object(const char* name) const {
    static const Json nothing = Json::object();
    const Json* member = find_member(object_, name);
    return {member == nullptr || member->is_null() ? nothing : *member,
            message(where_, ": ", name)};
  }
  bool empty() const noexcept { return object_.empty(); }

 private:
  template <class T, class Convert>
  std::optional<T> get(Names names, std::string_view expected, Convert convert) const {
    for (const char* name : names) {
      const Json* member = find_member(object_, name);
      if (member == nullptr || member->is_null()) continue;
      std::optional<T> value = convert(*member);
      if (!value) raise_config(where_, name, printable(*member), expected);
      return value;
    }
    return std::nullopt;
  }

  const Json& object_;
  std::string where_;
};

/// How many coordinates of each head are rotated.
inline Index rotary_dims(const JsonConfig& json, const Architecture& architecture, Index head_dim) {
  if (const Index dims = json.count({"rotary_dim"}); dims > 0) return dims;
  auto fraction = json.number({"partial_rotary_factor", "rotary_pct"}, 1);
  if (!fraction) fraction = json.object("rope_parameters").number({"partial_rotary_factor"}, 1);
  return Index(double(head_dim) * fraction.value_or(architecture.rotary_fraction));
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
  const detail::JsonConfig nested = whole.object("text_config");
  const detail::JsonConfig& json = nested.empty() ? whole : nested;

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
  config.rope_base =
      json.number({"rope_theta", "rotary_emb_base"})
          .value_or(json.object("rope_parameters").number({"rope_theta"}).value_or(0));
  detail::complete_heads(config, file);

  const detail::Architecture* architecture = detail::find_architecture(config.architecture);
  config.tied_embeddings =
      json.flag({"tie_word_embeddings"})
          .value_or(whole.flag({"tie_word_embeddings"})
                        .value_or(architecture != nullptr && architecture->tied_embeddings));
  if (architecture != nullptr) detail::set_traits(config, *architecture, json);
  return config;
}

}  // namespace cafeq
