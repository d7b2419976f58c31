/// What the layers of an architecture do that no configuration spells out. Architectures that are
/// not listed can be quantized too, but of their pairs none is known to be exact.
#pragma once

#include <array>
#include <optional>
#include <string_view>

#include "cafeq/pair/attention.hpp"
#include "cafeq/pair/gated_mlp.hpp"

namespace cafeq::detail {

/// An architecture, by default one with the layers of Llama.
struct Architecture {
  std::string_view name;  ///< model_type of transformers
  std::optional<Rotary::Pairing> rotary = Rotary::Pairing::half_split;
  double rotary_fraction = 1;  ///< of each head, where the configuration does not say
  bool tied_embeddings = false;
  bool scaled_embedding = false;  ///< by √hidden
  double norm_offset = 0;         ///< in the files of transformers; see ModelConfig
  double rope_base = 10000;       ///< where the configuration does not say
  double window_rope_base = 0;    ///< likewise; 0: that of all layers
  Index window_period = 0;  ///< where the configuration does not say: a window holds in all layers
                            ///< but the last of so many; 0: in all
  AttentionTraits attention{};
  MlpTraits mlp{};
  std::string_view mlp_doubt{};  ///< why no up/down pair of it is exact
};

inline constexpr MlpTraits geglu{.gated = true, .activation = Activation::gelu};
inline constexpr MlpTraits plain_gelu{.gated = false, .activation = Activation::gelu};
inline constexpr MlpTraits plain_relu{.gated = false, .activation = Activation::relu};

inline constexpr std::array architectures{
    Architecture{.name = "llama"},
    Architecture{.name = "mistral"},
    Architecture{.name = "mixtral"},
    Architecture{.name = "qwen2"},
    Architecture{.name = "qwen2_moe"},
    Architecture{.name = "qwen3", .attention = {.qk_norm = true}},
    Architecture{.name = "qwen3_moe", .attention = {.qk_norm = true}},
    Architecture{.name = "qwen3_next",
                 .rotary_fraction = 0.25,
                 .attention = {.qk_norm = true, .gated_output = true}},
    Architecture{.name = "gemma",
                 .tied_embeddings = true,
                 .scaled_embedding = true,
                 .norm_offset = 1,
                 .mlp = geglu},
    Architecture{.name = "gemma2",
                 .tied_embeddings = true,
                 .scaled_embedding = true,
                 .norm_offset = 1,
                 .window_period = 2,
                 .mlp = geglu},
    Architecture{.name = "gemma3_text",
                 .tied_embeddings = true,
                 .scaled_embedding = true,
                 .norm_offset = 1,
                 .rope_base = 1e6,
                 .window_rope_base = 10000,
                 .window_period = 6,
                 .attention = {.qk_norm = true},
                 .mlp = geglu},
    Architecture{.name = "phi", .rotary_fraction = 0.5, .mlp = plain_gelu},
    Architecture{.name = "phi3"},
    Architecture{.name = "granite"},
    Architecture{.name = "smollm3", .tied_embeddings = true},
    Architecture{.name = "olmo"},
    Architecture{.name = "olmo2", .attention = {.qk_norm = true}},
    Architecture{.name = "olmoe", .attention = {.qk_norm = true}},
    Architecture{.name = "stablelm", .rotary_fraction = 0.25},
    Architecture{.name = "starcoder2", .tied_embeddings = true, .mlp = plain_gelu},
    Architecture{
        .name = "gpt_oss",
        .window_period = 2,
        .attention = {.rows_sum_to_one = false},
        .mlp_doubt = "up/down: hidden channels are clipped and shifted, which scales would change"},
    Architecture{.name = "bitnet",
                 .attention = {.output_norm = true},
                 .mlp = {.gated = true, .activation = Activation::other, .inner_norm = true}},
    Architecture{
        .name = "gpt2", .rotary = std::nullopt, .tied_embeddings = true, .mlp = plain_gelu},
    Architecture{
        .name = "gpt_bigcode", .rotary = std::nullopt, .tied_embeddings = true, .mlp = plain_gelu},
    Architecture{
        .name = "gpt_neo", .rotary = std::nullopt, .tied_embeddings = true, .mlp = plain_gelu},
    Architecture{.name = "gptj", .rotary = Rotary::Pairing::interleaved, .mlp = plain_gelu},
    Architecture{.name = "gpt_neox", .rotary_fraction = 0.25, .mlp = plain_gelu},
    Architecture{.name = "opt", .rotary = std::nullopt, .tied_embeddings = true, .mlp = plain_relu},
    Architecture{
        .name = "bert", .rotary = std::nullopt, .tied_embeddings = true, .mlp = plain_gelu},
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

/// The architecture of that name, or null where it is not known.
inline const Architecture* find_architecture(std::string_view name) noexcept {
  for (const Architecture& architecture : architectures)
    if (architecture.name == name) return &architecture;
  return nullptr;
}

}  // namespace cafeq::detail
