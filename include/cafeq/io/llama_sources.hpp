/// Which tensors of a Llama-like model a GGUF file has, under which names, and in which order of
/// rows.
#pragma once

#include <array>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/model_file.hpp"
#include "cafeq/model/model.hpp"
#include "cafeq/model/tensor_names.hpp"

namespace cafeq {

namespace detail {

/// A tensor of a GGUF file and where it comes from.
struct GgufSource {
  std::string name;
  std::string tensor;           ///< of the model; empty where `values` are all there is
  Index interleaved_heads = 0;  ///< how many heads have their rows moved from half-split to
                                ///< interleaved order; 0 where rows stay
  std::vector<float> values{};
};

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
  /// `interleave` says whether the rows of queries and keys are to be moved to interleaved order.
  LlamaSources(const ModelFile& model, bool interleave)
      : model_(model), interleave_(interleave), meta_(model.format() == ModelFormat::llama2c) {
    for (const TensorInfo& tensor : model.tensors()) left_.emplace(tensor.name, &tensor);
  }
  std::vector<GgufSource> find();

 private:
  /// Adds the weight of that name, and its bias where it has one.
  void add(const LlamaName& name, const std::string& to_prefix = {},
           const std::string& from_prefix = {});
  /// How many heads of a tensor have their rows moved.
  Index interleaved_heads(const LlamaName& name, const TensorInfo& tensor) const;
  /// Raises for a tensor that has found no place, unless llama.cpp can do without it.
  void check_left() const;

  const ModelFile& model_;
  bool interleave_;                                // rows of queries and keys are to be moved
  bool meta_;                                      // names are those of Meta
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

    sources_.push_back({.name = message(to_prefix, name.gguf, part),
                        .tensor = found->first,
                        .interleaved_heads = interleaved_heads(name, *found->second)});
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
      continue;  // llama.cpp computes these tables itself
    raise(ErrorCode::unsupported,
          message(model_.path(), ": tensor ", name, " has no place in a GGUF file of architecture ",
                  model_.config().architecture));
  }
}

}  // namespace detail
}  // namespace cafeq
