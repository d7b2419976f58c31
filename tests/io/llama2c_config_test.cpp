#include "cafeq/io/llama2c_config.hpp"

#include "support/catch.hpp"

using namespace cafeq;

TEST_CASE("llama2.c: the header says all") {
  const ModelConfig config = config_from_llama2c({.hidden = 64,
                                                  .intermediate = 172,
                                                  .layers = 5,
                                                  .heads = 8,
                                                  .kv_heads = 4,
                                                  .vocabulary = 512,
                                                  .context = 512,
                                                  .tied_embeddings = true});
  CHECK(config.architecture == "llama");
  CHECK(config.layers == 5);
  CHECK(config.intermediate == 172);
  CHECK(config.head_dim == 8);
  CHECK(config.kv_heads == 4);
  CHECK(config.tied_embeddings);
  CHECK(config.norm_epsilon == 1e-5);
  REQUIRE(config.attention.rotary);
  CHECK(config.attention.rotary->dims == 8);
  CHECK(config.attention.rotary->pairing == Rotary::Pairing::interleaved);
  CHECK(config.mlp.gated);
  CHECK(config.attention_doubt == "");
  CHECK(config.mlp_doubt == "");
}
