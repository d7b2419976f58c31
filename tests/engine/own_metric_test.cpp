#include "engine/own_metric.hpp"

#include "support/catch.hpp"
#include "support/error_of.hpp"
#include "tiny_model.hpp"

using namespace engine;
using namespace engine::test;
using cafeq::GramFile;
using cafeq::GramKind;
using cafeq::test::error_of;

namespace {

struct ModelDirectory : TemporaryDirectory {
  ModelDirectory() { write_hugging_face(*this, tiny_model()); }
};

constexpr MetricTexts few{.count = 3, .length = 8, .seed = 5};

std::string written_by(const TemporaryDirectory& model, const MetricTexts& wanted,
                       cafeq::ExecutorRef threads) {
  const TemporaryDirectory out;
  metric_maker(model.path(), wanted, threads).make(out / "metric", {});
  return out.read("metric");
}

}  // namespace

TEST_CASE("a metric of a model's own texts has what every matrix of its layers reads") {
  const ModelDirectory model;
  const TemporaryDirectory out;
  for (const bool random : {false, true}) {
    MetricTexts wanted = few;
    wanted.random = random;
    const auto maker = metric_maker(model.path(), wanted, {});
    CHECK(maker.inputs.size() == 8);
    CHECK(maker.memory > 4 * 4000);  // of the weights alone
    std::vector<std::string> stages;
    maker.make(out / "metric", [&](std::string_view what, double done, double all) {
      if (stages.empty() || stages.back() != what) stages.emplace_back(what);
      CHECK(done <= all);
    });
    CHECK(stages == std::vector<std::string>{"writing texts", "reading them"});

    const GramFile file(out / "metric");
    CHECK(file.model() == cafeq::fingerprint_of(cafeq::ModelFile(model.path())));
    for (const Index layer : {0, 1})
      for (const auto& [name, dim] : {std::pair<std::string, Index>{"self_attn.q_proj", 16},
                                      {"self_attn.k_proj", 16},
                                      {"self_attn.v_proj", 16},
                                      {"self_attn.o_proj", 16},
                                      {"mlp.gate_proj", 16},
                                      {"mlp.up_proj", 16},
                                      {"mlp.down_proj", 24}}) {
        const auto* input = file.find(cafeq::message("model.layers.", layer, ".", name, ".weight"));
        REQUIRE(input != nullptr);
        CHECK(input->dim == dim);
        CHECK(input->count == 24);
        CHECK(file.load(*input).square(0) > 0);
      }
    CHECK(file.find("model.embed_tokens.weight") == nullptr);
  }
}

TEST_CASE("a metric is the same bytes for any number of threads, and another one by the seed") {
  const ModelDirectory model;
  cafeq::ThreadPool threads(3);
  for (const GramKind kind : {GramKind::whole, GramKind::diagonal}) {
    MetricTexts wanted = few;
    wanted.kind = kind;
    const std::string bytes = written_by(model, wanted, {});
    CHECK(written_by(model, wanted, threads) == bytes);
    wanted.seed = 6;
    CHECK(written_by(model, wanted, {}) != bytes);
  }
}

TEST_CASE("texts of a metric begin with the first token and end where the context does") {
  const Model model = tiny_model().model();
  const Transformer transformer(model, {});
  for (const bool random : {false, true}) {
    const auto texts =
        metric_texts(transformer, 1, {.random = random, .count = 4, .length = 100, .seed = 2});
    REQUIRE(texts.size() == 4);
    for (const Tokens& text : texts) {
      CHECK(text.size() == 20);
      CHECK(text[0] == 1);
      for (const Token token : text) CHECK(Index(token) < model.config.vocabulary);
    }
    CHECK(texts[0] != texts[1]);
  }
}

TEST_CASE("a model that the engine cannot run has no metric of its own") {
  const TemporaryDirectory model;
  write_hugging_face(model, tiny_model());
  std::string config = model.read("config.json");
  const auto at = config.find("llama");
  REQUIRE(at != config.npos);
  model.write("config.json", config.replace(at, 5, "zebra"));
  CHECK(error_of([&] { metric_maker(model.path(), few, {}); }).code() ==
        cafeq::ErrorCode::unsupported);
}
