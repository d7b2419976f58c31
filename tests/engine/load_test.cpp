// One model in every layout that the engine reads.
#include "engine/load.hpp"

#include "cafeq/io/gguf_file.hpp"
#include "support/catch.hpp"
#include "support/error_of.hpp"
#include "tiny_model.hpp"

using namespace engine;
using namespace engine::test;
using cafeq::ErrorCode;
using cafeq::test::error_of;

namespace {

const std::vector<Token> tokens{1, 5, 9, 0, 10, 5, 5, 2};

Matrix<float> logits_of_file(const std::string& path) {
  return logits_of(load_model(cafeq::ModelFile(path)), tokens);
}

void check_equal(const Matrix<float>& a, const Matrix<float>& b, double margin) {
  REQUIRE(a.rows() == b.rows());
  REQUIRE(a.cols() == b.cols());
  for (Index i = 0; i < a.size(); ++i)
    CHECK(double(a.data()[i]) == Approx(double(b.data()[i])).margin(margin));
}

template <class Element = float>
void write_directory(const TemporaryDirectory& directory, const TinyModel& model,
                     const Json& changes = Json::object()) {
  Json config = config_json(model.config);
  config.update(changes);
  directory.write("config.json", config.dump());
  write_safetensors<Element>(directory, half_split(model));
}

std::string write_llama2c(const TemporaryDirectory& directory, const TinyModel& model) {
  const cafeq::ModelConfig& c = model.config;
  const std::string path = directory / "model.bin";
  cafeq::Llama2cWriter writer(path, {.hidden = c.hidden,
                                     .intermediate = c.intermediate,
                                     .layers = c.layers,
                                     .heads = c.heads,
                                     .kv_heads = c.kv_heads,
                                     .vocabulary = c.vocabulary,
                                     .context = c.context,
                                     .tied_embeddings = c.tied_embeddings});
  const auto write = [&](const std::string& name, const std::string& from) {
    const Matrix<float>& m = model.tensors.at(from + ".weight");
    writer.write(name, std::as_bytes(std::span(m.data(), std::size_t(m.size()))));
  };
  write("tok_embeddings.weight", "model.embed_tokens");
  write("norm.weight", "model.norm");
  if (!c.tied_embeddings) write("output.weight", "lm_head");
  for (Index l = 0; l < c.layers; ++l)
    for (const auto& [own, name] : {std::pair("attention_norm", "input_layernorm"),
                                    {"attention.wq", "self_attn.q_proj"},
                                    {"attention.wk", "self_attn.k_proj"},
                                    {"attention.wv", "self_attn.v_proj"},
                                    {"attention.wo", "self_attn.o_proj"},
                                    {"ffn_norm", "post_attention_layernorm"},
                                    {"feed_forward.w1", "mlp.gate_proj"},
                                    {"feed_forward.w2", "mlp.down_proj"},
                                    {"feed_forward.w3", "mlp.up_proj"}})
      write(cafeq::message("layers.", l, ".", own, ".weight"),
            cafeq::message("model.layers.", l, ".", name));
  for (const char* table : {"freq_cis_real", "freq_cis_imag"}) {
    const std::vector<float> angles(std::size_t(c.context * c.head_dim / 2));
    writer.write(table, std::as_bytes(std::span(angles)));
  }
  writer.commit();
  return path;
}

TinyModel tiny(bool tied) {
  auto c = tiny_config();
  c.tied_embeddings = tied;
  return tiny_model(c);
}

}  // namespace

TEST_CASE("a llama2.c checkpoint and directories of all kinds give the same logits") {
  for (const bool tied : {true, false}) {
    CAPTURE(tied);
    const TinyModel model = tiny(tied);
    const Matrix<float> expected = logits_of(model.model(), tokens);
    const TemporaryDirectory directory;
    check_equal(logits_of_file(write_llama2c(directory, model)), expected, 0);
    const TemporaryDirectory fp32, half, brain;
    write_directory(fp32, model);
    write_directory<cafeq::fp16>(half, model);
    write_directory<cafeq::bf16>(brain, model);
    for (const auto* files : {&fp32, &half, &brain})
      check_equal(logits_of_file(files->path()), expected, 1e-5);
  }
}

TEST_CASE("the order of the rows of queries and keys matters") {
  const TinyModel model = tiny(true);
  const TemporaryDirectory directory;
  write_directory(directory, model);
  write_safetensors(directory, model.tensors);  // rows as llama2.c has them
  const Matrix<float> wrong = logits_of_file(directory.path()),
                      right = logits_of(model.model(), tokens);
  double largest = 0;
  for (Index i = 0; i < right.size(); ++i)
    largest = std::max(largest, double(std::abs(wrong.data()[i] - right.data()[i])));
  CHECK(largest > 0.1);
}

TEST_CASE("norms are found by what they are called in each family") {
  auto c = tiny_config();
  c.architecture = "qwen3";
  const TinyModel qwen = tiny_model(c, {.biases = true, .head_norms = true});
  const TemporaryDirectory directory;
  // Norms of heads have the order of the rows that they go with.
  TinyModel moved = qwen;
  for (auto& [name, m] : moved.tensors)
    if (name.find("q_norm") != name.npos || name.find("k_norm") != name.npos ||
        name.find("q_proj.bias") != name.npos || name.find("k_proj.bias") != name.npos) {
      const Matrix<float> before = m;
      for (Index i = 0; i < m.cols(); ++i) m(0, i / 4 * 4 + i % 4 / 2 + i % 2 * 2) = before(0, i);
    }
  write_directory(directory, moved);
  check_equal(logits_of_file(directory.path()), logits_of(qwen.model(), tokens), 1e-5);
}

TEST_CASE("weights become what is asked for as they are loaded") {
  const TinyModel model = tiny(true);
  const TemporaryDirectory directory;
  const cafeq::ModelFile file(write_llama2c(directory, model));
  const Matrix<float> exact = logits_of(load_model(file), tokens);
  const Matrix<float> packed = logits_of(load_model(file, "fast4"), tokens);
  double error = 0, norm = 0;
  for (Index i = 0; i < exact.size(); ++i) {
    error += std::pow(double(packed.data()[i]) - double(exact.data()[i]), 2);
    norm += std::pow(double(exact.data()[i]), 2);
  }
  CHECK(error > 0);
  CHECK(error < 0.3 * norm);
}

TEST_CASE("models that cannot be run are refused, and the message says why") {
  const TinyModel model = tiny(true);
  const auto refusal = [&](const Json& changes, ErrorCode code) {
    const TemporaryDirectory directory;
    write_directory(directory, model, changes);
    const auto error = error_of([&] { load_model(cafeq::ModelFile(directory.path())); });
    CHECK(error.code() == code);
    return error.message();
  };
  using ErrorCode::corrupt, ErrorCode::unsupported;
  CHECK_THAT(refusal({{"model_type", "mamba"}}, unsupported),
             Contains("architecture mamba is not run; what is: llama"));
  CHECK_THAT(refusal({{"model_type", nullptr}}, unsupported), Contains("needs config.json"));
  CHECK_THAT(refusal({{"hidden_act", "relu"}}, unsupported), Contains("SiLU or GELU"));
  CHECK_THAT(refusal({{"num_hidden_layers", 3}}, corrupt), Contains("has no query of layer 2"));
  CHECK_THAT(refusal({{"num_hidden_layers", 0}}, corrupt), Contains("does not say its layers"));
  CHECK_THAT(refusal({{"intermediate_size", 23}}, corrupt),
             Contains("the gate of layer 0 is 24 x 16, its configuration says 23 x 16"));
  CHECK_THAT(refusal({{"head_dim", 3}}, corrupt), Contains("rotary"));

  for (const auto& [missing, why] :
       {std::pair("model.layers.1.mlp.up_proj.weight", "has no up of layer 1"),
        {"model.layers.1.input_layernorm.weight", "layer 1 has no input_layernorm"},
        {"model.norm.weight", "has no model.norm"},
        {"model.embed_tokens.weight", "has no embedding"}}) {
    const TemporaryDirectory directory;
    TinyModel without = model;
    without.tensors.erase(missing);
    write_directory(directory, without);
    CHECK_THAT(error_of([&] { load_model(cafeq::ModelFile(directory.path())); }).message(),
               Contains(why) && Contains(directory.path()));
  }
  TinyModel wide = model;
  wide.tensors.at("model.norm.weight") = Matrix<float>(1, 17);
  const TemporaryDirectory directory;
  write_directory(directory, wide);
  CHECK_THAT(error_of([&] { load_model(cafeq::ModelFile(directory.path())); }).message(),
             Contains("model.norm.weight has 17 entries, expected 16"));
}
