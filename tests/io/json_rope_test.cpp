#include "cafeq/io/json_rope.hpp"

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "cafeq/io/json_config.hpp"
#include "support/catch.hpp"
#include "support/error_of.hpp"

using namespace cafeq;
using test::error_of;

namespace {

/// A model with heads of 8 and these members.
ModelConfig with_rope(const std::string& members, const std::string& type = "llama") {
  return config_from_json(R"({"hidden_size": 32, "num_attention_heads": 4, "model_type": ")" +
                          type + R"(", "max_position_embeddings": 4096, )" + members + "}");
}
void check_factors(const std::vector<double>& got, const std::vector<double>& expected) {
  REQUIRE(got.size() == expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) CHECK(got[i] == Approx(expected[i]).epsilon(1e-6));
}

}  // namespace

TEST_CASE("rotary positions are not scaled where nothing says so") {
  for (const std::string members :
       {R"("rope_theta": 7.0)", R"("rope_theta": 7.0, "rope_scaling": null)",
        R"("rope_parameters": {"rope_theta": 7.0, "rope_type": "default"})"}) {
    const ModelConfig config = with_rope(members);
    CHECK(config.rope_base == 7);
    CHECK(config.rope_scaling.factors.empty());
    CHECK(config.rope_scaling.magnitude == 1);
    CHECK(config.rope_scaling_doubt == "");
  }
  CHECK(with_rope(R"("rope_theta": null)").rope_base == 10000);  // as the first Llamas
  CHECK(with_rope(R"("n_ctx": 7)", "gpt2").rope_base == 0);
  CHECK(with_rope(R"("n_ctx": 7)", "unheard").rope_base == 0);
}

TEST_CASE("linear scaling slows all rotations down alike") {
  for (const std::string type : {R"("type")", R"("rope_type")"})
    check_factors(with_rope(R"("rope_scaling": {)" + type + R"(: "linear", "factor": 2.5})")
                      .rope_scaling.factors,
                  {2.5, 2.5, 2.5, 2.5});
}

// What transformers.modeling_rope_utils computes.
TEST_CASE("Llama 3 and YaRN slow the slow rotations down") {
  const ModelConfig llama3 = with_rope(
      R"("rope_theta": 500000.0, "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 512, "rope_type": "llama3"})");
  // A turn takes 2π, 167.1, 4443 and 118142 positions: the second makes 3.0644 turns in 512.
  check_factors(llama3.rope_scaling.factors, {1, 1 / (0.3118616 / 8 + 0.6881384), 8, 8});
  CHECK(llama3.rope_scaling.magnitude == 1);
  CHECK(llama3.rope_scaling.long_factors.empty());

  const ModelConfig yarn = with_rope(
      R"("rope_theta": 10000.0, "rope_scaling": {"factor": 4.0,
    "original_max_position_embeddings": 1024, "type": "yarn"})");
  // From rotation floor(0.71) = 0, with 32 turns, to rotation ceil(2.21) = 3, with 1.
  check_factors(yarn.rope_scaling.factors,
                {1, 1 / (2.0 / 3 + 1.0 / 12), 1 / (1.0 / 3 + 0.5 / 3), 4});
  CHECK(yarn.rope_scaling.magnitude == Approx(1.1386294361));
  CHECK(with_rope(R"("rope_scaling": {"factor": 4.0, "type": "yarn", "attention_factor": 0.5})")
            .rope_scaling.magnitude == 0.5);
}

TEST_CASE("LongRoPE has factors for short texts and for long ones") {
  const std::string factors =
      R"("short_factor": [1, 1.5, 2.0, 2.5], "long_factor": [1.0, 3.0, 9.0, 27.0])";
  for (const std::string type : {"longrope", "su"}) {
    const ModelConfig config = with_rope(R"("original_max_position_embeddings": 128,
      "rope_scaling": {"type": ")" + type + R"(", )" +
                                             factors + "}",
                                         "phi3");
    check_factors(config.rope_scaling.factors, {1, 1.5, 2, 2.5});
    check_factors(config.rope_scaling.long_factors, {1, 3, 9, 27});
    CHECK(config.rope_scaling.original_context == 128);
    // The context is 32 times longer: √(1 + ln 32 / ln 128).
    CHECK(config.rope_scaling.magnitude == Approx(std::sqrt(1 + 5.0 / 7)));
  }
  const ModelConfig within = with_rope(R"("rope_parameters": {"rope_type": "longrope",
    "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 1024, )" +
                                           factors + "}",
                                       "phi3");
  CHECK(within.rope_scaling.original_context == 1024);
  CHECK(within.rope_scaling.magnitude == Approx(std::sqrt(1.2)));
}

TEST_CASE("windowed layers have a base of their own, under one name or another") {
  const ModelConfig old = with_rope(R"("rope_local_base_freq": 20000.0, "rope_theta": 5e5,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"})",
                                    "gemma3_text");
  const ModelConfig nested = with_rope(R"("rope_parameters": {
    "full_attention": {"factor": 8.0, "rope_theta": 5e5, "rope_type": "linear"},
    "sliding_attention": {"rope_theta": 20000.0, "rope_type": "default"}})",
                                       "gemma3_text");
  for (const ModelConfig& config : {old, nested}) {
    CHECK(config.rope_base == 5e5);
    CHECK(config.window_rope_base == 20000);
    CHECK(config.rope_scaling.factors.front() == 8);
    CHECK(config.rope_scaling_doubt == "");
  }
  const ModelConfig silent = with_rope(R"("hidden_act": "silu")", "gemma3_text");
  CHECK(silent.rope_base == 1e6);
  CHECK(silent.window_rope_base == 10000);
  CHECK_THAT(with_rope(R"("rope_parameters": {"full_attention": {"rope_theta": 5e5},
    "sliding_attention": {"factor": 2.0, "rope_type": "linear"}})",
                       "gemma3_text")
                 .rope_scaling_doubt,
             Contains("windowed layers are scaled by linear"));
}

TEST_CASE("scaling that is not known is a doubt, and numbers that are missing are an error") {
  for (const std::string type : {"dynamic", "mrope"}) {
    const ModelConfig config =
        with_rope(R"("rope_scaling": {"factor": 2.0, "type": ")" + type + R"("})");
    CHECK(config.rope_scaling.factors.empty());
    CHECK(config.rope_scaling_doubt == "rotary positions scaled by " + type +
                                           " are not known; linear, llama3, yarn and longrope are");
  }
  for (const auto& [members, part] : std::vector<std::pair<std::string, std::string>>{
           {R"({"type": "linear"})", "rope_scaling: does not say factor"},
           {R"({"type": "llama3", "factor": 8.0})", "does not say low_freq_factor"},
           {R"({"type": "longrope", "short_factor": [1, 1, 1, 1]})", "does not say long_factor"},
           {R"({"type": "longrope", "short_factor": [1, 1, 1]})",
            "short_factor is [1,1,1], must be an array of 4 numbers above 0"},
           {R"({"type": "longrope", "short_factor": [1, 1, 1, 0]})", "short_factor is [1,1,1,0]"},
           {R"({"type": "longrope", "short_factor": "1"})", "short_factor is \"1\""}}) {
    INFO(members);
    const Error error = error_of([&, text = members] { with_rope("\"rope_scaling\": " + text); });
    CHECK(error.code() == ErrorCode::corrupt);
    CHECK_THAT(error.message(), Contains("config.json: "));
    CHECK_THAT(error.message(), Contains(part));
  }
  CHECK_THAT(error_of([] {
               config_from_json(R"({"hidden_size": 32, "num_attention_heads": 4,
    "model_type": "llama", "rope_scaling": {"factor": 4.0, "type": "yarn"}})");
             }).message(),
             Contains("does not say original_max_position_embeddings"));
}
