#include "demo/job.hpp"

#include <filesystem>

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
    return std::filesystem::exists(directory + "/model.json") ? std::optional(load_sentence_model(directory)) : std::nullopt;
  }();
  return model ? &*model : nullptr;
}

/// Whether a case that needs the published model must be left out, with a word about it.
bool skipped(bool heavy) {
  if (published() == nullptr) {
    WARN("skipped: no model in \"" << default_model_directory() << "\"; run scripts/fetch-model or set CAFEQ_MODEL_DIR");
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

/// The geometric mean of the error over the ten matrices that the targets name: all but the residual's `dense`.
template <class R>
double mean_error(const R& recipe) {
  EncoderWeights weights = published()->weights;
  Results results;
  for (const auto& [name, W] : weights.matrices()) {
    MatrixResult row;
    row.name = name;
    row.relative_error = quantize(*W, recipe, pool()).error(*W, pool());
    results.matrices.push_back(row);
  }
  return results.mean_error("", "", per_row, 0).value();
}

template <int Bits>
void check_cheap_recipes(double rtn, double mse, double hadamard, double fast, double fast_group, double fast_midrise) {
  INFO(Bits << " bits");
  CHECK(mean_error(recipes::rtn<Bits>{}) == Approx(rtn).epsilon(slack - 1));  // what is compared with must not be worse than it is
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
  const auto found = std::find_if(results.pairs.begin(), results.pairs.end(), [&](const auto& p) { return p.name == name && p.bits == bits; });
  REQUIRE(found != results.pairs.end());
  return *found;
}

SentenceModel builtin() {
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
  Job job(*published(), {.threads = 2, .only = {"layer0.value_output", "layer1.value_output", "layer0.query_key"}});
  const Results& results = job.run();
  CHECK(results.pairs.size() == 9);
  CHECK(results.matrices.empty());
  CHECK(results.embedding.empty());
  const auto error = [&](const char* name, int bits) { return pair_of(results, name, bits).product_error; };
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

TEST_CASE("A job does what was asked for, saves it and finds it again") {
  // Without optimization only what is smallest: two heads' worth of nothing heavy.
  const std::vector<int> bits = test::optimized ? std::vector<int>{2, 4} : std::vector<int>{3};
  const JobOptions options{.threads = 2, .bits = bits, .only = {"layer0.query_key", "layer0.o"}, .paper_steps = test::optimized ? 3 : 0};
  if (!test::optimized) {
    WARN("skipped: takes too long in this build");
    return;
  }
  Job job(builtin(), options);
  const Results& results = job.run();
  CHECK(results.model == builtin().name);
  CHECK(results.threads == 2);
  CHECK(results.embedding.empty());
  REQUIRE(results.pairs.size() == bits.size());
  REQUIRE(results.matrices.size() == 9 * bits.size());
  double seconds = 0;
  for (const auto& m : results.matrices) {
    INFO(m.recipe << " " << m.grid << " " << m.group << " " << m.bits);
    CHECK(m.name == "layer0.o");
    CHECK((m.rows == 512 && m.cols == 256));
    CHECK(m.relative_error > 0);
    CHECK(m.relative_error <= m.rtn_error);
    CHECK(m.bits_per_weight > m.bits);
    CHECK(m.bits_per_weight < m.bits + 0.6);
    CHECK(m.seconds >= 0);
    seconds += m.seconds;
  }
  for (const auto& pair : results.pairs) {
    CHECK(pair.name == "layer0.query_key");
    CHECK(pair.kind == "query_key");
    CHECK(pair.product_error < pair.mse_rtn_error);
    seconds += pair.seconds;
  }
  CHECK(results.seconds == Approx(seconds));
  // Each matrix by each number of bits, group and recipe, and the RTN that it is compared with is that of its group.
  for (const int b : bits)
    for (const Index group : {per_row, Index(64)}) {
      const double rtn = results.mean_error("rtn", "affine", group, b).value();
      for (const auto& m : results.matrices)
        if (m.bits == b && m.group == group) CHECK(m.rtn_error == rtn);
      CHECK(results.mean_error("fast", "affine", group, b));
    }
  for (const char* recipe : {"mse", "hadamard"}) CHECK(results.mean_error(recipe, "affine", per_row, bits[0]));
  for (const char* recipe : {"learned", "paper"}) CHECK(results.mean_error(recipe, "midrise", per_row, bits[0]));

  CHECK(job.stored_count() == 2 * Index(bits.size()));
  const test::TemporaryDirectory directory;
  job.save(directory / "file");
  job.verify(directory / "file");
  std::string content = directory.read("file");
  content.back() = char(content.back() ^ 1);
  const std::string changed = directory.write("changed", content);
  CHECK(error_of([&] { job.verify(changed); }).code() == ErrorCode::corrupt);
  const std::string cut = directory.write("cut", std::string_view(content).substr(0, content.size() - 1));
  CHECK(error_of([&] { job.verify(cut); }).code() == ErrorCode::corrupt);
  CHECK(error_of([&] { job.verify(directory / "none"); }).code() == ErrorCode::io);
}

TEST_CASE("The same seed gives the same results on any number of threads") {
  if (!test::optimized) {
    WARN("skipped: takes too long in this build");
    return;
  }
  const auto run = [](Index threads, std::uint64_t seed) {
    Job job(builtin(), {.threads = threads, .bits = {3}, .only = {"layer0.value_output"}, .paper_steps = 0, .seed = seed});
    return job.run().pairs.at(0).product_error;
  };
  const double expected = run(1, 5);
  CHECK(run(2, 5) == expected);
  CHECK(run(2, 6) != expected);
}

TEST_CASE("A matrix or pair that the model does not have is named") {
  for (const char* name : {"layer7.qkv", "layer0.up_down", "", "Embeddings"}) {
    const Error error = error_of([&] { Job(builtin(), {.only = {"tanh", name}}); });
    CHECK(error.code() == ErrorCode::invalid_argument);
    CHECK_THAT(error.message(), Contains(message("the model has no ", name)));
  }
}

TEST_CASE("A job that may be done in nothing flat is done") {
  Job job(builtin(), {.threads = 1, .bits = {}, .only = {"tanh"}});
  CHECK(job.run().matrices.empty());
  CHECK(job.stored_count() == 0);
  const test::TemporaryDirectory directory;
  job.save(directory / "file");
  job.verify(directory / "file");
}
