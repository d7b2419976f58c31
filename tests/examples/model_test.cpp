#include "encoder/model.hpp"

#include <set>

#include "encoder/sentences.hpp"
#include "io/temporary_directory.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using namespace cafeq::example;
using test::error_of;

namespace {

const SentenceModel& published_model() {
  static const SentenceModel model = builtin_sentence_model();
  return model;
}

double similarity(const SentenceModel& model, std::string_view a, std::string_view b) {
  return cosine(encode(model.weights, model.tokenize(a)), encode(model.weights, model.tokenize(b)));
}

/// Every eighth sentence: enough to see what kind of numbers come out, few enough for a build with
/// sanitizers.
std::vector<std::string_view> some_sentences() {
  std::vector<std::string_view> some;
  for (std::size_t i = 0; i < sentences.size(); i += 8) some.push_back(sentences[i]);
  return some;
}

struct Moments {
  double deviation;
  double kurtosis;
};

Moments moments(const Matrix<float>& m) {
  double second = 0, fourth = 0;
  for (Index i = 0; i < m.size(); ++i) {
    const double square = double(m.data()[i]) * double(m.data()[i]);
    second += square / double(m.size());
    fourth += square * square / double(m.size());
  }
  return {std::sqrt(second), fourth / (second * second)};
}

}  // namespace

TEST_CASE("sentences are many, distinct and of all lengths") {
  CHECK(sentences.size() >= 200);
  CHECK(std::set<std::string_view>(sentences.begin(), sentences.end()).size() == sentences.size());
  std::size_t shortest = 1000, longest = 0;
  for (const auto sentence : sentences) {
    const std::size_t words = builtin_tokenize(sentence).size();
    shortest = std::min(shortest, words);
    longest = std::max(longest, words);
  }
  CHECK(shortest == 1);
  CHECK(longest > 35);
}

TEST_CASE("words become tokens whatever their case and punctuation") {
  CHECK(builtin_tokenize("The cat, the CAT!").size() == 4);
  CHECK(builtin_tokenize("The cat") == builtin_tokenize("  the...CAT? "));
  CHECK(builtin_tokenize("cat") != builtin_tokenize("dog"));
  CHECK(builtin_tokenize("caf\u00e9").size() == 1);
  CHECK(builtin_tokenize(" ,.!").empty());
  for (const Token token : builtin_tokenize("any of these 42 words"))
    CHECK((token >= 0 && token < builtin_tokens));
}

TEST_CASE("the generated model has the published shapes, heavy tails and outlying channels") {
  if (cafeq::test::sanitized) {
    WARN("left out: takes minutes under a sanitizer");
    return;
  }
  EncoderWeights w = published_model().weights;
  const auto shape = [&](const char* name) {
    return std::pair(w.matrix(name).rows(), w.matrix(name).cols());
  };
  using Shape = std::pair<Index, Index>;
  CHECK(shape("embeddings") == Shape(8002, 256));
  CHECK(shape("dense") == Shape(512, 256));
  CHECK(shape("layer0.qkv") == Shape(768, 256));
  CHECK(shape("layer0.o") == Shape(512, 256));
  CHECK(shape("layer0.ffn1") == Shape(1536, 512));
  CHECK(shape("layer0.ffn2") == Shape(512, 1536));
  CHECK(shape("layer1.qkv") == Shape(1536, 512));
  CHECK(shape("layer1.o") == Shape(512, 512));
  CHECK(shape("tanh") == Shape(512, 512));
  CHECK(w.layers[0].head_dim() == 64);
  CHECK(w.layers[1].head_dim() == 128);
  CHECK(moments(w.matrix("embeddings")).kurtosis == Approx(5.7).margin(0.5));
  CHECK(moments(w.matrix("layer1.ffn1")).kurtosis > 6);

  Index loud = 0;  // columns of ffn1 that stand out
  for (Index j = 0; j < 512; ++j) {
    double squares = 0;
    for (Index i = 0; i < 1536; ++i) squares += std::pow(double(w.matrix("layer0.ffn1")(i, j)), 2);
    if (std::sqrt(squares / 1536) > 2 * moments(w.matrix("layer0.ffn1")).deviation) ++loud;
  }
  CHECK(loud >= 2);
  CHECK(loud <= 4);
}

TEST_CASE("the generated model is the same every time") {
  if (cafeq::test::sanitized) {
    WARN("left out: takes minutes under a sanitizer");
    return;
  }
  EncoderWeights first = published_model().weights;
  EncoderWeights second = builtin_weights();
  for (const auto& [name, matrix] : first.matrices())
    CHECK(std::equal(matrix->data(), matrix->data() + matrix->size(), second.matrix(name).data()));
}

TEST_CASE("the generated model's activations are of sensible size") {
  if (cafeq::test::sanitized) {
    WARN("left out: takes minutes under a sanitizer");
    return;
  }
  const auto tokens = published_model().tokenize_all(some_sentences());
  const Matrix<float> logits = encode_logits(published_model().weights, tokens);
  double squares = 0;
  Index saturated = 0;
  for (Index i = 0; i < logits.size(); ++i) {
    REQUIRE(std::isfinite(logits.data()[i]));
    squares += double(logits.data()[i]) * double(logits.data()[i]) / double(logits.size());
    if (std::abs(logits.data()[i]) > 3) ++saturated;
  }
  CHECK(std::sqrt(squares) > 0.5);
  CHECK(std::sqrt(squares) < 2);
  CHECK(double(saturated) < 0.05 * double(logits.size()));
}

TEST_CASE("the generated model tells sentences apart by their words") {
  if (cafeq::test::sanitized) {
    WARN("left out: takes minutes under a sanitizer");
    return;
  }
  const auto& model = published_model();
  const char* sentence = "The old bridge was closed for repairs until the end of spring.";
  const double near =
      similarity(model, sentence, "The old bridge was closed for repairs until the end of winter.");
  const double far = similarity(
      model, sentence, "My cat prefers to sleep on top of a warm refrigerator, doesn't she?");
  CHECK(near > 0.8);
  CHECK(far < near - 0.2);
  CHECK(similarity(model, sentence, sentence) == Approx(1));
}

TEST_CASE("the directory of the model follows the environment") {
  const auto with = [](const char* chosen, const char* cache, const char* home) {
    const auto set = [](const char* name, const char* value) {
      value != nullptr ? ::setenv(name, value, 1) : ::unsetenv(name);
    };
    const auto get = [](const char* name) {
      const char* value = std::getenv(name);
      return value != nullptr ? std::optional<std::string>(value) : std::nullopt;
    };
    const auto before = std::array{get("CAFEQ_MODEL_DIR"), get("XDG_CACHE_HOME"), get("HOME")};
    set("CAFEQ_MODEL_DIR", chosen);
    set("XDG_CACHE_HOME", cache);
    set("HOME", home);
    const std::string directory = default_model_directory();
    set("CAFEQ_MODEL_DIR", before[0] ? before[0]->c_str() : nullptr);
    set("XDG_CACHE_HOME", before[1] ? before[1]->c_str() : nullptr);
    set("HOME", before[2] ? before[2]->c_str() : nullptr);
    return directory;
  };
  CHECK(with("/m", "/c", "/h") == "/m");
  CHECK(with("", "/c", "/h") == "/c/cafeq/model-embeddings-en-0.2.0");
  CHECK(with(nullptr, "relative", "/h") == "/h/.cache/cafeq/model-embeddings-en-0.2.0");
  CHECK(with(nullptr, nullptr, "/h") == "/h/.cache/cafeq/model-embeddings-en-0.2.0");
  CHECK(with(nullptr, nullptr, nullptr).empty());
}

TEST_CASE("a directory without a model is an error") {
  const test::TemporaryDirectory directory;
  CHECK(error_of([&] { load_sentence_model(directory.path()); }).code() == ErrorCode::io);
}

TEST_CASE("the published model judges sentences as people do") {
  if (cafeq::test::sanitized) {
    WARN("left out: takes minutes under a sanitizer");
    return;
  }
  const std::string directory = default_model_directory();
  if (!std::filesystem::exists(directory + "/model.json")) {
    WARN("skipped: no model in \"" << directory
                                   << "\"; run scripts/fetch-model or set CAFEQ_MODEL_DIR");
    return;
  }
  const SentenceModel model = load_sentence_model(directory);
  CHECK(model.weights.embeddings.rows() == 8002);
  CHECK(model.tokenize("I like it.") == Tokens{16, 60, 21, 6});

  CHECK(similarity(model, "How old are you?", "What is your age?") > 0.8);
  CHECK(similarity(model, "What time does the last train leave?",
                   "When is the final train of the day?") > 0.6);
  CHECK(similarity(model, "A man is slicing an onion.",
                   "A woman is chopping vegetables in a kitchen.") > 0.4);
  CHECK(similarity(model, "How old are you?", "Copper conducts heat better than steel.") < 0.25);
  CHECK(similarity(model, "The battery loses capacity each year.", "She laughed at the joke.") <
        0.25);

  // Most pairs of sentences have nothing to do with each other.
  const auto vectors = encode_all(model.weights, model.tokenize_all(some_sentences()));
  double sum = 0;
  Index pairs = 0;
  for (Index i = 0; i < vectors.rows(); ++i)
    for (Index j = 0; j < i; ++j, ++pairs) sum += cosine(vectors.row(i), vectors.row(j));
  CHECK(sum / double(pairs) < 0.25);
}
