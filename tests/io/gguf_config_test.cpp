#include "cafeq/io/gguf_config.hpp"

#include <cmath>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "cafeq/io/gguf_file.hpp"
#include "io/temporary_directory.hpp"
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
/// With fields of that architecture, whose names do not begin with its own here.
template <class... Fields>
ModelConfig config_with(const std::string& architecture, const Fields&... fields) {
  GgufMetadata metadata = metadata_of(architecture);
  const auto add = [&](const auto& field) {
    metadata.add(architecture + "." + field.first, GgufValue(field.second));
  };
  (add(fields), ...);
  return config_from_gguf(metadata);
}
template <class T>
std::pair<std::string, T> field(const std::string& name, T value) {
  return {name, value};
}
std::pair<std::string, std::uint32_t> count(const std::string& name, std::uint32_t value) {
  return {name, value};
}

/// What is read of a file with these tensors, all of zeros but for floats that are given.
struct GgufFile : test::TemporaryDirectory {
  void add(const std::string& name, std::vector<Index> shape, std::vector<float> values = {}) {
    values.resize(std::size_t(*element_count(shape)));
    entries.push_back({name, GgufType::f32, std::move(shape)});
    floats.push_back(std::move(values));
  }
  ModelConfig config() const {
    const std::string path = this->path() + "/model.gguf";
    GgufWriter writer(path, metadata, entries);
    for (std::size_t i = 0; i < entries.size(); ++i)
      writer.write(entries[i].name, std::as_bytes(std::span(floats[i])));
    writer.commit();
    return config_from_gguf(GgufReader(path));
  }

  GgufMetadata metadata;
  std::vector<GgufEntry> entries{};
  std::vector<std::vector<float>> floats{};
};

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

TEST_CASE("GGUF: what llama.cpp has in its code for Gemma 2") {
  const auto sizes = [](std::uint32_t layers, auto... more) {
    return config_with("gemma2", count("block_count", layers), count("embedding_length", 4608),
                       count("attention.head_count", 32), count("attention.key_length", 128),
                       more...);
  };
  const ModelConfig config = sizes(26);
  CHECK(config.norm_offset == 0);
  CHECK(config.embedding_scale == Approx(std::sqrt(4608.0)));
  CHECK(config.attention_scale == 0);
  CHECK(config.attention_softcap == 50);
  CHECK(config.logit_softcap == 30);
  CHECK(config.window == 4096);
  REQUIRE(config.windowed.size() == 26);
  for (Index layer = 0; layer < 26; ++layer) CHECK(config.is_windowed(layer) == (layer % 2 == 0));
  CHECK(config.window_rope_base == 0);

  CHECK(sizes(46).attention_scale == Approx(1.0 / 12));  // of the 27B model
  const ModelConfig said =
      sizes(26, count("attention.sliding_window", 7), field("attn_logit_softcapping", 5.0f),
            field("final_logit_softcapping", 3.0f), field("rope.freq_base_swa", 300.0f));
  CHECK(said.window == 7);
  CHECK(said.attention_softcap == 5);
  CHECK(said.logit_softcap == 3);
  CHECK(said.window_rope_base == 300);
}

TEST_CASE("GGUF: what llama.cpp has in its code for Gemma 3") {
  const auto sizes = [](std::uint32_t layers, auto... more) {
    return config_with("gemma3", count("block_count", layers), count("embedding_length", 5376),
                       count("attention.head_count", 32), count("attention.key_length", 128),
                       field("rope.freq_base", 1e6f), more...);
  };
  const ModelConfig config =
      sizes(34, count("attention.sliding_window", 1024), field("rope.scaling.type", "linear"),
            field("rope.scaling.factor", 8.0f), field("attn_logit_softcapping", 50.0f));
  CHECK(config.embedding_scale == Approx(std::sqrt(5376.0)));
  CHECK(config.attention_scale == 0);
  CHECK(config.attention_softcap == 0);
  CHECK(config.logit_softcap == 0);
  CHECK(config.window == 1024);
  REQUIRE(config.windowed.size() == 34);
  for (Index layer = 0; layer < 34; ++layer) CHECK(config.is_windowed(layer) == (layer % 6 != 5));
  CHECK(config.rope_base == 1e6);
  CHECK(config.window_rope_base == 10000);
  CHECK(config.rope_scaling.factors == std::vector<double>(64, 8.0));
  CHECK(sizes(62).attention_scale == Approx(1 / std::sqrt(168.0)));  // of the 27B model

  const ModelConfig without = sizes(34);
  CHECK(without.window == 0);
  CHECK(without.windowed.empty());
  CHECK(without.window_rope_base == 0);
  const ModelConfig said =
      sizes(3, count("attention.sliding_window", 5), field("rope.freq_base_swa", 300.0f),
            count("attention.sliding_window_pattern", 2));
  CHECK(said.window_rope_base == 300);
  CHECK(said.windowed == std::vector<bool>{true, false, true});
  CHECK(sizes(2, count("attention.sliding_window", 5),
              field("attention.sliding_window_pattern", std::vector<bool>{false, true}))
            .windowed == std::vector<bool>{false, true});
}

TEST_CASE("GGUF: windows that llama.cpp does not heed are none") {
  for (const std::string name : {"llama", "qwen2", "qwen3", "phi3"}) {
    const ModelConfig config =
        config_with(name, count("block_count", 2), count("attention.sliding_window", 7));
    CHECK(config.window == 0);
    CHECK(config.windowed.empty());
    CHECK(config.embedding_scale == 1);
  }
}

TEST_CASE("GGUF: scaled rotary positions as fields") {
  const auto scaled = [](auto... fields) {
    return config_with("llama", count("context_length", 1024), count("embedding_length", 32),
                       count("attention.head_count", 4), fields...);
  };
  CHECK(scaled().rope_base == 10000);
  CHECK(scaled().rope_scaling.factors.empty());
  CHECK(scaled().rope_scaling.magnitude == 1);
  const std::vector<double> linear(4, 2.5);
  CHECK(scaled(field("rope.scaling.factor", 2.5f)).rope_scaling.factors == linear);
  CHECK(scaled(field("rope.scale_linear", 2.5f)).rope_scaling.factors == linear);
  CHECK(scaled(field("rope.scaling.type", "linear"), field("rope.scaling.factor", 2.5f))
            .rope_scaling.factors == linear);
  CHECK(scaled(field("rope.scaling.type", "none"), field("rope.scaling.factor", 2.5f))
            .rope_scaling.factors.empty());

  // As transformers' YaRN: see json_rope_test.cpp.
  const ModelConfig yarn =
      scaled(field("rope.scaling.type", "yarn"), field("rope.scaling.factor", 4.0f));
  REQUIRE(yarn.rope_scaling.factors.size() == 4);
  CHECK(yarn.rope_scaling.factors[0] == 1);
  CHECK(yarn.rope_scaling.factors[1] == Approx(4.0 / 3));
  CHECK(yarn.rope_scaling.factors[3] == Approx(4));
  CHECK(yarn.rope_scaling.magnitude == Approx(1.1386294361));
  CHECK(scaled(field("rope.scaling.type", "yarn"), field("rope.scaling.factor", 4.0f),
               field("rope.scaling.attn_factor", 0.5f))
            .rope_scaling.magnitude == Approx(1.1386294361 / 2));
  CHECK(scaled(field("rope.scaling.type", "yarn"), field("rope.scaling.factor", 4.0f),
               count("rope.scaling.original_context_length", 4096))
            .rope_scaling.factors[1] == 1);
  CHECK_THAT(scaled(field("rope.scaling.type", "spiral"), field("rope.scaling.factor", 4.0f))
                 .rope_scaling_doubt,
             Contains("scaled by spiral are not known"));
}

TEST_CASE("GGUF: vocabulary and unembedding as the tensors have them") {
  GgufFile file;
  file.metadata = metadata_of("llama");
  file.add("token_embd.weight", {5, 4});
  CHECK(file.config().vocabulary == 5);
  CHECK(file.config().tied_embeddings);
  file.metadata.add("llama.vocab_size", GgufValue(std::uint32_t(5)));
  file.add("output.weight", {5, 4});
  CHECK(file.config().vocabulary == 5);
  CHECK_FALSE(file.config().tied_embeddings);
}

TEST_CASE("GGUF: factors of rotary frequencies as tensors") {
  GgufFile file;
  file.metadata = metadata_of("phi3");
  file.metadata.add("phi3.embedding_length", GgufValue(std::uint32_t(24)));
  file.metadata.add("phi3.attention.head_count", GgufValue(std::uint32_t(4)));
  file.metadata.add("phi3.context_length", GgufValue(std::uint32_t(256)));
  file.metadata.add("phi3.rope.dimension_count", GgufValue(std::uint32_t(4)));
  file.metadata.add("phi3.rope.scaling.original_context_length", GgufValue(std::uint32_t(16)));
  file.metadata.add("phi3.rope.scaling.attn_factor", GgufValue(1.25f));
  file.add("rope_factors_short.weight", {2}, {1, 2});
  CHECK(file.config().rope_scaling.factors.empty());
  file.add("rope_factors_long.weight", {2}, {3, 4});
  const RopeScaling by_length = file.config().rope_scaling;
  CHECK(by_length.factors == std::vector<double>{1, 2});
  CHECK(by_length.long_factors == std::vector<double>{3, 4});
  CHECK(by_length.original_context == 16);
  CHECK(by_length.magnitude == 1.25);

  file.metadata.add("phi3.rope.scaling.factor", GgufValue(2.0f));
  CHECK(file.config().rope_scaling.long_factors == std::vector<double>{6, 8});
  file.add("rope_freqs.weight", {2}, {5, 6});
  CHECK(file.config().rope_scaling.factors == std::vector<double>{10, 12});
  CHECK(file.config().rope_scaling.long_factors.empty());

  for (const auto& wrong : std::vector<std::vector<float>>{{5, 0}, {5, -1}, {5, 6, 7}, {5}}) {
    file.entries.back().shape = {Index(wrong.size())};
    file.floats.back() = wrong;
    const Error error = error_of([&] { file.config(); });
    CHECK(error.code() == ErrorCode::corrupt);
    CHECK_THAT(error.message(), Contains("rope_freqs.weight must be 2 factors above 0 as F32"));
  }
}
