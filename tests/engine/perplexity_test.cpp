#include "engine/perplexity.hpp"

#include <filesystem>
#include <fstream>

#include "cafeq/io/read_vocabulary.hpp"
#include "engine/tokenizer.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"
#include "tiny_model.hpp"

using namespace engine;
using namespace engine::test;

TEST_CASE("every token but the first of each text counts once") {
  const TinyModel tiny = tiny_model();
  const Model model = load_model(tiny.checkpoint());
  const std::vector<std::vector<Token>> texts{{1, 4, 7, 2}, {}, {1}, {1, 9}};
  const Perplexity result = measure_perplexity(model, texts, {});
  CHECK(result.predicted == 4);
  double expected = 0;
  for (const auto& text : texts)
    for (std::size_t n = 1; n < text.size(); ++n) {
      const Matrix all =
          logits(tiny.checkpoint(), {text.begin(), text.begin() + std::ptrdiff_t(n)});
      double sum = 0;
      for (const float logit : all.row(n - 1)) sum += std::exp(double(logit));
      expected -= std::log(std::exp(double(all.row(n - 1)[text[n]])) / sum);
    }
  CHECK(result.negative_log_likelihood == Approx(expected).epsilon(1e-6));
  CHECK(result.value() == Approx(std::exp(expected / 4)).epsilon(1e-6));
  CHECK_THROWS_WITH(measure_perplexity(model, {{1, 11}}, {}), Contains("token 11"));
}

TEST_CASE("a trained model has the same perplexity in both layouts") {
  const std::filesystem::path data = CAFEQ_SCRIPTS_DIR "/../../shared/data";
  if (!exists(data / "stories260K.bin") || !exists(data / "tok512.bin") ||
      !exists(data / "tinystories_200.jsonl")) {
    WARN("skipped: stories260K.bin, tok512.bin or tinystories_200.jsonl is not in " << data);
    return;
  }
  const Checkpoint checkpoint = open_llama2c(data / "stories260K.bin");
  const Tokenizer tokenizer(
      *cafeq::read_vocabulary(cafeq::ModelFile(data / "stories260K.bin"), data / "tok512.bin"));
  std::vector<std::vector<Token>> texts;
  std::ifstream file(data / "tinystories_200.jsonl");
  for (std::string line;
       texts.size() < (cafeq::test::optimized ? 8 : 1) && std::getline(file, line);) {
    texts.push_back(tokenizer.encode(Json::parse(line).get<std::string>()));
    texts.back().resize(std::min<std::size_t>(texts.back().size(), 512));
  }
  cafeq::ThreadPool threads(2);
  const Perplexity expected = measure_perplexity(load_model(checkpoint), texts, threads);
  CHECK(expected.value() == Approx(4).margin(0.8));

  // The same weights with the names, files and rows of a directory.
  TinyModel model = tiny_model(checkpoint.config);
  for (auto& [name, m] : model.tensors) m = checkpoint.read(name, m.rows, m.cols);
  const TemporaryDirectory directory;
  write_sharded(directory, model, "F32");
  const Perplexity result =
      measure_perplexity(load_model(open_hugging_face(directory.path())), texts, threads);
  CHECK(result.predicted == expected.predicted);
  CHECK(result.value() == Approx(expected.value()).epsilon(1e-6));
}
