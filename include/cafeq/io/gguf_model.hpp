/// A model of another format as one that llama.cpp runs: which tensors a GGUF file of it has, and
/// its metadata.
///
/// Written are Llama's architecture, which Mistral's models have too, and Qwen2's. Their rotary
/// pairs differ: llama.cpp expects those of Llama interleaved, as llama2.c has them, and
/// transformers halves the heads.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <numbers>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/open_model.hpp"
#include "cafeq/io/tokenizer_json.hpp"
#include "cafeq/model/tensor_names.hpp"

namespace cafeq {

/// A tensor of a GGUF file and where it comes from.
struct GgufSource {
  std::string name;
  std::string tensor;  ///< of the model; empty where `values` are all there is
  Index interleaved_heads =
      0;  ///< heads whose rows go from half-split to interleaved order; 0 where rows stay
  std::vector<float> values{};
};

struct GgufModel {
  std::vector<GgufSource> tensors;
  GgufMetadata metadata;
};

/// `tokenizer`: a tokenizer.json, or a tokenizer file of llama2.c, for a model that is not GGUF
/// itself. Empty for the tokenizer.json of a Hugging Face model; without one the file has no
/// vocabulary and llama.cpp takes token ids only. Raises unsupported for models that are not
/// written.
inline GgufModel to_gguf_model(const ModelFile& model, const std::string& tokenizer = {});

namespace detail {

/// A tensor of a Llama-like model in each scheme of names, without ".weight".
struct LlamaName {
  std::string_view gguf, transformers, meta;
};
inline constexpr LlamaName llama_embedding{"token_embd", "model.embed_tokens", "tok_embeddings"};
inline constexpr LlamaName llama_norm{"output_norm", "model.norm", "norm"};
inline constexpr LlamaName llama_unembedding{"output", "lm_head", "output"};
inline constexpr std::array llama_layer{
    LlamaName{"attn_norm", "input_layernorm", "attention_norm"},
    LlamaName{"attn_q", "self_attn.q_proj", "attention.wq"},
    LlamaName{"attn_k", "self_attn.k_proj", "attention.wk"},
    LlamaName{"attn_v", "self_attn.v_proj", "attention.wv"},
    LlamaName{"attn_output", "self_attn.o_proj", "attention.wo"},
    LlamaName{"ffn_norm", "post_attention_layernorm", "ffn_norm"},
    LlamaName{"ffn_gate", "mlp.gate_proj", "feed_forward.w1"},
    LlamaName{"ffn_up", "mlp.up_proj", "feed_forward.w3"},
    LlamaName{"ffn_down", "mlp.down_proj", "feed_forward.w2"}};

/// Finds the tensors of a Llama-like model. Raises corrupt where one is missing, unsupported where
/// one is left over.
class LlamaSources {
 public:
  LlamaSources(const ModelFile& model, bool interleave)
      : model_(model), interleave_(interleave), meta_(model.format() == ModelFormat::llama2c) {
    for (const TensorInfo& tensor : model.tensors()) left_.emplace(tensor.name, &tensor);
  }
  std::vector<GgufSource> find();

 private:
  void add(const LlamaName& name, const std::string& to_prefix = {},
           const std::string& from_prefix = {});
  Index interleaved_heads(const LlamaName& name, const TensorInfo& tensor) const;
  void check_left() const;

  const ModelFile& model_;
  bool interleave_;
  bool meta_;
  std::map<std::string, const TensorInfo*> left_;  // tensors that have no place yet
  std::vector<GgufSource> sources_;
};

inline std::vector<GgufSource> LlamaSources::find() {
  add(llama_embedding);
  for (Index layer = 0; layer < model_.config().layers; ++layer)
    for (const LlamaName& name : llama_layer)
      add(name, message("blk.", layer, "."), message(meta_ ? "" : "model.", "layers.", layer, "."));
  add(llama_norm);
  if (!model_.config().tied_embeddings) add(llama_unembedding);
  else
    left_.erase(
        message(meta_ ? llama_unembedding.meta : llama_unembedding.transformers, ".weight"));
  check_left();
  return std::move(sources_);
}

inline void LlamaSources::add(const LlamaName& name, const std::string& to_prefix,
                              const std::string& from_prefix) {
  const std::string stem = message(from_prefix, meta_ ? name.meta : name.transformers);
  for (const std::string_view part : {".weight", ".bias"}) {
    const auto found = left_.find(message(stem, part));
    if (found == left_.end() && part == ".bias") continue;
    if (found == left_.end())
      raise(ErrorCode::corrupt, message(model_.path(), ": has no tensor ", stem, part));
    sources_.push_back({message(to_prefix, name.gguf, part), found->first,
                        interleaved_heads(name, *found->second)});
    left_.erase(found);
  }
}

inline Index LlamaSources::interleaved_heads(const LlamaName& name,
                                             const TensorInfo& tensor) const {
  const ModelConfig& config = model_.config();
  const Index heads = name.gguf == "attn_q"   ? config.heads
                      : name.gguf == "attn_k" ? config.kv_heads
                                              : 0;
  if (!interleave_ || heads == 0) return 0;
  if (tensor.shape.empty() || tensor.shape.front() != heads * config.head_dim)
    raise(ErrorCode::corrupt,
          message(model_.path(), ": tensor ", tensor.name, " does not have the rows of ", heads,
                  " heads of ", config.head_dim));
  return heads;
}

inline void LlamaSources::check_left() const {
  for (const auto& [name, tensor] : left_) {
    const ParsedName parsed = parse_name(name);
    if (parsed.leaf() != nullptr && parsed.leaf()->kept == rotary_table)
      continue;  // llama.cpp computes it
    raise(ErrorCode::unsupported,
          message(model_.path(), ": tensor ", name, " has no place in a GGUF file of architecture ",
                  model_.config().architecture));
  }
}

/// The number by which llama.cpp divides each rotation's frequency: Llama 3.1 slows down those of
/// more than `original` / low positions a turn by `factor`, leaves those of less than `original` /
/// high, and goes over from one to the other in between.
inline std::vector<float> llama3_rope_factors(const ModelConfig& config, double factor, double low,
                                              double high, double original) {
  std::vector<float> factors;
  for (Index i = 0; i < config.head_dim; i += 2) {
    const double turn =
        2 * std::numbers::pi *
        std::pow(config.rope_base, double(i) / double(config.head_dim));  // in positions
    const double kept = std::clamp((original / turn - low) / (high - low), 0.0, 1.0);
    factors.push_back(float(1 / ((1 - kept) / factor + kept)));
  }
  return factors;
}

/// Scaled rotary positions of a config.json: fields, or a tensor of factors.
inline void add_rope_scaling(GgufModel& gguf, const std::string& path, const ModelConfig& config,
                             std::string_view architecture) {
  const Json root = read_json_object(path);
  const JsonConfig json(root, path);
  for (const char* member : {"rope_scaling", "rope_parameters"}) {
    const JsonConfig rope = json.object(member);
    const std::string type = rope.text({"rope_type", "type"}).value_or("default");
    if (type == "default") continue;
    const auto number = [&](const char* name) {
      const auto value = rope.number({name});
      if (!value || *value == 0)
        raise(ErrorCode::corrupt, message(path, ": ", member, ": does not say ", name));
      return *value;
    };
    if (type == "linear") {
      gguf.metadata.add(message(architecture, ".rope.scaling.type"), GgufValue("linear"));
      gguf.metadata.add(message(architecture, ".rope.scaling.factor"),
                        GgufValue(float(number("factor"))));
    } else if (type == "llama3") {
      const double factor = number("factor"), low = number("low_freq_factor"),
                   high = number("high_freq_factor");
      gguf.tensors.push_back({"rope_freqs.weight",
                              {},
                              0,
                              llama3_rope_factors(config, factor, low, high,
                                                  number("original_max_position_embeddings"))});
    } else {
      raise(ErrorCode::unsupported, message(path, ": rotary positions scaled by ", type,
                                            " are not written as GGUF; linear and llama3 are"));
    }
    return;
  }
}

/// What the configuration says, as fields.
inline void add_llama_config(GgufMetadata& metadata, const std::string& path,
                             const ModelConfig& config, std::string_view architecture) {
  const auto add = [&](std::string_view name, const auto& value) {
    metadata.add(message(architecture, ".", name), GgufValue(value));
  };
  const auto required = [&](std::string_view what, auto value) {
    if (!(value > 0))
      raise(ErrorCode::corrupt, message(path, ": its configuration does not say ", what));
    return value;
  };
  const auto count = [&](std::string_view name, std::string_view what, Index value) {
    add(name, std::uint32_t(required(what, value)));
  };
  metadata.add("general.architecture", GgufValue(architecture));
  const std::string_view directory =
      std::string_view(path).substr(0, path.find_last_not_of('/') + 1);
  metadata.add("general.name", GgufValue(name_in_directory(directory)));
  count("vocab_size", "its vocabulary", config.vocabulary);
  count("context_length", "its context", config.context);
  count("embedding_length", "its width", config.hidden);
  count("block_count", "its layers", config.layers);
  count("feed_forward_length", "the width of its MLPs", config.intermediate);
  count("attention.head_count", "its heads", config.heads);
  count("attention.head_count_kv", "its heads", config.kv_heads);
  for (const char* name :
       {"attention.key_length", "attention.value_length", "rope.dimension_count"})
    count(name, "the size of its heads", config.head_dim);
  add("attention.layer_norm_rms_epsilon",
      float(required("the epsilon of its norms", config.norm_epsilon)));
  add("rope.freq_base", float(required("the base of its rotary positions", config.rope_base)));
}

/// Of a matrix.
inline Index rows_of(const ModelFile& model, const std::string& name) {
  const auto all = model.tensors();
  const auto tensor = std::find_if(all.begin(), all.end(),
                                   [&](const TensorInfo& info) { return info.name == name; });
  if (tensor->shape.size() != 2)
    raise(ErrorCode::corrupt, message(model.path(), ": tensor ", name, " is no matrix"));
  return tensor->shape.front();
}

/// The name that GGUF has for a model's architecture.
inline std::string_view llama_like_architecture(const ModelFile& model) {
  const std::string& name = model.config().architecture;
  if (model.format() != ModelFormat::tfjs) {
    if (name == "llama" || name == "mistral") return "llama";
    if (name == "qwen2") return "qwen2";
  }
  raise(ErrorCode::unsupported,
        message(model.path(), ": ",
                name.empty() ? "a model of unknown architecture" : message("architecture ", name),
                " is not written as GGUF. What is: GGUF files, llama2.c checkpoints, and models of "
                "transformers with the "
                "architecture llama, mistral or qwen2"));
}

inline void add_tokenizer(GgufMetadata& metadata, const ModelFile& model, std::string path,
                          Index size) {
  if (const auto* files = model.as<SafetensorsModel>(); path.empty() && files != nullptr) {
    path = files->directory() + "/tokenizer.json";
    if (kind_of(path) != S_IFREG) path.clear();
  }
  if (path.empty()) metadata.add("tokenizer.ggml.model", GgufValue("no_vocab"));
  else
    add_vocabulary(metadata,
                   path.ends_with(".json") ? read_tokenizer_json(path, size)
                                           : read_llama2c_vocabulary(path, size),
                   path);
}

}  // namespace detail

inline GgufModel to_gguf_model(const ModelFile& model, const std::string& tokenizer) {
  GgufModel gguf;
  if (const auto* file = model.as<GgufReader>()) {
    if (!tokenizer.empty())
      raise(ErrorCode::invalid_argument,
            message(model.path(), ": has a vocabulary of its own, so that ", tokenizer,
                    " is not needed"));
    for (const GgufTensor& tensor : file->tensors())
      gguf.tensors.push_back({tensor.name, tensor.name});
    gguf.metadata = file->metadata();
    return gguf;
  }
  const std::string_view architecture = detail::llama_like_architecture(model);
  ModelConfig config = model.config();
  if (config.rope_base == 0)
    config.rope_base = 10000;  // what transformers takes where the file does not say
  if (!config.mlp.gated || config.mlp.activation != Activation::silu)
    raise(ErrorCode::unsupported, message(model.path(), ": llama.cpp runs ", architecture,
                                          " with the activation silu only"));
  if (config.attention.rotary->dims != config.head_dim)
    raise(ErrorCode::unsupported,
          message(model.path(), ": rotates ", config.attention.rotary->dims, " of a head's ",
                  config.head_dim, " coordinates, llama.cpp all"));
  const bool interleave =
      architecture == "llama" && config.attention.rotary->pairing == Rotary::Pairing::half_split;
  gguf.tensors = detail::LlamaSources(model, interleave).find();
  config.vocabulary = detail::rows_of(model, gguf.tensors.front().tensor);
  detail::add_llama_config(gguf.metadata, model.path(), config, architecture);
  if (const auto* files = model.as<SafetensorsModel>())
    detail::add_rope_scaling(gguf, detail::config_path(*files), config, architecture);
  detail::add_tokenizer(gguf.metadata, model, tokenizer, config.vocabulary);
  return gguf;
}

}  // namespace cafeq
