#include "cafeq/io/json_config.hpp"

#include <cmath>
#include <string>
#include <vector>

#include "model/families.hpp"
#include "support/catch.hpp"
#include "support/error_of.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace {

ModelConfig config_of(const std::string& members) { return config_from_json("{" + members + "}"); }

}  // namespace

TEST_CASE("config.json: the numbers of a Llama") {
  const ModelConfig config = config_from_json(llama().config);
  CHECK(config.architecture == "llama");
  CHECK(config.layers == 2);
  CHECK(config.hidden == 32);
  CHECK(config.intermediate == 48);
  CHECK(config.vocabulary == 64);
  CHECK(config.heads == 4);
  CHECK(config.kv_heads == 2);
  CHECK(config.head_dim == 8);
  CHECK(config.experts == 0);
  CHECK(config.context == 131072);
  CHECK(config.norm_epsilon == 1e-5);
  CHECK(config.rope_base == 500000);
  CHECK_FALSE(config.tied_embeddings);
  REQUIRE(config.attention.rotary);
  CHECK(config.attention.rotary->dims == 8);
  CHECK(config.attention.rotary->pairing == Rotary::Pairing::half_split);
  CHECK(config.mlp.gated);
  CHECK(config.mlp.activation == Activation::silu);
  CHECK(config.attention_doubt == "");
  CHECK(config.mlp_doubt == "");
}

TEST_CASE("config.json: families spell the same numbers in their own ways") {
  CHECK(config_from_json(first_llama().config).kv_heads == 4);
  CHECK(config_from_json(mistral().config).head_dim == 16);
  CHECK(config_from_json(qwen3().config).attention.qk_norm);
  CHECK(config_from_json(mixtral().config).experts == 3);
  CHECK(config_from_json(qwen2_moe().config).experts == 3);

  const ModelConfig gpt = config_from_json(gpt2().config);
  CHECK(gpt.layers == 2);
  CHECK(gpt.hidden == 32);
  CHECK(gpt.heads == 4);
  CHECK(gpt.kv_heads == 4);
  CHECK(gpt.head_dim == 8);
  CHECK(gpt.context == 16);
  CHECK(gpt.norm_epsilon == 1e-5);
  CHECK(gpt.intermediate == 0);
  CHECK(gpt.tied_embeddings);
  CHECK_FALSE(gpt.attention.rotary);
  CHECK_FALSE(gpt.mlp.gated);
  CHECK(gpt.mlp.activation == Activation::gelu);

  const ModelConfig encoder = config_from_json(bert().config);
  CHECK(encoder.norm_epsilon == 1e-12);
  CHECK(encoder.attention_doubt == "");
  CHECK_FALSE(encoder.attention.rotary);

  const ModelConfig distilled = config_of(
      R"("activation": "relu", "dim": 32, "hidden_dim": 64, "model_type": "distilbert",
    "n_heads": 4, "n_layers": 3)");
  CHECK(distilled.layers == 3);
  CHECK(distilled.hidden == 32);
  CHECK(distilled.intermediate == 64);
  CHECK(distilled.head_dim == 8);
  CHECK(distilled.mlp.activation == Activation::relu);

  CHECK(config_of(R"("model_type": "gpt_bigcode", "multi_query": true, "n_embd": 32, "n_head": 4)")
            .kv_heads == 1);
  CHECK(config_of(R"("model_type": "gpt_bigcode", "multi_query": false, "n_embd": 32, "n_head": 4)")
            .kv_heads == 4);
}

TEST_CASE("config.json: gemma ties its embeddings unless it says otherwise") {
  CHECK(config_from_json(gemma().config).tied_embeddings);
  CHECK(config_from_json(gemma().config).mlp.activation == Activation::gelu);
  CHECK_FALSE(config_of(R"("model_type": "gemma", "tie_word_embeddings": false)").tied_embeddings);
  CHECK_FALSE(config_of(R"("model_type": "llama")").tied_embeddings);
  CHECK(config_of(R"("model_type": "llama", "tie_word_embeddings": true)").tied_embeddings);
}

TEST_CASE("config.json: a multimodal model is read as its language model") {
  const ModelConfig config = config_from_json(gemma3().config);
  CHECK(config.architecture == "gemma3_text");
  CHECK(config.hidden == 32);
  CHECK(config.layers == 2);
  CHECK(config.heads == 4);
  CHECK(config.attention.qk_norm);
  CHECK(config.attention_doubt == "");
  const ModelConfig llava = config_of(
      R"("model_type": "llava", "tie_word_embeddings": true,
    "text_config": {"model_type": "mistral", "hidden_size": 64,
    "num_attention_heads": 4, "num_key_value_heads": 2})");
  CHECK(llava.architecture == "mistral");
  CHECK(llava.head_dim == 16);
  CHECK(llava.tied_embeddings);
}

TEST_CASE("config.json: how much of a head is rotated") {
  const auto dims = [](const std::string& members) {
    const ModelConfig config =
        config_of(R"("hidden_size": 128, "num_attention_heads": 4, )" + members);
    REQUIRE(config.attention.rotary);
    return config.attention.rotary->dims;
  };
  CHECK(dims(R"("model_type": "phi3")") == 32);
  CHECK(dims(R"("model_type": "phi3", "partial_rotary_factor": 0.75)") == 24);
  CHECK(dims(R"("model_type": "phi")") == 16);
  CHECK(dims(R"("model_type": "stablelm")") == 8);
  CHECK(dims(R"("model_type": "gpt_neox", "rotary_pct": 1.0)") == 32);
  CHECK(dims(R"("model_type": "gptj", "rotary_dim": 12)") == 12);
  CHECK(dims(
            R"("model_type": "phi3", "rope_parameters": {"rope_theta": 5.0,
    "partial_rotary_factor": 0.5})") == 16);
  CHECK(config_of(R"("model_type": "llama", "rope_parameters": {"rope_theta": 5.0})").rope_base ==
        5);
  CHECK(config_of(R"("hidden_size": 128, "num_attention_heads": 4, "model_type": "gptj")")
            .attention.rotary->pairing == Rotary::Pairing::interleaved);
}

TEST_CASE("config.json: what a configuration adds to its architecture") {
  CHECK(config_of(R"("model_type": "olmo", "clip_qkv": 8.0)").attention.clipped);
  CHECK_FALSE(config_of(R"("model_type": "olmo", "clip_qkv": null)").attention.clipped);
  CHECK(config_of(R"("model_type": "phi", "qk_layernorm": true)").attention.qk_norm);
  CHECK_FALSE(config_of(R"("model_type": "phi", "qk_layernorm": false)").attention.qk_norm);
  CHECK(
      config_of(R"("model_type": "qwen3_next", "attn_output_gate": false)").attention.gated_output);
  CHECK(config_of(R"("model_type": "llama", "attn_output_gate": true)").attention.gated_output);
  CHECK_FALSE(config_of(R"("model_type": "gpt_oss")").attention.rows_sum_to_one);
  CHECK_THAT(config_of(R"("model_type": "gpt_oss")").mlp_doubt, Contains("clipped"));
  CHECK(config_of(R"("model_type": "gpt_oss")").attention_doubt == "");
  CHECK_THAT(config_of(R"("model_type": "bert", "position_embedding_type": "relative_key_query")")
                 .attention_doubt,
             Contains("relative_key_query"));
  CHECK(config_of(R"("model_type": "bert", "position_embedding_type": "relative_key_query")")
            .mlp_doubt == "");
  CHECK(config_of(R"("model_type": "llama", "hidden_act": "relu")").mlp.activation ==
        Activation::relu);
  CHECK(config_of(R"("model_type": "llama", "hidden_act": "relu2")").mlp.activation ==
        Activation::other);

  const ModelConfig smollm = config_of(
      R"("model_type": "smollm3", "hidden_size": 32, "num_attention_heads": 4,
    "no_rope_layers": [1, 1, 0, 1])");
  REQUIRE(smollm.other_attention.size() == 1);
  CHECK(smollm.attention_of(1).rotary);
  CHECK_FALSE(smollm.attention_of(2).rotary);
}

TEST_CASE("config.json: windows of Mistral, Qwen and Phi-3") {
  const auto windows = [](const std::string& members) {
    return config_of(R"("num_hidden_layers": 3, )" + members);
  };
  const std::vector<bool> all(3, true);
  const ModelConfig first = windows(R"("model_type": "mistral", "sliding_window": 4096)");
  CHECK(first.window == 4096);
  CHECK(first.windowed == all);
  CHECK(first.is_windowed(2));
  CHECK_FALSE(first.is_windowed(3));
  // transformers' own default, where a file says nothing.
  CHECK(windows(R"("model_type": "mistral")").window == 4096);
  CHECK(windows(R"("model_type": "mistral", "sliding_window": null)").window == 0);
  CHECK(windows(R"("model_type": "mistral", "sliding_window": null)").windowed.empty());
  CHECK(windows(R"("model_type": "phi3", "sliding_window": 2047)").windowed == all);

  for (const std::string type : {"qwen2", "qwen3"}) {
    const std::string qwen = R"("model_type": ")" + type + R"(", "sliding_window": 131072, )";
    CHECK(windows(qwen + R"("max_window_layers": 1, "use_sliding_window": false)").window == 0);
    CHECK(windows(qwen + R"("max_window_layers": 1)").window == 0);
    const ModelConfig used =
        windows(qwen + R"("max_window_layers": 1, "use_sliding_window": true)");
    CHECK(used.window == 131072);
    CHECK(used.windowed == std::vector<bool>{false, true, true});
    CHECK(windows(qwen + R"("use_sliding_window": true)").windowed == std::vector<bool>(3));
    CHECK(windows(qwen + R"("use_sliding_window": false, "layer_types": ["full_attention",
      "full_attention", "sliding_attention"])")
              .windowed.empty());
  }
}

TEST_CASE("config.json: what Gemma 2 adds to attention, embedding and logits") {
  // gemma-2-27b
  const ModelConfig config = config_of(R"("attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0, "head_dim": 128, "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 4608, "intermediate_size": 36864,
    "max_position_embeddings": 8192, "model_type": "gemma2", "num_attention_heads": 32,
    "num_hidden_layers": 46, "num_key_value_heads": 16, "query_pre_attn_scalar": 144,
    "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "sliding_window": 4096,
    "sliding_window_size": 4096, "use_cache": true, "vocab_size": 256000)");
  CHECK(config.norm_offset == 1);
  CHECK(config.embedding_scale == Approx(std::sqrt(4608.0)));
  CHECK(config.attention_scale == Approx(1.0 / 12));
  CHECK(config.attention_softcap == 50);
  CHECK(config.logit_softcap == 30);
  CHECK(config.window == 4096);
  REQUIRE(config.windowed.size() == 46);
  for (Index layer = 0; layer < 46; ++layer) CHECK(config.is_windowed(layer) == (layer % 2 == 0));
  CHECK(config.window_rope_base == 0);
  CHECK(config.tied_embeddings);
  CHECK(config.mlp.activation == Activation::gelu);

  // As in PaliGemma 2, which says no more; and with both caps taken away.
  const ModelConfig nested = config_of(R"("model_type": "paligemma", "text_config":
    {"hidden_size": 2304, "model_type": "gemma2", "num_attention_heads": 8,
    "num_hidden_layers": 26})");
  CHECK(nested.head_dim == 256);
  CHECK(nested.attention_softcap == 50);
  CHECK(nested.logit_softcap == 30);
  CHECK(nested.attention_scale == 1.0 / 16);
  CHECK(nested.window == 4096);
  const ModelConfig bare = config_of(R"("model_type": "gemma2", "attn_logit_softcapping": null,
    "final_logit_softcapping": null)");
  CHECK(bare.attention_softcap == 0);
  CHECK(bare.logit_softcap == 0);
}

TEST_CASE("config.json: Gemma 3, alone and within a multimodal model") {
  // gemma-3-1b-it
  const ModelConfig config = config_of(R"("architectures": ["Gemma3ForCausalLM"],
    "attention_bias": false, "attn_logit_softcapping": null, "final_logit_softcapping": null,
    "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152,
    "intermediate_size": 6912, "max_position_embeddings": 32768, "model_type": "gemma3_text",
    "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1,
    "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000,
    "rope_scaling": null, "rope_theta": 1000000, "sliding_window": 512,
    "sliding_window_pattern": 6, "vocab_size": 262144)");
  CHECK(config.norm_offset == 1);
  CHECK(config.embedding_scale == Approx(std::sqrt(1152.0)));
  CHECK(config.attention_scale == 1.0 / 16);
  CHECK(config.attention_softcap == 0);
  CHECK(config.logit_softcap == 0);
  CHECK(config.window == 512);
  for (Index layer = 0; layer < 26; ++layer) CHECK(config.is_windowed(layer) == (layer % 6 != 5));
  CHECK(config.rope_base == 1e6);
  CHECK(config.window_rope_base == 10000);
  CHECK(config.rope_scaling.factors.empty());

  // gemma-3-4b-it
  const ModelConfig four = config_of(R"("architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3", "text_config": {"hidden_size": 2560, "intermediate_size": 10240,
    "model_type": "gemma3_text", "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0,
    "rope_type": "linear"}, "sliding_window": 1024}, "vision_config": {"hidden_size": 1152})");
  CHECK(four.heads == 8);
  CHECK(four.kv_heads == 4);
  CHECK(four.head_dim == 256);
  CHECK(four.vocabulary == 262208);
  CHECK(four.context == 131072);
  CHECK(four.norm_epsilon == 1e-6);
  CHECK(four.rope_base == 1e6);
  CHECK(four.window_rope_base == 10000);
  CHECK(four.window == 1024);
  CHECK(four.rope_scaling.factors == std::vector<double>(128, 8.0));
  CHECK(four.attention_scale == 1.0 / 16);
  CHECK(four.mlp.activation == Activation::gelu);

  const ModelConfig listed = config_of(R"("model_type": "gemma3_text", "num_hidden_layers": 3,
    "layer_types": ["full_attention", "sliding_attention", "full_attention"])");
  CHECK(listed.windowed == std::vector<bool>{false, true, false});
  CHECK(config_of(R"("model_type": "gemma3_text", "num_hidden_layers": 4,
    "sliding_window_pattern": 2)")
            .windowed == std::vector<bool>{true, false, true, false});
}

TEST_CASE("config.json: Phi-3 rotates parts of heads at frequencies for short and long texts") {
  // Phi-4-mini, with fewer coordinates
  const ModelConfig config = config_of(R"("hidden_act": "silu", "hidden_size": 64,
    "intermediate_size": 8192, "max_position_embeddings": 131072, "model_type": "phi3",
    "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2,
    "original_max_position_embeddings": 4096, "partial_rotary_factor": 0.75,
    "rms_norm_eps": 1e-05, "rope_scaling": {"long_factor": [1, 1.1, 1.2, 1.3, 1.5, 9.0],
    "short_factor": [1.0, 1.0, 1.0, 1.0, 1.0, 1.0], "type": "longrope"}, "rope_theta": 10000.0,
    "sliding_window": 262144, "tie_word_embeddings": true, "vocab_size": 200064)");
  CHECK(config.attention.rotary->dims == 12);
  CHECK(config.rope_scaling.factors == std::vector<double>(6, 1.0));
  CHECK(config.rope_scaling.long_factors == std::vector<double>{1, 1.1, 1.2, 1.3, 1.5, 9});
  CHECK(config.rope_scaling.original_context == 4096);
  CHECK(config.rope_scaling.magnitude == Approx(1.1902380714));
  CHECK(config.window == 262144);
  CHECK(config.tied_embeddings);
  CHECK(config.norm_offset == 0);
  CHECK(config.embedding_scale == 1);
  CHECK(config.attention_scale == 0);
}

TEST_CASE("config.json: of an unknown architecture nothing is certain but its numbers") {
  for (const std::string members :
       {R"("model_type": "gemma3n_text", "hidden_size": 32, "num_attention_heads": 4)",
        R"("hidden_size": 32, "num_attention_heads": 4)"}) {
    const ModelConfig config = config_of(members);
    CHECK(config.head_dim == 8);
    CHECK(config.attention_doubt == "the architecture is not known");
    CHECK(config.mlp_doubt == "the architecture is not known");
    CHECK_FALSE(config.tied_embeddings);
  }
  const ModelConfig empty = config_of("");
  CHECK(empty.heads == 0);
  CHECK(empty.head_dim == 0);
  CHECK(ModelConfig{}.attention_doubt == empty.attention_doubt);
}

TEST_CASE("config.json: wrong types and absurd numbers are corrupt, and named") {
  for (const auto& [members, part] : std::vector<std::pair<std::string, std::string>>{
           {R"("num_attention_heads": -4)",
            "num_attention_heads is -4, must be a whole number from 0 to 1000000"},
           {R"("num_attention_heads": "4")", "num_attention_heads is \"4\""},
           {R"("num_attention_heads": 4.0)", "num_attention_heads is 4.0"},
           {R"("num_hidden_layers": 1000001)", "num_hidden_layers is 1000001"},
           {R"("n_layer": [2])", "n_layer is [2]"},
           {R"("hidden_size": 99999999999999999999)", "hidden_size"},
           {R"("vocab_size": true)", "vocab_size is true"},
           {R"("num_attention_heads": 4, "num_key_value_heads": 3)",
            "4 heads are no multiple of 3 key/value heads"},
           {R"("num_key_value_heads": 3, "multi_query": "yes")",
            "multi_query is \"yes\", must be true or false"},
           {R"("model_type": 7)", "model_type is 7, must be a string"},
           {R"("rope_theta": -1)", "rope_theta is -1, must be a number from 0"},
           {R"("rms_norm_eps": "1e-5")", "rms_norm_eps"},
           {R"("model_type": "phi3", "partial_rotary_factor": 1.5)",
            "partial_rotary_factor is 1.5, must be a number from 0 to 1"},
           {R"("model_type": "smollm3", "no_rope_layers": [1, -1])", "no_rope_layers"},
           {R"("model_type": "llama", "rope_parameters": 3)",
            "config.json: rope_parameters: is not a JSON object"},
           {R"("model_type": "gemma3_text", "layer_types": ["full_attention", 1])",
            "layer_types is [\"full_attention\",1], must be an array of strings"},
           {R"("text_config": [1])", "config.json: text_config: is not a JSON object"},
           {R"("text_config": {"hidden_size": -1})", "config.json: text_config: hidden_size is -1"},
           {R"("tie_word_embeddings": 1)", "tie_word_embeddings is 1"}}) {
    INFO(members);
    const Error error = error_of([&, text = members] { config_of(text); });
    CHECK(error.code() == ErrorCode::corrupt);
    CHECK_THAT(error.message(), Contains("config.json"));
    CHECK_THAT(error.message(), Contains(part));
  }
  for (const std::string text : {"", "[]", "null", "{", "7"}) {
    INFO(text);
    CHECK(error_of([&] { config_from_json(text, "my/config.json"); }).code() == ErrorCode::corrupt);
    CHECK_THAT(error_of([&] { config_from_json(text, "my/config.json"); }).message(),
               Contains("my/config.json"));
  }
}

TEST_CASE("config.json: a null is a missing value") {
  const ModelConfig config = config_of(
      R"("model_type": "llama", "head_dim": null, "hidden_size": 32, "num_attention_heads": 4,
    "num_key_value_heads": null, "rope_parameters": null)");
  CHECK(config.kv_heads == 4);
  CHECK(config.head_dim == 8);
  CHECK(config_of(R"("hidden_size": 30, "num_attention_heads": 4)").head_dim == 0);
}
