/// ModelConfig from the metadata of a GGUF file.
///
/// Architectures that are not listed here are read as well, but of their pairs none is known to be
/// exact.
#pragma once

#include <array>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>

#include "cafeq/io/complete_config.hpp"
#include "cafeq/io/gguf_metadata.hpp"
#include "cafeq/model/architectures.hpp"
#include "cafeq/model/model.hpp"

namespace cafeq {

/// What the metadata says of a model. Raises corrupt for fields of another type than they must
/// have, and for numbers that no model has.
inline ModelConfig config_from_gguf(const GgufMetadata& metadata);

namespace detail {

/// An architecture as GGUF names it.
struct GgufArchitecture {
  std::string_view name;        ///< general.architecture
  std::string_view model_type;  ///< what transformers calls it, as in cafeq/model/architectures.hpp
  bool interleaved = false;     ///< rows of queries and keys are in the order that makes neighbours
                                ///< of rotary pairs, whatever order they have in transformers
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
    GgufArchitecture{.name = "gemma2", .model_type = "gemma2"},
    GgufArchitecture{.name = "gemma3", .model_type = "gemma3_text"},
    GgufArchitecture{.name = "phi2", .model_type = "phi"},
    GgufArchitecture{.name = "phi3", .model_type = "phi3"},
    GgufArchitecture{.name = "granite", .model_type = "granite", .interleaved = true},
    GgufArchitecture{.name = "olmo", .model_type = "olmo", .interleaved = true},
    GgufArchitecture{.name = "olmo2", .model_type = "olmo2"},
    GgufArchitecture{.name = "olmoe", .model_type = "olmoe"},
    GgufArchitecture{.name = "stablelm", .model_type = "stablelm"},
    GgufArchitecture{.name = "starcoder2", .model_type = "starcoder2"},
    GgufArchitecture{.name = "gpt-oss", .model_type = "gpt_oss"},
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

/// The fields of one architecture, whose names begin with its own.
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
  /// 0 where there is no such field.
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

  const detail::GgufArchitecture* gguf = detail::find_gguf_architecture(config.architecture);
  if (gguf == nullptr) return config;
  const detail::Architecture& architecture = *detail::find_architecture(gguf->model_type);
  const Index dims = fields.count("rope.dimension_count");
  detail::set_traits(config, architecture,
                     gguf->interleaved ? Rotary::Pairing::interleaved : architecture.rotary,
                     dims > 0 ? dims : config.head_dim);
  config.attention.clipped |= fields.number("attention.clamp_kqv") > 0;

  const Index value_dim = fields.count("attention.value_length");
  if (value_dim > 0 && value_dim != config.head_dim)
    config.attention_doubt = message("heads of keys have ", config.head_dim,
                                     " coordinates, those of values ", value_dim);
  return config;
}

}  // namespace cafeq
