#include "cafeq/io/gguf_model.hpp"

#include "engine/tiny_model.hpp"
#include "io/temporary_directory.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using cafeq::detail::Json;
using engine::test::TinyModel;
using test::error_of;
using test::TemporaryDirectory;

namespace {

TinyModel tiny(bool tied = true) {
  auto config = engine::test::tiny_config();
  config.tied_embeddings = tied;
  return engine::test::tiny_model(config);
}

/// A model of transformers, and its description as GGUF with changes to its config.json.
struct HuggingFace : TemporaryDirectory {
  explicit HuggingFace(const TinyModel& model = tiny())
      : config(engine::test::config_json(model.config)) {
    engine::test::write_hugging_face(*this, model);
  }
  detail::GgufModel gguf(const Json& changes = Json::object()) const {
    Json changed = config;
    changed.update(changes);
    write("config.json", changed.dump());
    return detail::to_gguf_model(ModelFile(path()));
  }
  Error error(const Json& changes, ErrorCode code) const {
    const Error raised = error_of([&] { gguf(changes); });
    CHECK(raised.code() == code);
    CHECK_THAT(raised.message(), Contains(path()));
    return raised;
  }

  Json config;
};

std::vector<std::string> names_of(const detail::GgufModel& model) {
  std::vector<std::string> names;
  for (const detail::GgufSource& source : model.tensors) names.push_back(source.name);
  return names;
}
const detail::GgufSource& source_of(const detail::GgufModel& model, std::string_view name) {
  for (const detail::GgufSource& source : model.tensors)
    if (source.name == name) return source;
  FAIL("no tensor " << name);
  return model.tensors.front();
}

const std::vector<std::string> tiny_names{
    "token_embd.weight",     "blk.0.attn_norm.weight", "blk.0.attn_q.weight",
    "blk.0.attn_k.weight",   "blk.0.attn_v.weight",    "blk.0.attn_output.weight",
    "blk.0.ffn_norm.weight", "blk.0.ffn_gate.weight",  "blk.0.ffn_up.weight",
    "blk.0.ffn_down.weight", "blk.1.attn_norm.weight", "blk.1.attn_q.weight",
    "blk.1.attn_k.weight",   "blk.1.attn_v.weight",    "blk.1.attn_output.weight",
    "blk.1.ffn_norm.weight", "blk.1.ffn_gate.weight",  "blk.1.ffn_up.weight",
    "blk.1.ffn_down.weight", "output_norm.weight"};

}  // namespace

TEST_CASE("a llama2.c checkpoint has the tensors and the metadata that llama.cpp asks for") {
  const TemporaryDirectory directory;
  const std::string path = directory.write("model.bin", engine::test::llama2c_bytes(tiny()));
  const detail::GgufModel gguf = detail::to_gguf_model(ModelFile(path));
  CHECK(names_of(gguf) == tiny_names);
  CHECK(source_of(gguf, "blk.1.ffn_up.weight").tensor == "layers.1.feed_forward.w3.weight");
  CHECK(source_of(gguf, "blk.1.ffn_down.weight").tensor == "layers.1.feed_forward.w2.weight");
  for (const detail::GgufSource& source : gguf.tensors) CHECK(source.interleaved_heads == 0);

  const auto number = [](std::uint32_t value) { return GgufValue(value); };
  const std::vector<GgufField> expected{
      {"general.architecture", GgufValue("llama")},
      {"general.name", GgufValue("model.bin")},
      {"llama.vocab_size", number(11)},
      {"llama.context_length", number(20)},
      {"llama.embedding_length", number(16)},
      {"llama.block_count", number(2)},
      {"llama.feed_forward_length", number(24)},
      {"llama.attention.head_count", number(4)},
      {"llama.attention.head_count_kv", number(2)},
      {"llama.attention.key_length", number(4)},
      {"llama.attention.value_length", number(4)},
      {"llama.rope.dimension_count", number(4)},
      {"llama.attention.layer_norm_rms_epsilon", GgufValue(1e-5f)},
      {"llama.rope.freq_base", GgufValue(10000.0f)},
      {"tokenizer.ggml.model", GgufValue("no_vocab")}};
  const auto fields = gguf.metadata.fields();
  CHECK(std::vector<GgufField>(fields.begin(), fields.end()) == expected);
  const ModelConfig read = config_from_gguf(gguf.metadata);
  CHECK(read.head_layout().kv_heads == 2);
  CHECK(read.attention.rotary->pairing == Rotary::Pairing::interleaved);

  const TemporaryDirectory untied;
  const detail::GgufModel two = detail::to_gguf_model(
      ModelFile(untied.write("model.bin", engine::test::llama2c_bytes(tiny(false)))));
  CHECK(source_of(two, "output.weight").tensor == "output.weight");
}

TEST_CASE("a model of transformers has the same tensors, queries and keys interleaved") {
  const HuggingFace files;
  const detail::GgufModel gguf = files.gguf();
  CHECK(names_of(gguf) == tiny_names);
  for (const detail::GgufSource& source : gguf.tensors) {
    const bool query = source.name.find("attn_q.") != source.name.npos,
               key = source.name.find("attn_k.") != source.name.npos;
    CHECK(source.interleaved_heads == (query ? 4 : key ? 2 : 0));
  }
  CHECK(source_of(gguf, "blk.1.ffn_up.weight").tensor == "model.layers.1.mlp.up_proj.weight");
  CHECK(source_of(gguf, "blk.0.ffn_norm.weight").tensor ==
        "model.layers.0.post_attention_layernorm.weight");
  CHECK(gguf.metadata.get<double>("llama.rope.freq_base") == 10000);
  CHECK(files.gguf({{"rope_theta", nullptr}}).metadata.get<double>("llama.rope.freq_base") ==
        10000);
  CHECK(files.gguf({{"rope_theta", 5e5}}).metadata.get<double>("llama.rope.freq_base") == 5e5);
  CHECK(files.gguf({{"model_type", "mistral"}})
            .metadata.get<std::string_view>("general.architecture") == "llama");
  CHECK(source_of(HuggingFace(tiny(false)).gguf(), "output.weight").tensor == "lm_head.weight");
  CHECK(detail::to_gguf_model(ModelFile(files.path() + "/"))
            .metadata.get<std::string_view>("general.name") ==
        files.path().substr(files.path().rfind('/') + 1));
}

TEST_CASE("the unembedding of a tied model is left out where the file repeats it") {
  auto model = tiny();
  model.tensors.insert_or_assign("lm_head.weight", model.tensors.at("model.embed_tokens.weight"));
  CHECK(names_of(HuggingFace(model).gguf()) == tiny_names);
}

TEST_CASE("Qwen2's halves stay apart, and biases have their names") {
  auto model = tiny();
  for (const char* name : {"q_proj", "k_proj", "v_proj"})
    for (const char* layer : {"0", "1"}) {
      const std::string stem = message("model.layers.", layer, ".self_attn.", name);
      model.tensors.insert_or_assign(stem + ".bias",
                                     Matrix<float>(1, model.tensors.at(stem + ".weight").rows()));
    }
  const HuggingFace files(model);
  const detail::GgufModel qwen2 = files.gguf({{"model_type", "qwen2"}});
  CHECK(qwen2.metadata.get<std::string_view>("general.architecture") == "qwen2");
  CHECK(qwen2.metadata.get<Index>("qwen2.embedding_length") == 16);
  CHECK(source_of(qwen2, "blk.1.attn_q.bias").tensor == "model.layers.1.self_attn.q_proj.bias");
  for (const detail::GgufSource& source : qwen2.tensors) CHECK(source.interleaved_heads == 0);
  CHECK(source_of(files.gguf(), "blk.1.attn_q.bias").interleaved_heads == 4);
}

TEST_CASE("scaled rotary positions are fields, or factors of frequencies") {
  const HuggingFace files;
  const detail::GgufModel linear =
      files.gguf({{"rope_scaling", {{"type", "linear"}, {"factor", 2.0}}}});
  CHECK(linear.metadata.get<std::string_view>("llama.rope.scaling.type") == "linear");
  CHECK(linear.metadata.get<double>("llama.rope.scaling.factor") == 2);

  const detail::Llama3Scaling llama3_scaling{.factor = 8, .low = 1, .high = 4, .original = 1000};
  const Json scaling{{"rope_type", "llama3"},
                     {"factor", 8.0},
                     {"low_freq_factor", 1.0},
                     {"high_freq_factor", 4.0},
                     {"original_max_position_embeddings", 1000}};
  for (const char* member : {"rope_scaling", "rope_parameters"}) {
    const detail::GgufModel llama3 = files.gguf({{member, scaling}});
    const auto factors = detail::rope_factors(4, 10000, llama3_scaling);
    CHECK(source_of(llama3, "rope_freqs.weight").values ==
          std::vector<float>(factors.begin(), factors.end()));
    CHECK(llama3.metadata.find("llama.rope.scaling.type") == nullptr);
  }
  const auto factors = detail::rope_factors(64, 10000, llama3_scaling);
  CHECK(factors.size() == 32);
  CHECK(factors.front() == 1);
  CHECK(factors.back() == 8);
}

TEST_CASE("what llama.cpp would not run as it is meant is refused") {
  const HuggingFace files;
  const auto unsupported = [&](const Json& changes, const char* words) {
    CHECK_THAT(files.error(changes, ErrorCode::unsupported).message(), Contains(words));
  };
  unsupported({{"model_type", "gemma2"}},
              "architecture gemma2 is not written as GGUF. What is: GGUF files, llama2.c "
              "checkpoints, and models of");
  unsupported({{"model_type", nullptr}}, "a model of unknown architecture is not written");
  unsupported({{"hidden_act", "gelu"}}, "silu");
  unsupported({{"partial_rotary_factor", 0.5}}, "rotates 2 of a head's 4 coordinates");
  unsupported({{"rope_scaling", {{"rope_type", "yarn"}, {"factor", 2.0}}}}, "yarn");
  unsupported({{"rope_scaling", {{"rope_type", "dynamic"}, {"factor", 2.0}}}}, "dynamic");
  unsupported({{"model_type", "qwen2"},
               {"rope_scaling",
                {{"rope_type", "llama3"},
                 {"factor", 8.0},
                 {"low_freq_factor", 1.0},
                 {"high_freq_factor", 4.0},
                 {"original_max_position_embeddings", 1000}}}},
              "which llama.cpp does not for qwen2");
  unsupported({{"num_hidden_layers", 1}}, "tensor model.layers.1.");
  const auto corrupt = [&](const Json& changes, const char* words) {
    CHECK_THAT(files.error(changes, ErrorCode::corrupt).message(), Contains(words));
  };
  corrupt({{"num_hidden_layers", 3}}, "has no tensor model.layers.2.input_layernorm.weight");
  corrupt({{"tie_word_embeddings", false}}, "has no tensor lm_head.weight");
  corrupt({{"head_dim", 8}}, "does not have the rows of 4 heads of 8");
  corrupt({{"rms_norm_eps", nullptr}}, "epsilon");
  corrupt({{"max_position_embeddings", nullptr}}, "context");
  corrupt({{"rope_scaling", {{"rope_type", "llama3"}, {"factor", 8.0}}}},
          "does not say low_freq_factor");
}

TEST_CASE("the vocabulary comes from the tokenizer of the model, or from the one that is named") {
  const HuggingFace files;
  const auto model_of = [](const detail::GgufModel& gguf) {
    return std::string(
        gguf.metadata.get<std::string_view>("tokenizer.ggml.model").value_or("none"));
  };
  std::string tokens(4, '\0');
  for (int i = 0; i < 11; ++i)
    tokens += std::string(4, '\0') + test::bytes_of<std::int32_t>({1}) + char('a' + i);
  const std::string named = files.write("tok.bin", tokens);
  CHECK(model_of(files.gguf()) == "no_vocab");
  CHECK(model_of(detail::to_gguf_model(ModelFile(files.path()), named)) == "llama");
  files.write("tokenizer.json",
              R"({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
    "model": {"vocab": {"a": 0, "b": 1}, "merges": []}})");
  CHECK(model_of(files.gguf()) == "gpt2");
  CHECK(files.gguf().metadata.get<std::vector<std::string_view>>("tokenizer.ggml.tokens")->size() ==
        11);
  CHECK(model_of(detail::to_gguf_model(ModelFile(files.path()), named)) == "llama");
}
