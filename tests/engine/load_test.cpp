// One model in every layout that the engine reads.
#include "engine/load.hpp"

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
    check_equal(logits_of_file(directory.write("model.bin", llama2c_bytes(model))), expected, 0);
    const TemporaryDirectory fp32, half, brain;
    write_hugging_face(fp32, model);
    write_hugging_face<cafeq::fp16>(half, model);
    write_hugging_face<cafeq::bf16>(brain, model);
    for (const auto* files : {&fp32, &half, &brain})
      check_equal(logits_of_file(files->path()), expected, 1e-5);
  }
}

TEST_CASE("the order of the rows of queries and keys matters") {
  const TinyModel model = tiny(true);
  const TemporaryDirectory directory;
  write_hugging_face(directory, model);
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
  write_hugging_face(directory, moved);
  check_equal(logits_of_file(directory.path()), logits_of(qwen.model(), tokens), 1e-5);
}

TEST_CASE("weights become what is asked for as they are loaded") {
  const TinyModel model = tiny(true);
  const TemporaryDirectory directory;
  const cafeq::ModelFile file(directory.write("model.bin", llama2c_bytes(model)));
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
    write_hugging_face(directory, model, changes);
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
    write_hugging_face(directory, without);
    CHECK_THAT(error_of([&] { load_model(cafeq::ModelFile(directory.path())); }).message(),
               Contains(why) && Contains(directory.path()));
  }
  TinyModel wide = model;
  wide.tensors.at("model.norm.weight") = Matrix<float>(1, 17);
  const TemporaryDirectory directory;
  write_hugging_face(directory, wide);
  CHECK_THAT(error_of([&] { load_model(cafeq::ModelFile(directory.path())); }).message(),
             Contains("model.norm.weight has 17 entries, expected 16"));
}
