/// The names that models give to their tensors, as tables: those of transformers, which differ from
/// architecture to architecture, those of Meta's checkpoints, and those of llama.cpp. The matching
/// is in cafeq/model/tensor_names.hpp.
#pragma once

#include <array>
#include <span>
#include <string_view>

#include "cafeq/model/roles.hpp"

namespace cafeq::detail {

/// How the matrices of a tensor lie in it.
enum class Packing {
  none,             ///< the tensor is one matrix
  query_key_value,  ///< all rows of the query, then those of the key, then those of the value
  by_head,          ///< the rows of one head's query, key and value, then those of the next head
  gate_up,          ///< all rows of the gate, then those of the up projection
  gate_up_if_tall,  ///< the same where the tensor has twice the rows of an up projection; else it
                    ///< is the up projection
  experts,          ///< [experts, out, in], a matrix for each expert
};

/// What the presence of a tensor tells of its module.
enum class Sign {
  none,
  qk_norm,      ///< queries and keys are normalised
  value_norm,   ///< values are normalised
  output_norm,  ///< the heads' outputs are normalised ahead of the output projection
  inner_norm,   ///< the hidden channels of an MLP are normalised ahead of the down projection
  sinks,        ///< a part of each row of the attention goes to no token
  interleaved,  ///< queries and keys bear Meta's names, so their rotary pairs are neighbours
};

/// The last part of a tensor's name, within its module, and what it stands for.
struct Leaf {
  std::string_view name;
  Role role = Role::other;
  Packing packing = Packing::none;
  bool conv1d = false;      ///< GPT-2 stores it [in, out], others under the same name [out, in]
  std::string_view kept{};  ///< what the tensor is, where it is no matrix of weights
  Sign sign = Sign::none;
};

constexpr Leaf packed_leaf(std::string_view name, Packing packing, Role role = Role::other) {
  return {.name = name, .role = role, .packing = packing};
}
constexpr Leaf conv1d_leaf(std::string_view name, Role role, Packing packing = Packing::none) {
  return {.name = name, .role = role, .packing = packing, .conv1d = true};
}
constexpr Leaf norm_leaf(std::string_view name, Sign sign = Sign::none) {
  return {.name = name, .role = Role::norm, .kept = "norm", .sign = sign};
}
constexpr Leaf kept_leaf(std::string_view name, std::string_view what, Sign sign = Sign::none) {
  return {.name = name, .kept = what, .sign = sign};
}
inline constexpr std::string_view rotary_table = "table of rotary positions";
inline constexpr std::string_view mask = "attention mask";

/// In modules of attention.
inline constexpr std::array attention_leaves{
    // Llama and most others; OPT, GPT-J and GPT-Neo; Phi-2 and GPT-NeoX
    Leaf{"q_proj", Role::query}, Leaf{"k_proj", Role::key}, Leaf{"v_proj", Role::value},
    Leaf{"o_proj", Role::output}, Leaf{"out_proj", Role::output}, Leaf{"dense", Role::output},
    // Phi-3
    packed_leaf("qkv_proj", Packing::query_key_value),
    // ModernBERT
    packed_leaf("Wqkv", Packing::query_key_value), Leaf{"Wo", Role::output},
    // GPT-2
    conv1d_leaf("c_attn", Role::other, Packing::query_key_value),
    conv1d_leaf("c_proj", Role::output),
    // GPT-NeoX, InternLM2
    packed_leaf("query_key_value", Packing::by_head), packed_leaf("wqkv", Packing::by_head),
    // BERT
    Leaf{"self.query", Role::query}, Leaf{"self.key", Role::key}, Leaf{"self.value", Role::value},
    Leaf{"output.dense", Role::output}, norm_leaf("output.LayerNorm"),
    // DistilBERT
    Leaf{"q_lin", Role::query}, Leaf{"k_lin", Role::key}, Leaf{"v_lin", Role::value},
    Leaf{"out_lin", Role::output},
    // Meta
    Leaf{.name = "wq", .role = Role::query, .sign = Sign::interleaved},
    Leaf{.name = "wk", .role = Role::key, .sign = Sign::interleaved}, Leaf{"wv", Role::value},
    Leaf{"wo", Role::output},
    // beside the matrices
    norm_leaf("q_norm", Sign::qk_norm), norm_leaf("k_norm", Sign::qk_norm),
    norm_leaf("v_norm", Sign::value_norm), norm_leaf("q_layernorm", Sign::qk_norm),
    norm_leaf("k_layernorm", Sign::qk_norm), norm_leaf("attn_sub_norm", Sign::output_norm),
    norm_leaf("inner_attn_ln", Sign::output_norm),
    kept_leaf("sinks", "attention sinks", Sign::sinks),
    kept_leaf("rotary_emb.inv_freq", rotary_table), kept_leaf("bias", mask),
    kept_leaf("masked_bias", mask)};

/// In MLPs, and in layers whose MLP has no module of its own.
inline constexpr std::array mlp_leaves{
    // Llama and most others
    Leaf{"gate_proj", Role::gate}, Leaf{"up_proj", Role::up}, Leaf{"down_proj", Role::down},
    // Phi-3
    packed_leaf("gate_up_proj", Packing::gate_up),
    // ModernBERT
    packed_leaf("Wi", Packing::gate_up), Leaf{"Wo", Role::down},
    // Meta, Mixtral
    Leaf{"w1", Role::gate}, Leaf{"w2", Role::down}, Leaf{"w3", Role::up},
    // OPT, Phi-2
    Leaf{"fc1", Role::up}, Leaf{"fc2", Role::down},
    // GPT-J
    Leaf{"fc_in", Role::up}, Leaf{"fc_out", Role::down},
    // DistilBERT
    Leaf{"lin1", Role::up}, Leaf{"lin2", Role::down},
    // GPT-NeoX
    Leaf{"dense_h_to_4h", Role::up}, Leaf{"dense_4h_to_h", Role::down},
    // GPT-2, StarCoder2
    conv1d_leaf("c_fc", Role::up), conv1d_leaf("c_proj", Role::down),
    // beside the matrices
    Leaf{"gate", Role::router}, Leaf{"router", Role::router},
    Leaf{"shared_expert_gate", Role::router}, norm_leaf("ffn_sub_norm", Sign::inner_norm),
    norm_leaf("ffn_layernorm", Sign::inner_norm), norm_leaf("self_attn_layer_norm"),
    norm_leaf("final_layer_norm")};

/// In the layers of BERT, whose MLP has no module of its own either.
inline constexpr std::array bert_layer_leaves{Leaf{"intermediate.dense", Role::up},
                                              Leaf{"output.dense", Role::down},
                                              norm_leaf("output.LayerNorm")};

/// In the layers of llama.cpp, which have no modules within.
inline constexpr std::array llama_cpp_leaves{
    Leaf{"attn_q", Role::query},
    Leaf{"attn_k", Role::key},
    Leaf{"attn_v", Role::value},
    Leaf{"attn_output", Role::output},
    packed_leaf("attn_qkv", Packing::query_key_value),
    Leaf{"ffn_gate", Role::gate},
    packed_leaf("ffn_up", Packing::gate_up_if_tall, Role::up),
    Leaf{"ffn_down", Role::down},
    packed_leaf("ffn_gate_exps", Packing::experts, Role::gate),
    packed_leaf("ffn_up_exps", Packing::experts, Role::up),
    packed_leaf("ffn_down_exps", Packing::experts, Role::down),
    Leaf{"ffn_gate_shexp", Role::gate},
    Leaf{"ffn_up_shexp", Role::up},
    Leaf{"ffn_down_shexp", Role::down},
    Leaf{"ffn_gate_inp", Role::router},
    Leaf{"ffn_gate_inp_shexp", Role::router},
    norm_leaf("attn_norm"),
    norm_leaf("attn_norm_2"),
    norm_leaf("attn_output_norm"),
    norm_leaf("layer_output_norm"),
    norm_leaf("ffn_norm"),
    norm_leaf("post_attention_norm"),
    norm_leaf("post_ffw_norm"),
    norm_leaf("attn_q_norm", Sign::qk_norm),
    norm_leaf("attn_k_norm", Sign::qk_norm),
    norm_leaf("attn_sub_norm", Sign::output_norm),
    norm_leaf("ffn_sub_norm", Sign::inner_norm),
    kept_leaf("attn_sinks", "attention sinks", Sign::sinks),
    kept_leaf("attn_rot_embd", rotary_table),
    kept_leaf("rope_freqs", rotary_table)};

/// Outside of the layers.
inline constexpr std::array root_leaves{Leaf{"embed_tokens", Role::embedding},
                                        Leaf{"wte", Role::embedding},
                                        Leaf{"embed_in", Role::embedding},
                                        Leaf{"tok_embeddings", Role::embedding},
                                        Leaf{"token_embd", Role::embedding},
                                        Leaf{"embeddings.word_embeddings", Role::embedding},
                                        Leaf{"embeddings.tok_embeddings", Role::embedding},
                                        Leaf{"wpe", Role::position},
                                        Leaf{"embed_positions", Role::position},
                                        Leaf{"embeddings.position_embeddings", Role::position},
                                        Leaf{"position_embd", Role::position},
                                        Leaf{"token_types", Role::position},
                                        Leaf{"embeddings.token_type_embeddings", Role::position},
                                        Leaf{"lm_head", Role::unembedding},
                                        Leaf{"output", Role::unembedding},
                                        Leaf{"embed_out", Role::unembedding},
                                        Leaf{"decoder", Role::unembedding},
                                        Leaf{"lm_head.decoder", Role::unembedding},
                                        Leaf{"cls.predictions.decoder", Role::unembedding},
                                        Leaf{"vocab_projector", Role::unembedding},
                                        kept_leaf("freq_cis_real", rotary_table),
                                        kept_leaf("freq_cis_imag", rotary_table),
                                        kept_leaf("rope.freqs", rotary_table),
                                        kept_leaf("rope_freqs", rotary_table),
                                        kept_leaf("rope_factors_long", rotary_table),
                                        kept_leaf("rope_factors_short", rotary_table)};

/// The names of a kind of modules.
struct ModulePattern {
  std::string_view text;  ///< {layer} and {expert} stand for numbers
  std::span<const Leaf> leaves;
};

inline constexpr std::array module_patterns{
    ModulePattern{"layers.{layer}.self_attn", attention_leaves},
    ModulePattern{"layers.{layer}.attention", attention_leaves},
    ModulePattern{"layers.{layer}.attn", attention_leaves},
    ModulePattern{"layer.{layer}.attention", attention_leaves},
    ModulePattern{"h.{layer}.attn", attention_leaves},
    ModulePattern{"h.{layer}.attn.attention", attention_leaves},
    ModulePattern{"layers.{layer}.mlp", mlp_leaves},
    ModulePattern{"layers.{layer}.mlp.experts.{expert}", mlp_leaves},
    ModulePattern{"layers.{layer}.mlp.shared_expert", mlp_leaves},
    ModulePattern{"layers.{layer}.mlp.shared_experts", mlp_leaves},
    ModulePattern{"layers.{layer}.block_sparse_moe", mlp_leaves},
    ModulePattern{"layers.{layer}.block_sparse_moe.experts.{expert}", mlp_leaves},
    ModulePattern{"layers.{layer}.feed_forward", mlp_leaves},
    ModulePattern{"layers.{layer}.feed_forward.experts.{expert}", mlp_leaves},
    ModulePattern{"layers.{layer}", mlp_leaves},
    ModulePattern{"layer.{layer}.ffn", mlp_leaves},
    ModulePattern{"h.{layer}.mlp", mlp_leaves},
    ModulePattern{"layer.{layer}", bert_layer_leaves},
    ModulePattern{"blk.{layer}", llama_cpp_leaves}};

/// Names of wrappers, which may stand ahead of a language model's own names. What stands ahead of
/// the names of other models, as of a vision tower, is not among them: their layers are others.
inline constexpr std::array<std::string_view, 16> wrappers{
    "model",       "module",     "base_model", "_orig_mod", "language_model", "text_model",
    "transformer", "encoder",    "decoder",    "backbone",  "gpt_neox",       "bert",
    "roberta",     "distilbert", "electra",    "camembert"};

}  // namespace cafeq::detail
