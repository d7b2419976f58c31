/// A model as this floor sees it, whatever file it lies in: named tensors, and what its
/// configuration says about its layers.
#pragma once

#include <concepts>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/core/tensor.hpp"
#include "cafeq/pair/gated_mlp.hpp"
#include "cafeq/pair/heads.hpp"

namespace cafeq {

/// Every number is 0, and every flag as it is here, where the configuration does not say.
struct ModelConfig {
  std::string architecture;  ///< "llama", "gemma2", "gpt2", "bert" …: model_type of transformers,
                             ///< general.architecture of GGUF
  Index layers = 0;
  Index hidden = 0;  ///< width of the residual stream
  Index intermediate = 0;
  Index vocabulary = 0;
  Index heads = 0;
  Index kv_heads = 0;  ///< = heads where the heads are not grouped
  Index head_dim = 0;
  Index experts = 0;  ///< of each layer that has any
  Index context = 0;
  double norm_epsilon = 0;
  double rope_base = 0;
  bool tied_embeddings = false;
  AttentionTraits attention{};
  MlpTraits mlp{};
  /// Why `attention`, or `mlp`, may not tell all that its layers do, so that no pair of them is
  /// known to be exact; empty where they do.
  std::string attention_doubt = "the architecture is not known";
  std::string mlp_doubt = attention_doubt;
  /// Layers whose traits differ from `attention`: no rotary positions in every fourth layer, and so
  /// on.
  std::vector<std::pair<Index, AttentionTraits>> other_attention{};

  const AttentionTraits& attention_of(Index layer) const noexcept {
    for (const auto& [number, traits] : other_attention)
      if (number == layer) return traits;
    return attention;
  }
  HeadLayout head_layout() const noexcept {
    return {.head_dim = head_dim, .heads = heads, .kv_heads = kv_heads > 0 ? kv_heads : heads};
  }
};

struct TensorInfo {
  std::string name;
  std::string type;          ///< of its elements, as its file spells it
  std::vector<Index> shape;  ///< slowest dimension first
  Index bytes = 0;           ///< in the file
};

/// Elements of a floating-point type: a view of the file's pages, or of memory that comes with it
/// where the file holds another format.
struct LoadedTensor {
  TensorView view;
  std::shared_ptr<const Tensor> owner{};
};

/// What reads a model. Nothing of a tensor is in memory until load(), and its pages leave it with
/// release().
template <class R>
concept ModelReader = requires(const R& reader, std::string_view name) {
  { reader.tensors() } -> std::convertible_to<std::span<const TensorInfo>>;  // in the file's order
  { reader.config() } -> std::convertible_to<const ModelConfig&>;
  { reader.load(name) } -> std::same_as<LoadedTensor>;
  reader.release(name);
};

}  // namespace cafeq
