/// A model of another format as one that llama.cpp runs: which tensors a GGUF file of it has, and
/// its metadata.
///
/// Written are Llama's architecture, which Mistral's models have too, and Qwen2's. Their rotary
/// pairs differ: llama.cpp expects those of Llama interleaved, as llama2.c has them, and
/// transformers halves the heads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/gguf_metadata.hpp"
#include "cafeq/io/gguf_rope.hpp"
#include "cafeq/io/llama_sources.hpp"
#include "cafeq/io/model_file.hpp"
#include "cafeq/io/read_vocabulary.hpp"

namespace cafeq::detail {

/// All that a GGUF file has, but the elements of its tensors.
struct GgufModel {
  std::vector<GgufSource> tensors;
  GgufMetadata metadata;
};

/// What a GGUF file of `model` has. `tokenizer`, for a model that is not GGUF itself, is the path
/// of a file as read_vocabulary() takes it; empty for what belongs to the model. Without any the
/// file has no vocabulary and llama.cpp takes token ids only. Raises unsupported for models and
/// vocabularies that are not written.
inline GgufModel to_gguf_model(const ModelFile& model, const std::string& tokenizer = {});

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

/// The rows of a matrix of the model. Raises corrupt where the tensor is none.
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
  if (model.format() == ModelFormat::safetensors || model.format() == ModelFormat::llama2c) {
    if (name == "llama" || name == "mistral") return "llama";
    if (name == "qwen2") return "qwen2";
  }
  raise(ErrorCode::unsupported,
        message(model.path(), ": ",
                name.empty() ? "a model of unknown architecture" : message("architecture ", name),
                " is not written as GGUF. What is: GGUF files, llama2.c checkpoints, and models of "
                "transformers with the architecture llama, mistral or qwen2"));
}

/// Adds the vocabulary of the tokenizer at `path`, or of what belongs to the model.
inline void add_tokenizer(GgufMetadata& metadata, const ModelFile& model, const std::string& path,
                          Index size) {
  if (auto vocabulary = read_vocabulary(model, path))
    add_vocabulary(metadata, std::move(*vocabulary), size, path.empty() ? model.path() : path);
  else metadata.add("tokenizer.ggml.model", GgufValue("no_vocab"));
}

inline GgufModel to_gguf_model(const ModelFile& model, const std::string& tokenizer) {
  GgufModel gguf;
  if (const auto* file = model.as<GgufReader>()) {
    // What is GGUF already keeps its tensors and its metadata.
    if (!tokenizer.empty())
      raise(ErrorCode::invalid_argument,
            message(model.path(), ": has a vocabulary of its own, so that ", tokenizer,
                    " is not needed"));
    for (const GgufTensor& tensor : file->tensors())
      gguf.tensors.push_back({.name = tensor.name, .tensor = tensor.name});
    gguf.metadata = file->metadata();
    return gguf;
  }

  const std::string_view architecture = llama_like_architecture(model);
  ModelConfig config = model.config();
  if (!config.mlp.gated || config.mlp.activation != Activation::silu)
    raise(ErrorCode::unsupported, message(model.path(), ": llama.cpp runs ", architecture,
                                          " with the activation silu only"));
  if (config.attention.rotary->dims != config.head_dim)
    raise(ErrorCode::unsupported,
          message(model.path(), ": rotates ", config.attention.rotary->dims, " of a head's ",
                  config.head_dim, " coordinates, llama.cpp all"));

  const bool interleave =
      architecture == "llama" && config.attention.rotary->pairing == Rotary::Pairing::half_split;
  gguf.tensors = LlamaSources(model, interleave).find();
  config.vocabulary = rows_of(model, gguf.tensors.front().tensor);
  add_llama_config(gguf.metadata, model.path(), config, architecture);
  if (auto factors = add_rope_scaling(gguf.metadata, model.path(), config, architecture);
      !factors.empty())
    gguf.tensors.push_back(
        {.name = "rope_freqs.weight", .tensor = {}, .values = std::move(factors)});
  add_tokenizer(gguf.metadata, model, tokenizer, config.vocabulary);
  return gguf;
}

}  // namespace cafeq::detail
