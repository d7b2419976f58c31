/// ModelConfig from what lies beside the weights: config.json of Hugging Face, the metadata of
/// GGUF, the header of llama2.c.
///
/// Architectures that cafeq/model/architectures.hpp does not list are read as well, but nothing is
/// known to be exact for them.
#pragma once

#include <cmath>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/gguf_metadata.hpp"
#include "cafeq/io/json.hpp"
#include "cafeq/io/llama2c.hpp"
#include "cafeq/model/architectures.hpp"
#include "cafeq/model/model.hpp"

namespace cafeq {

/// The text of a config.json; of a multimodal model what it says of the language model
/// ("text_config"). `file` is for messages. Raises corrupt for what is not JSON, values of another
/// type than they must have, and numbers that no model has.
inline ModelConfig config_from_json(std::string_view text, std::string_view file = "config.json");

/// Of the architectures that llama.cpp runs. Raises corrupt for fields of another type than they
/// must have, and numbers that no model has.
inline ModelConfig config_from_gguf(const GgufMetadata& metadata);

inline ModelConfig config_from_llama2c(const Llama2cHeader& header);

namespace detail {

inline constexpr Index count_limit = 1'000'000;      // of layers, heads, experts
inline constexpr Index size_limit = Index(1) << 40;  // of widths, vocabularies, contexts

[[noreturn]] inline void raise_config(std::string_view where, std::string_view name,
                                      std::string_view value, std::string_view expected) {
  raise(ErrorCode::corrupt, message(where, ": ", name, " is ", value, ", must be ", expected));
}
inline std::string count_up_to(Index limit) { return message("a whole number from 0 to ", limit); }

/// What the numbers of heads say of each other.
inline void complete_heads(ModelConfig& config, std::string_view file) {
  if (config.kv_heads == 0) config.kv_heads = config.heads;
  if (config.head_dim == 0 && config.heads > 0 && config.hidden % config.heads == 0)
    config.head_dim = config.hidden / config.heads;
  if (config.kv_heads > 0 && config.heads % config.kv_heads != 0)
    raise(ErrorCode::corrupt, message(file, ": ", config.heads, " heads are no multiple of ",
                                      config.kv_heads, " key/value heads"));
}

/// What follows from the architecture, with `dims` coordinates of each head rotated. No trait is
/// known of an unknown one.
inline void set_traits(ModelConfig& config, const Architecture& architecture,
                       std::optional<Rotary::Pairing> pairing, Index dims) {
  config.attention = architecture.attention;
  if (pairing) config.attention.rotary = Rotary{.dims = dims, .pairing = *pairing};
  config.mlp = architecture.mlp;
  config.attention_doubt.clear();
  config.mlp_doubt = architecture.mlp_doubt;
}

inline Activation activation_named(std::string_view name) noexcept {
  if (name == "silu" || name == "swish") return Activation::silu;
  if (name == "relu") return Activation::relu;
  if (name == "leaky_relu") return Activation::leaky_relu;
  return name.starts_with("gelu") ? Activation::gelu : Activation::other;
}

/// The members of a configuration, each under one of several names. null counts as missing.
class JsonConfig {
 public:
  using Names = std::initializer_list<const char*>;

  /// `where` is for messages.
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

inline Index rotary_dims(const JsonConfig& json, const Architecture& architecture, Index head_dim) {
  if (const Index dims = json.count({"rotary_dim"}); dims > 0) return dims;
  auto fraction = json.number({"partial_rotary_factor", "rotary_pct"}, 1);
  if (!fraction) fraction = json.object("rope_parameters").number({"partial_rotary_factor"}, 1);
  return Index(double(head_dim) * fraction.value_or(architecture.rotary_fraction));
}

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
  const auto rotated = json.counts({"no_rope_layers"})
                           .value_or(std::vector<Index>{});  // 0 where the layer does without
  AttentionTraits unrotated = attention;
  unrotated.rotary.reset();
  for (std::size_t layer = 0; layer < rotated.size(); ++layer)
    if (rotated[layer] == 0) config.other_attention.emplace_back(Index(layer), unrotated);
}

/// The fields of one architecture.
class GgufConfig {
 public:
  GgufConfig(const GgufMetadata& metadata, std::string_view architecture)
      : metadata_(metadata), prefix_(message(architecture, ".")) {}

  /// 0 where there is no such field, or where it holds a number for each layer.
  Index count(std::string_view name, Index limit = count_limit) const {
    const GgufValue* field = metadata_.find(prefix_ + std::string(name));
    if (field == nullptr || field->type() == GgufValueType::array) return 0;
    const auto number = field->to<Index>();
    if (!number || *number < 0 || *number > limit) fail(name, *field, count_up_to(limit));
    return *number;
  }
  double number(std::string_view name) const {
    const GgufValue* field = metadata_.find(prefix_ + std::string(name));
    if (field == nullptr) return 0;
    const auto number = field->to<double>();
    if (!number || !(*number >= 0) || std::isinf(*number)) fail(name, *field, "a number from 0");
    return *number;
  }

 private:
  [[noreturn]] void fail(std::string_view name, const GgufValue& field,
                         std::string_view expected) const {
    const auto number = field.to<double>();
    raise_config("metadata", prefix_ + std::string(name), number ? message(*number) : "no number",
                 expected);
  }

  const GgufMetadata& metadata_;
  std::string prefix_;
};

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
  config.rope_base = fields.number("rope.freq_base");
  detail::complete_heads(config, file);

  const detail::Architecture* architecture =
      detail::find_architecture(config.architecture, &detail::Architecture::gguf_name);
  if (architecture == nullptr) return config;
  const Index dims = fields.count("rope.dimension_count");
  detail::set_traits(config, *architecture, architecture->gguf_rotary,
                     dims > 0 ? dims : config.head_dim);
  config.attention.clipped |= fields.number("attention.clamp_kqv") > 0;
  const Index value_dim = fields.count("attention.value_length");
  if (value_dim > 0 && value_dim != config.head_dim)
    config.attention_doubt = message("heads of keys have ", config.head_dim,
                                     " coordinates, those of values ", value_dim);
  return config;
}

inline ModelConfig config_from_llama2c(const Llama2cHeader& header) {
  ModelConfig config{.architecture = "llama",
                     .layers = header.layers,
                     .hidden = header.hidden,
                     .intermediate = header.intermediate,
                     .vocabulary = header.vocabulary,
                     .heads = header.heads,
                     .kv_heads = header.kv_heads,
                     .head_dim = header.head_dim(),
                     .context = header.context,
                     .norm_epsilon = 1e-5,
                     .rope_base = 10000,
                     .tied_embeddings = header.tied_embeddings};
  detail::set_traits(config, *detail::find_architecture(config.architecture),
                     Rotary::Pairing::interleaved, config.head_dim);
  return config;
}

}  // namespace cafeq
