#include "cafeq/io/gguf_config.hpp"

#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "support/catch.hpp"
#include "support/error_of.hpp"

using namespace cafeq;
using test::error_of;

namespace {

GgufMetadata metadata_of(const std::string& architecture) {
  GgufMetadata metadata;
  metadata.add("general.architecture", GgufValue(architecture));
  return metadata;
}

}  // namespace

TEST_CASE("GGUF: the fields of an architecture") {
  GgufMetadata metadata = metadata_of("llama");
  metadata.add("llama.block_count", GgufValue(std::uint32_t(2)));
  metadata.add("llama.embedding_length", GgufValue(std::uint32_t(32)));
  metadata.add("llama.feed_forward_length", GgufValue(std::uint32_t(48)));
  metadata.add("llama.vocab_size", GgufValue(std::uint32_t(64)));
  metadata.add("llama.attention.head_count", GgufValue(std::uint32_t(4)));
  metadata.add("llama.attention.head_count_kv", GgufValue(std::int32_t(2)));
  metadata.add("llama.expert_count", GgufValue(std::uint64_t(8)));
  metadata.add("llama.context_length", GgufValue(std::uint32_t(4096)));
  metadata.add("llama.attention.layer_norm_rms_epsilon", GgufValue(0.5f));
  metadata.add("llama.rope.freq_base", GgufValue(500000.0f));
  const ModelConfig config = config_from_gguf(metadata);
  CHECK(config.architecture == "llama");
  CHECK(config.layers == 2);
  CHECK(config.hidden == 32);
  CHECK(config.intermediate == 48);
  CHECK(config.vocabulary == 64);
  CHECK(config.heads == 4);
  CHECK(config.kv_heads == 2);
  CHECK(config.head_dim == 8);
  CHECK(config.experts == 8);
  CHECK(config.context == 4096);
  CHECK(config.norm_epsilon == 0.5);
  CHECK(config.rope_base == 500000);
  REQUIRE(config.attention.rotary);
  CHECK(config.attention.rotary->dims == 8);
  CHECK(config.attention.rotary->pairing == Rotary::Pairing::interleaved);
  CHECK(config.attention_doubt == "");

  metadata.add("llama.attention.key_length", GgufValue(std::uint32_t(16)));
  metadata.add("llama.rope.dimension_count", GgufValue(std::uint32_t(4)));
  metadata.add("llama.attention.clamp_kqv", GgufValue(8.0f));
  const ModelConfig more = config_from_gguf(metadata);
  CHECK(more.head_dim == 16);
  CHECK(more.attention.rotary->dims == 4);
  CHECK(more.attention.clipped);
  metadata.add("llama.attention.value_length", GgufValue(std::uint32_t(8)));
  CHECK_THAT(config_from_gguf(metadata).attention_doubt,
             Contains("16 coordinates, those of values 8"));
}

TEST_CASE("GGUF: each architecture orders rotary pairs in its own way") {
  const auto pairing = [](const std::string& architecture) {
    const auto rotary = config_from_gguf(metadata_of(architecture)).attention.rotary;
    REQUIRE(rotary);
    return rotary->pairing;
  };
  for (const std::string name : {"llama", "olmo", "granite"})
    CHECK(pairing(name) == Rotary::Pairing::interleaved);
  for (const std::string name : {"qwen2", "qwen2moe", "qwen3", "qwen3moe", "gemma", "gemma2",
                                 "gemma3", "phi2", "phi3", "stablelm", "olmo2", "gpt-oss"})
    CHECK(pairing(name) == Rotary::Pairing::half_split);
  for (const std::string name : {"gpt2", "bert", "starcoder"})
    CHECK_FALSE(config_from_gguf(metadata_of(name)).attention.rotary);
  CHECK(config_from_gguf(metadata_of("gemma3")).attention.qk_norm);
  for (const std::string name : {"gemma3n", "mistral", "gpt_oss", ""})
    CHECK(config_from_gguf(metadata_of(name)).attention_doubt == "the architecture is not known");
  CHECK(config_from_gguf(GgufMetadata{}).architecture == "");
}

TEST_CASE("GGUF: numbers that differ from layer to layer are left out, wrong ones refused") {
  GgufMetadata metadata = metadata_of("llama");
  metadata.add("llama.attention.head_count", GgufValue(std::vector<std::uint32_t>{4, 8}));
  CHECK(config_from_gguf(metadata).heads == 0);
  for (const auto& [name, value, part] :
       std::vector<std::tuple<std::string, GgufValue, std::string>>{
           {"block_count", GgufValue(std::int32_t(-3)),
            "llama.block_count is -3, must be a whole number from 0 to 1000000"},
           {"block_count", GgufValue(std::uint32_t(1000001)), "llama.block_count is 1e+06"},
           {"embedding_length", GgufValue(std::string("32")),
            "llama.embedding_length is no number"},
           {"expert_count", GgufValue(2.0f), "llama.expert_count is 2"},
           {"rope.freq_base", GgufValue(-1.0f), "llama.rope.freq_base is -1"},
           {"rope.freq_base", GgufValue(std::numeric_limits<double>::quiet_NaN()),
            "llama.rope.freq_base is"},
           {"rope.freq_base", GgufValue(std::numeric_limits<double>::infinity()),
            "llama.rope.freq_base is"}}) {
    INFO(name);
    GgufMetadata wrong = metadata_of("llama");
    wrong.add("llama." + name, value);
    const Error error = error_of([&] { config_from_gguf(wrong); });
    CHECK(error.code() == ErrorCode::corrupt);
    CHECK_THAT(error.message(), Contains(part));
  }
  metadata.set("llama.attention.head_count", GgufValue(std::uint32_t(4)));
  metadata.set("llama.attention.head_count_kv", GgufValue(std::uint32_t(3)));
  CHECK_THAT(error_of([&] { config_from_gguf(metadata); }).message(),
             Contains("4 heads are no multiple of 3"));
}

TEST_CASE("GGUF: architectures are known by the names that transformers gives them") {
  for (const auto& gguf : detail::gguf_architectures) {
    INFO(gguf.name);
    CHECK(detail::find_architecture(gguf.model_type) != nullptr);
    CHECK(detail::find_gguf_architecture(gguf.name) == &gguf);
  }
}
