// Small models with the tensor names, the shapes and the configurations that families of published
// ones have.
#pragma once

#include <string>
#include <vector>

#include "cafeq/model/model.hpp"

namespace cafeq::test {

/// A list of tensors under construction.
class Tensors {
 public:
  explicit Tensors(std::string type = "BF16") : type_(std::move(type)) {}

  Tensors& add(std::string name, std::vector<Index> shape) {
    list_.push_back({std::move(name), type_, std::move(shape)});
    return *this;
  }
  Tensors& matrix(const std::string& module, Index out, Index in) {
    return add(module + ".weight", {out, in});
  }
  Tensors& linear(const std::string& module, Index out, Index in) {
    return matrix(module, out, in).add(module + ".bias", {out});
  }
  Tensors& norm(const std::string& module, Index size) { return add(module + ".weight", {size}); }
  Tensors& layer_norm(const std::string& module, Index size) {
    return norm(module, size).add(module + ".bias", {size});
  }
  Tensors& buffer(std::string name, std::string type, std::vector<Index> shape) {
    list_.push_back({std::move(name), std::move(type), std::move(shape)});
    return *this;
  }
  /// A buffer whose elements are no weights: integers, flags, or what no reader knows.
  Tensors& unloadable(std::string name, std::string type, std::vector<Index> shape) {
    buffer(std::move(name), std::move(type), std::move(shape));
    list_.back().loadable = false;
    return *this;
  }
  const std::vector<TensorInfo>& list() const noexcept { return list_; }

 private:
  std::string type_;
  std::vector<TensorInfo> list_;
};

struct Family {
  std::string config;  ///< the text of config.json
  std::vector<TensorInfo> tensors;
};

inline constexpr Index family_layers = 2;

/// What Llama's descendants in transformers differ in.
struct LlamaShape {
  Index hidden = 32;
  Index heads = 4;
  Index kv_heads = 2;
  Index head_dim = 8;
  Index intermediate = 48;
  Index vocabulary = 64;
  bool qkv_bias = false;
  bool qk_norm = false;
  bool four_norms = false;
  bool mlp = true;
  bool tied = false;
  std::string prefix = "model.";
};

inline Tensors llama_tensors(const LlamaShape& s) {
  Tensors t;
  t.matrix(s.prefix + "embed_tokens", s.vocabulary, s.hidden);
  for (Index l = 0; l < family_layers; ++l) {
    const std::string layer = s.prefix + "layers." + std::to_string(l) + ".";
    const auto project = [&](const std::string& name, Index out) {
      if (s.qkv_bias) t.linear(layer + "self_attn." + name, out, s.hidden);
      else t.matrix(layer + "self_attn." + name, out, s.hidden);
    };
    project("q_proj", s.heads * s.head_dim);
    project("k_proj", s.kv_heads * s.head_dim);
    project("v_proj", s.kv_heads * s.head_dim);
    t.matrix(layer + "self_attn.o_proj", s.hidden, s.heads * s.head_dim);
    if (s.qk_norm)
      t.norm(layer + "self_attn.q_norm", s.head_dim).norm(layer + "self_attn.k_norm", s.head_dim);
    if (s.mlp)
      t.matrix(layer + "mlp.gate_proj", s.intermediate, s.hidden)
          .matrix(layer + "mlp.up_proj", s.intermediate, s.hidden)
          .matrix(layer + "mlp.down_proj", s.hidden, s.intermediate);
    t.norm(layer + "input_layernorm", s.hidden).norm(layer + "post_attention_layernorm", s.hidden);
    if (s.four_norms)
      t.norm(layer + "pre_feedforward_layernorm", s.hidden)
          .norm(layer + "post_feedforward_layernorm", s.hidden);
  }
  t.norm(s.prefix + "norm", s.hidden);
  if (!s.tied) t.matrix("lm_head", s.vocabulary, s.hidden);
  return t;
}

inline Family llama() {
  return {
      R"({"architectures": ["LlamaForCausalLM"], "attention_bias": false, "hidden_act": "silu",
    "hidden_size": 32, "intermediate_size": 48,
    "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
    "num_attention_heads": 4, "num_hidden_layers": 2,
    "num_key_value_heads": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
      "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
    "vocab_size": 64})",
      llama_tensors({}).list()};
}

/// As Llama 1 was first converted: no num_key_value_heads, and the rotary frequencies among the
/// tensors.
inline Family first_llama() {
  auto t = llama_tensors({.kv_heads = 4});
  for (Index l = 0; l < family_layers; ++l)
    t.buffer("model.layers." + std::to_string(l) + ".self_attn.rotary_emb.inv_freq", "F32", {4});
  return {
      R"({"hidden_act": "silu", "hidden_size": 32, "intermediate_size": 48,
    "max_position_embeddings": 2048, "model_type": "llama",
    "num_attention_heads": 4, "num_hidden_layers": 2, "rms_norm_eps": 1e-06,
    "tie_word_embeddings": false, "vocab_size": 64})",
      t.list()};
}

/// Heads that together are not as wide as the model (Mistral-Nemo).
inline Family mistral() {
  return {
      R"({"head_dim": 16, "hidden_act": "silu", "hidden_size": 40, "intermediate_size": 48,
    "max_position_embeddings": 131072,
    "model_type": "mistral", "num_attention_heads": 2, "num_hidden_layers": 2,
    "num_key_value_heads": 1, "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0, "sliding_window": null, "tie_word_embeddings": false,
    "vocab_size": 64})",
      llama_tensors({.hidden = 40, .heads = 2, .kv_heads = 1, .head_dim = 16}).list()};
}

inline Family qwen2() {
  return {
      R"({"hidden_act": "silu", "hidden_size": 32, "intermediate_size": 48,
    "max_position_embeddings": 32768, "max_window_layers": 21,
    "model_type": "qwen2", "num_attention_heads": 4, "num_hidden_layers": 2,
    "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0, "tie_word_embeddings": true, "use_sliding_window": false,
    "vocab_size": 64})",
      llama_tensors({.qkv_bias = true, .tied = true}).list()};
}

inline Family qwen3() {
  return {
      R"({"attention_bias": false, "head_dim": 16, "hidden_act": "silu", "hidden_size": 32,
    "intermediate_size": 48, "model_type": "qwen3",
    "max_position_embeddings": 40960, "num_attention_heads": 4, "num_hidden_layers": 2,
    "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
    "rope_scaling": null, "rope_theta": 1000000, "tie_word_embeddings": true, "vocab_size": 64})",
      llama_tensors({.head_dim = 16, .qk_norm = true, .tied = true}).list()};
}

inline Family gemma() {
  return {
      R"({"head_dim": 16, "hidden_act": "gelu", "hidden_activation": null, "hidden_size": 32,
    "intermediate_size": 64, "model_type": "gemma",
    "max_position_embeddings": 8192, "num_attention_heads": 4, "num_hidden_layers": 2,
    "num_key_value_heads": 1, "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0, "vocab_size": 64})",
      llama_tensors({.kv_heads = 1, .head_dim = 16, .intermediate = 64, .tied = true}).list()};
}

inline Family gemma2() {
  return {
      R"({"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "head_dim": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 32, "intermediate_size": 64,
    "max_position_embeddings": 8192, "model_type": "gemma2",
    "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2,
    "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0, "sliding_window": 4096, "vocab_size": 64})",
      llama_tensors({.head_dim = 16, .intermediate = 64, .four_norms = true, .tied = true}).list()};
}

/// With a vision tower, and without numbers that are those of the class (as the 4B model).
inline Family gemma3() {
  auto t = llama_tensors({.head_dim = 16,
                          .intermediate = 64,
                          .qk_norm = true,
                          .four_norms = true,
                          .tied = true,
                          .prefix = "language_model.model."});
  const std::string tower = "vision_tower.vision_model.";
  t.add(tower + "embeddings.patch_embedding.weight", {24, 3, 14, 14})
      .add(tower + "embeddings.patch_embedding.bias", {24});
  t.matrix(tower + "embeddings.position_embedding", 16, 24);
  for (const std::string name : {"q_proj", "k_proj", "v_proj", "out_proj"})
    t.linear(tower + "encoder.layers.0.self_attn." + name, 24, 24);
  t.linear(tower + "encoder.layers.0.mlp.fc1", 96, 24)
      .linear(tower + "encoder.layers.0.mlp.fc2", 24, 96);
  t.add("multi_modal_projector.mm_input_projection_weight", {24, 32})
      .norm("multi_modal_projector.mm_soft_emb_norm", 24);
  return {
      R"({"architectures": ["Gemma3ForConditionalGeneration"], "mm_tokens_per_image": 256,
    "model_type": "gemma3",
    "text_config": {"head_dim": 16, "hidden_size": 32, "intermediate_size": 64,
      "model_type": "gemma3_text", "num_attention_heads": 4, "num_hidden_layers": 2,
      "num_key_value_heads": 2,
      "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024},
    "vision_config": {"hidden_size": 24, "intermediate_size": 96,
    "model_type": "siglip_vision_model", "num_attention_heads": 3}})",
      t.list()};
}

inline Family phi3(const std::string& partial_rotary_factor = "1.0") {
  Tensors t;
  t.matrix("model.embed_tokens", 64, 32);
  for (Index l = 0; l < family_layers; ++l) {
    const std::string layer = "model.layers." + std::to_string(l) + ".";
    t.matrix(layer + "self_attn.qkv_proj", 64, 32).matrix(layer + "self_attn.o_proj", 32, 32);
    t.matrix(layer + "mlp.gate_up_proj", 96, 32).matrix(layer + "mlp.down_proj", 32, 48);
    t.norm(layer + "input_layernorm", 32).norm(layer + "post_attention_layernorm", 32);
  }
  t.norm("model.norm", 32).matrix("lm_head", 64, 32);
  return {
      R"({"hidden_act": "silu", "hidden_size": 32, "intermediate_size": 48,
    "max_position_embeddings": 131072, "model_type": "phi3",
    "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2,
    "partial_rotary_factor": )" +
          partial_rotary_factor +
          R"(, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "tie_word_embeddings": false,
    "vocab_size": 64})",
      t.list()};
}

inline Family gpt2() {
  Tensors t("F32");
  t.matrix("wte", 64, 32).matrix("wpe", 16, 32);
  for (Index l = 0; l < family_layers; ++l) {
    const std::string block = "h." + std::to_string(l) + ".";
    t.add(block + "attn.bias", {1, 1, 16, 16});
    const auto conv1d = [&](const std::string& name, Index in, Index out) {
      t.matrix(block + name, in, out).add(block + name + ".bias", {out});
    };
    conv1d("attn.c_attn", 32, 96);
    conv1d("attn.c_proj", 32, 32);
    conv1d("mlp.c_fc", 32, 128);
    conv1d("mlp.c_proj", 128, 32);
    t.layer_norm(block + "ln_1", 32).layer_norm(block + "ln_2", 32);
  }
  t.layer_norm("ln_f", 32);
  return {
      R"({"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"],
    "layer_norm_epsilon": 1e-05, "model_type": "gpt2",
    "n_ctx": 16, "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 16, "vocab_size": 64})",
      t.list()};
}

inline Family bert() {
  Tensors t("F32");
  t.unloadable("bert.embeddings.position_ids", "I64", {1, 16});
  t.matrix("bert.embeddings.word_embeddings", 64, 32)
      .matrix("bert.embeddings.position_embeddings", 16, 32);
  t.matrix("bert.embeddings.token_type_embeddings", 2, 32);
  t.add("bert.embeddings.LayerNorm.gamma", {32}).add("bert.embeddings.LayerNorm.beta", {32});
  for (Index l = 0; l < family_layers; ++l) {
    const std::string layer = "bert.encoder.layer." + std::to_string(l) + ".";
    for (const std::string name : {"self.query", "self.key", "self.value", "output.dense"})
      t.linear(layer + "attention." + name, 32, 32);
    t.add(layer + "attention.output.LayerNorm.gamma", {32})
        .add(layer + "attention.output.LayerNorm.beta", {32});
    t.linear(layer + "intermediate.dense", 128, 32).linear(layer + "output.dense", 32, 128);
    t.add(layer + "output.LayerNorm.gamma", {32}).add(layer + "output.LayerNorm.beta", {32});
  }
  t.linear("bert.pooler.dense", 32, 32)
      .linear("cls.predictions.transform.dense", 32, 32)
      .add("cls.predictions.bias", {64});
  return {
      R"({"attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_size": 32,
    "intermediate_size": 128, "layer_norm_eps": 1e-12,
    "max_position_embeddings": 16, "model_type": "bert", "num_attention_heads": 4,
    "num_hidden_layers": 2, "pad_token_id": 0,
    "position_embedding_type": "absolute", "type_vocab_size": 2, "vocab_size": 64})",
      t.list()};
}

inline Family mixtral() {
  auto t = llama_tensors({.mlp = false});
  for (Index l = 0; l < family_layers; ++l) {
    const std::string moe = "model.layers." + std::to_string(l) + ".block_sparse_moe.";
    t.matrix(moe + "gate", 3, 32);
    for (Index e = 0; e < 3; ++e) {
      const std::string expert = moe + "experts." + std::to_string(e) + ".";
      t.matrix(expert + "w1", 48, 32).matrix(expert + "w2", 32, 48).matrix(expert + "w3", 48, 32);
    }
  }
  return {
      R"({"hidden_act": "silu", "hidden_size": 32, "intermediate_size": 48,
    "max_position_embeddings": 32768, "model_type": "mixtral",
    "num_attention_heads": 4, "num_experts_per_tok": 2, "num_hidden_layers": 2,
    "num_key_value_heads": 2, "num_local_experts": 3,
    "output_router_logits": false, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0,
    "tie_word_embeddings": false, "vocab_size": 64})",
      t.list()};
}

inline Family qwen2_moe() {
  auto t = llama_tensors({.qkv_bias = true, .mlp = false});
  for (Index l = 0; l < family_layers; ++l) {
    const std::string mlp = "model.layers." + std::to_string(l) + ".mlp.";
    const auto gated = [&](const std::string& module, Index channels) {
      t.matrix(mlp + module + ".gate_proj", channels, 32)
          .matrix(mlp + module + ".up_proj", channels, 32);
      t.matrix(mlp + module + ".down_proj", 32, channels);
    };
    t.matrix(mlp + "gate", 3, 32).matrix(mlp + "shared_expert_gate", 1, 32);
    for (Index e = 0; e < 3; ++e) gated("experts." + std::to_string(e), 24);
    gated("shared_expert", 48);
  }
  return {
      R"({"decoder_sparse_step": 1, "hidden_act": "silu", "hidden_size": 32,
    "intermediate_size": 48, "model_type": "qwen2_moe",
    "moe_intermediate_size": 24, "num_attention_heads": 4, "num_experts": 3,
    "num_experts_per_tok": 2, "num_hidden_layers": 2,
    "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
    "shared_expert_intermediate_size": 48,
    "tie_word_embeddings": false, "vocab_size": 64})",
      t.list()};
}

/// Two layers as Meta names them; llama2.c takes the names over, with the tables of rotary
/// positions of its version 0.
inline Tensors meta_tensors() {
  Tensors t("F32");
  t.matrix("tok_embeddings", 64, 32);
  for (Index l = 0; l < family_layers; ++l) {
    const std::string layer = "layers." + std::to_string(l) + ".";
    t.matrix(layer + "attention.wq", 32, 32)
        .matrix(layer + "attention.wk", 16, 32)
        .matrix(layer + "attention.wv", 16, 32);
    t.matrix(layer + "attention.wo", 32, 32);
    t.matrix(layer + "feed_forward.w1", 48, 32)
        .matrix(layer + "feed_forward.w2", 32, 48)
        .matrix(layer + "feed_forward.w3", 48, 32);
    t.norm(layer + "attention_norm", 32).norm(layer + "ffn_norm", 32);
  }
  t.norm("norm", 32)
      .add("freq_cis_real", {16, 4})
      .add("freq_cis_imag", {16, 4})
      .matrix("output", 64, 32);
  return t;
}

/// GGUF's names for a Llama, its MLPs those of `experts` experts where there are any.
inline Tensors gguf_tensors(Index experts = 0) {
  Tensors t("Q8_0");
  t.buffer("rope_freqs.weight", "F32", {4})
      .matrix("token_embd", 64, 32)
      .buffer("output_norm.weight", "F32", {32})
      .matrix("output", 64, 32);
  for (Index l = 0; l < family_layers; ++l) {
    const std::string layer = "blk." + std::to_string(l) + ".";
    t.matrix(layer + "attn_q", 32, 32)
        .matrix(layer + "attn_k", 16, 32)
        .matrix(layer + "attn_v", 16, 32)
        .matrix(layer + "attn_output", 32, 32);
    t.buffer(layer + "attn_norm.weight", "F32", {32})
        .buffer(layer + "ffn_norm.weight", "F32", {32});
    if (experts == 0) {
      t.matrix(layer + "ffn_gate", 48, 32)
          .matrix(layer + "ffn_up", 48, 32)
          .matrix(layer + "ffn_down", 32, 48);
      continue;
    }
    t.buffer(layer + "ffn_gate_inp.weight", "F32", {experts, 32});
    t.add(layer + "ffn_gate_exps.weight", {experts, 48, 32})
        .add(layer + "ffn_up_exps.weight", {experts, 48, 32});
    t.add(layer + "ffn_down_exps.weight", {experts, 32, 48});
  }
  return t;
}

}  // namespace cafeq::test
