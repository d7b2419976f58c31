/// What the layers of an architecture do that no configuration spells out.
#pragma once

#include <array>
#include <optional>
#include <string_view>

#include "cafeq/pair/gated_mlp.hpp"
#include "cafeq/pair/heads.hpp"

namespace cafeq::detail {

/// The default is Llama.
struct Architecture {
  std::string_view name;         ///< model_type of transformers
  std::string_view gguf_name{};  ///< general.architecture; empty where it has none of its own
  std::optional<Rotary::Pairing> rotary = Rotary::Pairing::half_split;
  /// llama.cpp may expect rows of queries and keys in another order.
  std::optional<Rotary::Pairing> gguf_rotary = rotary;
  double rotary_fraction = 1;  ///< of each head, where the configuration does not say
  bool tied_embeddings = false;
  AttentionTraits attention{};
  MlpTraits mlp{};
  std::string_view mlp_doubt{};  ///< why no up/down pair of it is exact
};

inline constexpr MlpTraits geglu{.gated = true, .activation = Activation::gelu};
inline constexpr MlpTraits plain_gelu{.gated = false, .activation = Activation::gelu};
inline constexpr MlpTraits plain_relu{.gated = false, .activation = Activation::relu};

inline constexpr std::array architectures{
    Architecture{
        .name = "llama", .gguf_name = "llama", .gguf_rotary = Rotary::Pairing::interleaved},
    Architecture{.name = "mistral"},
    Architecture{.name = "mixtral"},
    Architecture{.name = "qwen2", .gguf_name = "qwen2"},
    Architecture{.name = "qwen2_moe", .gguf_name = "qwen2moe"},
    Architecture{.name = "qwen3", .gguf_name = "qwen3", .attention = {.qk_norm = true}},
    Architecture{.name = "qwen3_moe", .gguf_name = "qwen3moe", .attention = {.qk_norm = true}},
    Architecture{.name = "qwen3_next",
                 .rotary_fraction = 0.25,
                 .attention = {.qk_norm = true, .gated_output = true}},
    Architecture{.name = "gemma", .gguf_name = "gemma", .tied_embeddings = true, .mlp = geglu},
    Architecture{.name = "gemma2", .gguf_name = "gemma2", .tied_embeddings = true, .mlp = geglu},
    Architecture{.name = "gemma3_text",
                 .gguf_name = "gemma3",
                 .tied_embeddings = true,
                 .attention = {.qk_norm = true},
                 .mlp = geglu},
    Architecture{.name = "phi", .gguf_name = "phi2", .rotary_fraction = 0.5, .mlp = plain_gelu},
    Architecture{.name = "phi3", .gguf_name = "phi3"},
    Architecture{
        .name = "granite", .gguf_name = "granite", .gguf_rotary = Rotary::Pairing::interleaved},
    Architecture{.name = "smollm3", .tied_embeddings = true},
    Architecture{.name = "olmo", .gguf_name = "olmo", .gguf_rotary = Rotary::Pairing::interleaved},
    Architecture{.name = "olmo2", .gguf_name = "olmo2", .attention = {.qk_norm = true}},
    Architecture{.name = "olmoe", .gguf_name = "olmoe", .attention = {.qk_norm = true}},
    Architecture{.name = "stablelm", .gguf_name = "stablelm", .rotary_fraction = 0.25},
    Architecture{.name = "starcoder2",
                 .gguf_name = "starcoder2",
                 .tied_embeddings = true,
                 .mlp = plain_gelu},
    Architecture{
        .name = "gpt_oss",
        .gguf_name = "gpt-oss",
        .attention = {.rows_sum_to_one = false},
        .mlp_doubt = "up/down: hidden channels are clipped and shifted, which scales would change"},
    Architecture{.name = "bitnet",
                 .gguf_name = "bitnet",
                 .attention = {.output_norm = true},
                 .mlp = {.gated = true, .activation = Activation::other, .inner_norm = true}},
    Architecture{.name = "gpt2",
                 .gguf_name = "gpt2",
                 .rotary = std::nullopt,
                 .tied_embeddings = true,
                 .mlp = plain_gelu},
    Architecture{.name = "gpt_bigcode",
                 .gguf_name = "starcoder",
                 .rotary = std::nullopt,
                 .tied_embeddings = true,
                 .mlp = plain_gelu},
    Architecture{
        .name = "gpt_neo", .rotary = std::nullopt, .tied_embeddings = true, .mlp = plain_gelu},
    Architecture{.name = "gptj", .rotary = Rotary::Pairing::interleaved, .mlp = plain_gelu},
    Architecture{
        .name = "gpt_neox", .gguf_name = "gptneox", .rotary_fraction = 0.25, .mlp = plain_gelu},
    Architecture{.name = "opt", .rotary = std::nullopt, .tied_embeddings = true, .mlp = plain_relu},
    Architecture{.name = "bert",
                 .gguf_name = "bert",
                 .rotary = std::nullopt,
                 .tied_embeddings = true,
                 .mlp = plain_gelu},
    Architecture{
        .name = "roberta", .rotary = std::nullopt, .tied_embeddings = true, .mlp = plain_gelu},
    Architecture{
        .name = "xlm-roberta", .rotary = std::nullopt, .tied_embeddings = true, .mlp = plain_gelu},
    Architecture{
        .name = "camembert", .rotary = std::nullopt, .tied_embeddings = true, .mlp = plain_gelu},
    Architecture{
        .name = "electra", .rotary = std::nullopt, .tied_embeddings = true, .mlp = plain_gelu},
    Architecture{
        .name = "distilbert", .rotary = std::nullopt, .tied_embeddings = true, .mlp = plain_gelu},
    Architecture{.name = "modernbert", .tied_embeddings = true, .mlp = geglu}};

/// Null where the architecture is not known, or `name` is empty.
inline const Architecture* find_architecture(
    std::string_view name, std::string_view Architecture::* key = &Architecture::name) noexcept {
  for (const Architecture& architecture : architectures)
    if (!name.empty() && architecture.*key == name) return &architecture;
  return nullptr;
}

}  // namespace cafeq::detail
