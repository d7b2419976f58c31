/// A model as this floor sees it, whatever file it lies in: a list of named tensors, what its
/// configuration says about its layers, and a reader that loads one tensor at a time.
#pragma once

#include <concepts>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/model/tensor.hpp"
#include "cafeq/pair/attention.hpp"
#include "cafeq/pair/gated_mlp.hpp"

namespace cafeq {

/// Rotary positions that are slowed down, so that a model takes a longer context than it was first
/// trained for: the frequency of rotation i is divided by factors[i].
struct RopeScaling {
  std::vector<double> factors{};       ///< attention.rotary->pairs() numbers; none: all 1
  std::vector<double> long_factors{};  ///< instead, where a text has more than `original_context`
                                       ///< tokens; none: `factors` always
  Index original_context = 0;
  double magnitude = 1;  ///< cosines and sines are multiplied by it
};

/// What a model's configuration says of its layers. Where it says nothing, a number is 0 and a flag
/// as it is here.
struct ModelConfig {
  std::string architecture;  ///< "llama", "gemma2", "gpt2", "bert" …, as the model's files name it
  Index layers = 0;
  Index hidden = 0;        ///< width of the residual stream
  Index intermediate = 0;  ///< width of the MLPs between their two or three matrices
  Index vocabulary = 0;    ///< tokens, each of which is a row of the embedding
  Index heads = 0;         ///< of the queries
  Index kv_heads = 0;      ///< of keys and values: fewer than `heads` where queries share them
  Index head_dim = 0;      ///< rows of a query, key or value matrix that make one head
  Index experts = 0;       ///< in each layer that has any
  Index context = 0;       ///< the most tokens that the model was made for
  double norm_epsilon = 0;
  double rope_base = 0;
  RopeScaling rope_scaling{};
  std::string rope_scaling_doubt{};  ///< why `rope_scaling` may not tell how rotary positions are
                                     ///< scaled; empty where it does
  double norm_offset = 0;        ///< norms multiply by their weights plus this (Gemma's 1, which is
                                 ///< part of the weights in GGUF files)
  double embedding_scale = 1;    ///< what layers take is the embedding times this (Gemma: √hidden)
  double attention_scale = 0;    ///< scores are q·k times this; 0: 1/√head_dim
  double attention_softcap = 0;  ///< c: scores s become c tanh(s/c) ahead of the softmax; 0: they
                                 ///< stay
  double logit_softcap = 0;      ///< the same of logits
  Index window = 0;  ///< how many tokens, its own included, a token attends to in the layers that
                     ///< are `windowed`
  std::vector<bool> windowed{};  ///< by layer; layers beyond its end attend to all tokens
  double window_rope_base = 0;  ///< of windowed layers, whose rotary positions are then not scaled;
                                ///< 0: they have rope_base and rope_scaling as all others
  bool tied_embeddings = false;  ///< the unembedding is the embedding
  AttentionTraits attention{};
  MlpTraits mlp{};
  /// Why `attention`, or `mlp`, may not tell all that the layers of the model do, so that no pair
  /// of them is known to be exact. Empty where they tell everything.
  std::string attention_doubt = "the architecture is not known";
  std::string mlp_doubt = attention_doubt;
  /// Layers whose traits differ from `attention`, by number: some models have rotary positions in
  /// most of their layers and none in every fourth.
  std::vector<std::pair<Index, AttentionTraits>> other_attention{};

  /// What the attention of one layer does.
  const AttentionTraits& attention_of(Index layer) const noexcept {
    for (const auto& [number, traits] : other_attention)
      if (number == layer) return traits;
    return attention;
  }
  bool is_windowed(Index layer) const noexcept {
    return std::size_t(layer) < windowed.size() && windowed[std::size_t(layer)];
  }
  /// How the rows of queries, keys and values divide into heads.
  HeadLayout head_layout() const noexcept {
    return {.head_dim = head_dim, .heads = heads, .kv_heads = kv_heads > 0 ? kv_heads : heads};
  }
};

/// A tensor as it is listed before anything of it is read.
struct TensorInfo {
  std::string name;
  std::string type;          ///< of its elements, as the file spells it: only for messages
  std::vector<Index> shape;  ///< slowest dimension first
  Index bytes = 0;           ///< in the file
  bool loadable = true;      ///< whether load() gives its elements: not where they are integers, or
                             ///< of a type that the reader does not know
};

/// A tensor of floating-point elements: a view of the file's pages, or of memory that comes with it
/// where the elements do not lie in the file as they are.
struct LoadedTensor {
  TensorView view;
  std::shared_ptr<const Tensor> owner{};
};

/// Anything that reads a model. Nothing of a tensor is in memory until load(), and its pages leave
/// memory with release().
template <class R>
concept ModelReader = requires(const R& reader, std::string_view name) {
  { reader.tensors() } -> std::convertible_to<std::span<const TensorInfo>>;  // in the file's order
  { reader.config() } -> std::convertible_to<const ModelConfig&>;
  { reader.load(name) } -> std::same_as<LoadedTensor>;
  reader.release(name);
};

}  // namespace cafeq
