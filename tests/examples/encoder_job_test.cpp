#include "accuracy/encoder_job.hpp"

#include <filesystem>

#include "cafeq/core/thread_pool.hpp"
#include "io/temporary_directory.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using namespace cafeq::example;
using test::error_of;

namespace {

/// The published model, loaded once, or nothing where it was not fetched.
const SentenceModel* published() {
  static const std::optional<SentenceModel> model = [] {
    const std::string directory = default_model_directory();
    return std::filesystem::exists(directory + "/model.json")
               ? std::optional(load_sentence_model(directory))
               : std::nullopt;
  }();
  return model ? &*model : nullptr;
}

/// Whether a case that needs the published model must be left out, with a word about it.
bool skipped(bool heavy) {
  if (published() == nullptr) {
    WARN("skipped: no model in \"" << default_model_directory()
                                   << "\"; run scripts/fetch-model or set CAFEQ_MODEL_DIR");
    return true;
  }
  if (heavy && !test::optimized) {
    WARN("skipped: takes too long in this build");
    return true;
  }
  return false;
}

ExecutorRef pool() {
  static ThreadPool threads(2);
  return threads;
}

constexpr double slack = 1.05;

/// The geometric mean of the error over the ten matrices that the targets name: all but the
/// residual's `dense`.
template <class R>
double mean_error(const R& recipe) {
  EncoderWeights weights = published()->weights;
  Results results;
  for (const auto& [name, W] : weights.matrices()) {
    example::MatrixResult row;
    row.name = name;
    row.relative_error = quantize(*W, recipe, pool()).error(*W, pool());
    results.matrices.push_back(row);
  }
  return results.mean_error("", "", per_row, 0).value();
}

template <int Bits>
void check_cheap_recipes(double rtn, double mse, double hadamard, double fast, double fast_group,
                         double fast_midrise) {
  INFO(Bits << " bits");
  CHECK(mean_error(recipes::rtn<Bits>{}) ==
        Approx(rtn).epsilon(slack - 1));  // what is compared with must not be worse than it is
  CHECK(mean_error(recipes::mse<Bits>{}) < slack * mse);
  CHECK(mean_error(recipes::hadamard<Bits>{}) < slack * hadamard);
  CHECK(mean_error(recipes::fast<Bits>{.group = per_row}) < slack * fast);
  CHECK(mean_error(recipes::fast<Bits>{}) < slack * fast_group);
  CHECK(mean_error(recipes::fast<Bits, Midrise<Bits>>{}) < slack * fast_midrise);
}

template <int Bits>
double learned_error(const char* name) {
  EncoderWeights weights = published()->weights;
  const Matrix<float>& W = weights.matrix(name);
  return quantize(W, recipes::learned<Bits>{.max_block = 64}, pool()).error(W, pool());
}

/// The one result of that name and number of bits.
const PairResult& pair_of(const Results& results, const std::string& name, int bits) {
  const auto found = std::find_if(results.pairs.begin(), results.pairs.end(),
                                  [&](const auto& p) { return p.name == name && p.bits == bits; });
  REQUIRE(found != results.pairs.end());
  return *found;
}

/// An encoder so small that a whole job takes no time in any build.
SentenceModel tiny() {
  using namespace example::detail;
  EncoderWeights weights;
  weights.embeddings = generate("embeddings", 50, 8, 0.2);
  weights.inverse_timescales = {1.0f, 0.1f, 0.01f, 0.001f};
  weights.dense = generate_dense("dense", 16, 8, 0.3, 0.1);
  for (const Index in : {8, 16})
    weights.layers.push_back(
        {generate_norm("norm", in, 1, 0.1), generate_dense("qkv", 3 * in, in, 0.3, 0.1),
         generate_dense("o", 16, in, 0.3, 0.1), generate_norm("norm", 16, 1, 0.1),
         generate_dense("ffn1", 24, 16, 0.3, 0.1), generate_dense("ffn2", 16, 24, 0.3, 0.1)});
  weights.tanh = generate_dense("tanh", 16, 16, 0.3, 0.1);
  check_weights(weights);
  return {"tiny", std::move(weights), [](std::string_view sentence) {
            Tokens tokens;
            for (const Token token : builtin_tokenize(sentence)) tokens.push_back(token % 50);
            return tokens;
          }};
}

const SentenceModel& builtin() {
  static const SentenceModel model = builtin_sentence_model();
  return model;
}

}  // namespace

TEST_CASE("Cheap recipes meet their figures on the published model") {
  if (skipped(true)) return;
  check_cheap_recipes<2>(.388, .1226, .1166, .1152, .1031, .1116);
  check_cheap_recipes<3>(.0700, .0389, .0361, .0357, .0279, .0325);
  check_cheap_recipes<4>(.01525, .0116, .01055, .0104, .00687, .0086);
}

TEST_CASE("The learned recipe meets its figures on a layer of the published model") {
  if (skipped(true)) return;
  CHECK(learned_error<2>("layer1.qkv") < slack * .075);
  CHECK(learned_error<3>("layer1.qkv") < slack * .0194);
  CHECK(learned_error<4>("layer1.qkv") < slack * .0050);
}

TEST_CASE("The learned recipe meets its figures on the embeddings of the published model") {
  if (skipped(true)) return;
  CHECK(learned_error<2>("embeddings") < slack * .090);
  CHECK(learned_error<3>("embeddings") < slack * .0266);
}

TEST_CASE("Pairs of the published model meet their figures") {
  if (skipped(true)) return;
  example::Job job(
      *published(),
      {.threads = 2, .only = {"layer0.value_output", "layer1.value_output", "layer0.query_key"}});
  const Results& results = job.run();
  CHECK(results.pairs.size() == 9);
  CHECK(results.matrices.empty());
  CHECK(results.embedding.empty());
  const auto error = [&](const char* name, int bits) {
    return pair_of(results, name, bits).product_error;
  };
  CHECK(error("layer0.value_output", 2) < slack * .115);
  CHECK(error("layer0.value_output", 3) < slack * .028);
  CHECK(error("layer0.value_output", 4) < slack * .0069);
  CHECK(error("layer1.value_output", 2) < slack * .078);
  CHECK(error("layer1.value_output", 3) < slack * .018);
  CHECK(error("layer1.value_output", 4) < slack * .0044);
  CHECK(error("layer0.query_key", 3) < slack * .042);
  for (const auto& pair : results.pairs) {
    INFO(pair.name << " " << pair.bits << " bits");
    CHECK(pair.product_error < pair.learned_only_error);
    CHECK(pair.learned_only_error < pair.mse_rtn_error);
  }
}

TEST_CASE(
    "A whole job: every matrix by every recipe, every pair, the embeddings, a file that holds it "
    "all") {
  const std::vector<int> bits{2, 4};
  example::Job job(tiny(), {.threads = 2, .bits = bits, .only = {}, .paper_steps = 3});
  const Results& results = job.run();
  CHECK(results.model == "tiny");
  CHECK(results.threads == 2);
  CHECK(results.matrices.size() == 11 * 9 * bits.size());
  CHECK(results.pairs.size() == 4 * bits.size());
  CHECK(results.embedding.size() == 3 * bits.size());
  double seconds = 0;
  for (const auto& m : results.matrices) {
    CHECK(m.bits_per_weight > m.bits);
    CHECK((m.relative_error >= 0 && m.relative_error < 1));
    seconds += m.seconds;
    // What it is compared with is RTN of the same matrix, bits and group.
    for (const auto& other : results.matrices)
      if (other.recipe == "rtn" && other.name == m.name && other.bits == m.bits &&
          other.group == m.group)
        CHECK(m.rtn_error == other.relative_error);
  }
  for (const auto& pair : results.pairs) {
    CHECK(pair.product_error <= pair.learned_only_error);
    seconds += pair.seconds;
  }
  CHECK(results.seconds > 0);
  CHECK(results.seconds <=
        seconds * (1 + 1e-9));  // what is learned once for all bits counts at each of them
  for (const int b : bits) {
    for (const Index group : {per_row, Index(64)})
      for (const char* recipe : {"rtn", "fast"})
        CHECK(results.mean_error(recipe, "affine", group, b));
    CHECK(results.mean_error("fast", "midrise", 64, b));
    for (const char* recipe : {"mse", "hadamard"})
      CHECK(results.mean_error(recipe, "affine", per_row, b));
    for (const char* recipe : {"learned", "paper"})
      CHECK(results.mean_error(recipe, "midrise", per_row, b));
  }
  for (const auto& e : results.embedding) {
    INFO(e.recipe << " " << e.bits);
    CHECK(e.bits_per_weight > e.bits);
    CHECK(e.min_cosine <= e.mean_cosine);
    CHECK(e.mean_cosine > (e.bits == 4 ? 0.9 : 0.0));
    CHECK(e.mean_cosine < 1);
  }

  CHECK(job.stored_count() == 11 * 2 * Index(bits.size()));
  const test::TemporaryDirectory directory;
  job.save(directory / "file");
  job.verify(directory / "file");
  const std::string content = directory.read("file");
  const std::string cut =
      directory.write("cut", std::string_view(content).substr(0, content.size() - 1));
  CHECK(error_of([&] { job.verify(cut); }).code() == ErrorCode::corrupt);
  CHECK(error_of([&] { job.verify(directory / "none"); }).code() == ErrorCode::io);
  // The last byte is a code or parameter of some matrix, or the padding of a row's codes, which
  // decodes alike.
  std::string changed = content;
  for (std::size_t i = changed.size() - 64; i < changed.size(); ++i)
    changed[i] = char(changed[i] ^ 0x55);
  directory.write("changed", changed);
  CHECK(error_of([&] { job.verify(directory / "changed"); }).code() == ErrorCode::corrupt);
}

TEST_CASE("Only what was asked for is done, and the pairs of the generated model gain") {
  if (!test::optimized) {
    WARN("skipped: takes too long in this build");
    return;
  }
  example::Job job(
      builtin(),
      {.threads = 2, .bits = {3}, .only = {"layer0.query_key", "layer0.o"}, .paper_steps = 0});
  const Results& results = job.run();
  CHECK(results.model == builtin().name);
  CHECK(results.embedding.empty());
  REQUIRE(results.matrices.size() == 8);
  for (const auto& m : results.matrices) {
    CHECK(m.name == "layer0.o");
    CHECK((m.rows == 512 && m.cols == 256));
    CHECK(m.relative_error <= m.rtn_error);
  }
  CHECK(results.mean_error("learned", "midrise", per_row, 3) <
        results.mean_error("fast", "affine", per_row, 3));
  REQUIRE(results.pairs.size() == 1);
  CHECK(results.pairs[0].name == "layer0.query_key");
  CHECK(results.pairs[0].kind == "query_key");
  CHECK(results.pairs[0].product_error < results.pairs[0].learned_only_error);
  CHECK(results.pairs[0].learned_only_error < results.pairs[0].mse_rtn_error);
  CHECK(job.stored_count() == 2);
}

TEST_CASE("The same seed gives the same results on any number of threads") {
  const auto run = [](Index threads, std::uint64_t seed) {
    example::Job job(tiny(), {.threads = threads,
                              .bits = {3},
                              .only = {"layer1.value_output", "layer1.qkv", "layer1.ffn1"},
                              .paper_steps = 3,
                              .seed = seed});
    const Results& results = job.run();
    std::vector<double> errors{results.pairs.at(0).product_error};
    for (const auto& m : results.matrices) errors.push_back(m.relative_error);
    return errors;
  };
  const auto expected = run(1, 5);
  CHECK(run(2, 5) == expected);
  CHECK(run(3, 5) == expected);
  CHECK(run(2, 6) != expected);
}

TEST_CASE("A matrix or pair that the model does not have is named") {
  for (const char* name : {"layer7.qkv", "layer0.up_down", "", "Embeddings"}) {
    const Error error = error_of([&] { example::Job(tiny(), {.only = {"tanh", name}}); });
    CHECK(error.code() == ErrorCode::invalid_argument);
    CHECK_THAT(error.message(), Contains(message("the model has no ", name)));
  }
}

TEST_CASE("A job without anything to do does nothing") {
  example::Job job(tiny(), {.threads = 1, .bits = {}, .only = {"tanh"}});
  CHECK(job.run().matrices.empty());
  CHECK(job.stored_count() == 0);
  const test::TemporaryDirectory directory;
  job.save(directory / "file");
  job.verify(directory / "file");
}
