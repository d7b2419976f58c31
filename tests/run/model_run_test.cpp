#include "cafeq/run/model_run.hpp"

#include <stdexcept>

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/pipeline/recipes.hpp"
#include "engine/tiny_model.hpp"
#include "io/temporary_directory.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/error_of.hpp"
#include "support/random.hpp"

using namespace cafeq;
using test::error_of;
using test::TemporaryDirectory;
using Names = std::set<std::string>;

namespace {

/// Rows of 32 and 64, so that the simple types of GGUF fit.
ModelConfig small_config() {
  auto config = engine::test::tiny_config();
  config.hidden = 32, config.head_dim = 8, config.intermediate = 64;
  config.attention.rotary->dims = 8;
  return config;
}

/// A directory with a model as Hugging Face lays it out.
struct ModelDirectory : TemporaryDirectory {
  ModelDirectory() {
    const TemporaryDirectory files;
    engine::test::write_hugging_face(files, engine::test::tiny_model(small_config()));
    for (const std::string& name : files.names()) write("model/" + name, files.read(name));
  }

  RunOptions options(const std::string& output, RunFormat format = RunFormat::quantized) const {
    return {.input = *this / "model",
            .output = *this / output,
            .format = format,
            .type = GgufType::q4_0};
  }
  Index size_of(const std::string& name) const { return Index(read(name).size()); }
};

/// Ends a run where it has called it so many times.
struct Interruption : std::runtime_error {
  Interruption() : std::runtime_error("interrupted") {}
};
RunProgress interrupt_at(std::string_view stage, int calls) {
  return [=, left = calls](std::string_view what, double, double) mutable {
    if (what == stage && --left == 0) throw Interruption();
  };
}

Matrix<float> floats_of(const ModelFile& model, const std::string& name) {
  const auto [view, owner] = model.load(name);
  Matrix<float> W(view.shape[0], view.shape[1]);
  const auto values = view.values<float>(name);
  std::copy(values.begin(), values.end(), W.data());
  return W;
}

}  // namespace

TEST_CASE("A run writes a model in each format, and all of them hold the same weights") {
  const ModelDirectory directory;
  const ModelRun quantized(directory.options("out.safetensors"));
  const RunSummary summary = quantized.quantize();
  const RunSummary float_summary = ModelRun(directory.options("out", RunFormat::floats)).quantize();
  ModelRun(directory.options("out.gguf", RunFormat::gguf)).quantize();
  RunOptions again = directory.options("out.gguf", RunFormat::gguf);
  again.overwrite = true;
  const ModelRun gguf(again);
  CHECK(directory.names() == Names{"model", "out", "out.gguf", "out.safetensors"});

  const QuantizedFileReader file(directory / "out.safetensors");
  const ModelFile floats(directory / "out");
  const Plan& plan = quantized.plan();
  REQUIRE_FALSE(plan.steps.empty());
  const auto names = matrix_names(plan.roles);
  for (const Step& step : plan.steps)
    for (const std::size_t m : step.matrices) {
      INFO(names[m]);
      const AnyQuantized matrix = file.load(names[m]);
      Matrix<float> hat(matrix.rows(), matrix.cols());
      matrix.dequantize(hat);
      const Matrix<float> written = floats_of(floats, names[m]);
      CHECK(std::equal(hat.data(), hat.data() + hat.size(), written.data()));
      CHECK(summary.errors.matrices.contains(names[m]));
    }
  CHECK(directory.read("out/config.json") == directory.read("model/config.json"));
  CHECK(nlohmann::json::parse(file.metadata().at("cafeq.recipe")) ==
        nlohmann::json::parse(
            R"({"choice": {"recipe": "fast", "bits": 4, "group": 64, "seed": 0}, "pairs": true})"));

  const GgufReader blocks(directory / "out.gguf");
  CHECK(blocks.tensor("blk.0.attn_q.weight").type == GgufType::q4_0);
  CHECK(blocks.tensor("output_norm.weight").type == GgufType::f32);

  Index model_bytes = 0, float_bytes = 0;
  for (const auto& [sum, name] : {std::pair(&model_bytes, "model"), {&float_bytes, "out"}})
    for (const auto& entry : std::filesystem::directory_iterator(directory / name))
      *sum += Index(entry.file_size());
  CHECK(summary.bytes_before == model_bytes);
  CHECK(summary.bytes_after == directory.size_of("out.safetensors"));
  CHECK(summary.bytes_after < summary.bytes_before);
  CHECK(summary.bytes_after <= quantized.forecast().bytes_after);
  CHECK(float_summary.bytes_after == float_bytes);
  CHECK(gguf.quantize().bytes_after == gguf.forecast().bytes_after);
  CHECK(summary.seconds >= 0);
}

TEST_CASE(
    "A run tells what it does, from nothing to all of it, and results are nobody's threads'") {
  const ModelDirectory directory;
  std::map<std::string, double> reached;
  std::vector<std::string> stages;
  ThreadPool executor(3);
  ModelRun(directory.options("three"), executor)
      .quantize([&](std::string_view what, double done, double all) {
        if (stages.empty() || stages.back() != what) stages.emplace_back(what);
        double& before = reached[std::string(what)];
        CHECK(done >= before);
        CHECK(done <= all);
        before = done / all;
      });
  CHECK(stages == std::vector<std::string>{"quantizing", "writing"});
  CHECK(reached["quantizing"] == Approx(1));
  CHECK(reached["writing"] == Approx(1));

  ModelRun(directory.options("one")).quantize();
  CHECK(directory.read("one") == directory.read("three"));
}

TEST_CASE("Pairs that are rounded together tell the error of their products") {
  const ModelDirectory directory;
  RunOptions options = directory.options("out.gguf", RunFormat::gguf);
  options.plan.recipe = recipes::learned<>{};
  const ModelRun run(options);
  const RunSummary summary = run.quantize();
  std::size_t pairs = 0;
  for (const Step& step : run.plan().steps) pairs += step.pair.has_value();
  CHECK(pairs > 0);
  CHECK(summary.errors.pairs.size() == pairs);
}

TEST_CASE("A mean of all bits is met from below") {
  const ModelDirectory directory;
  for (const AnyRecipe& recipe :
       {AnyRecipe(recipes::fast<>{.group = 32}), AnyRecipe(recipes::smallest{})}) {
    INFO(recipe->name());
    if (test::sanitized && recipe->name() == "smallest") continue;  // too slow
    RunOptions options = directory.options(std::string(recipe->name()));
    options.plan.recipe = recipe;
    options.target_bits = 6;
    if (recipe->with_bits(4)) options.target_bits = 4;
    const ModelRun run(options);
    const double bits = double(run.plan().storage_bits()) / double(run.plan().weights());
    CHECK(bits <= options.target_bits);
    CHECK(bits > options.target_bits - 0.5);
    CHECK(run.quantize().bytes_after <= run.forecast().bytes_after);
  }
  RunOptions options = directory.options("few");
  options.target_bits = 2;
  CHECK_THAT(error_of([&] { const ModelRun run(options); }).message(),
             Contains("target bits: 2 are fewer than the"));
}

TEST_CASE("A size is not exceeded by the whole file") {
  const ModelDirectory directory;
  for (const RunFormat format : {RunFormat::quantized, RunFormat::gguf}) {
    RunOptions options = directory.options(message("out", int(format)), format);
    const ModelRun whole(options);
    const double others =
        double(whole.forecast().bytes_after) - double(whole.plan().storage_bits()) / 8;
    options.target_size = others + 6.5 * double(whole.plan().weights()) / 8;
    const ModelRun run(options);
    run.quantize();
    CHECK(double(directory.size_of(message("out", int(format)))) <= options.target_size);
    const double bits = double(run.plan().storage_bits()) / double(run.plan().weights());
    CHECK(bits <= 6.5);
    CHECK(bits > 5);
  }
  RunOptions options = directory.options("small");
  options.target_size = 1000;
  CHECK_THAT(error_of([&] { const ModelRun run(options); }).message(),
             Contains("target size: 1000 bytes are fewer than the least that is possible") &&
                 Contains("that are not quantized"));
}

TEST_CASE("A size that is larger than all can use is no error") {
  const ModelDirectory directory;
  for (const AnyRecipe& recipe : {AnyRecipe(recipes::fast<>{}), AnyRecipe(recipes::smallest{})}) {
    RunOptions options = directory.options("out");
    options.plan.recipe = recipe;
    options.target_size = 1e10;
    CHECK(ModelRun(options).forecast().bytes_after < 100000);
  }
}

TEST_CASE("The least size that a refusal names is possible, one byte less is not") {
  const ModelDirectory directory;
  for (const RunFormat format : {RunFormat::quantized, RunFormat::gguf})
    for (const AnyRecipe& recipe : {AnyRecipe(recipes::fast<>{}), AnyRecipe(recipes::smallest{})}) {
      if (format == RunFormat::gguf && recipe->with_bits(4)) continue;
      INFO(int(format) << " " << recipe->name());
      const std::string name = message("out", int(format), recipe->name());
      RunOptions options = directory.options(name, format);
      options.plan.recipe = recipe;
      options.target_size = 1;
      const std::string refusal = error_of([&] { const ModelRun run(options); }).message();
      const std::string words = "that is possible, ";
      options.target_size = std::stod(refusal.substr(refusal.find(words) + words.size()));
      ModelRun(options).quantize();
      CHECK(double(directory.size_of(name)) <= options.target_size);
      options.target_size -= 1;
      CHECK_THAT(error_of([&] { const ModelRun run(options); }).message(),
                 Contains("fewer than the least"));
    }
}

TEST_CASE("What is quantized already, and what grows, is warned of") {
  const ModelDirectory directory;
  CHECK(ModelRun(directory.options("out")).forecast().warnings.empty());
  RunOptions options = directory.options("q8.gguf", RunFormat::gguf);
  options.type = GgufType::q8_0;
  ModelRun(options).quantize();

  options.input = directory / "q8.gguf";
  options.output = directory / "out.gguf";
  options.type = GgufType::q4_0;
  const auto warnings = ModelRun(options).forecast().warnings;
  REQUIRE(warnings.size() == 1);
  CHECK_THAT(warnings[0], Contains("q8.gguf is quantized already, to Q8_0"));

  options.format = RunFormat::floats;
  const auto of_floats = ModelRun(options).forecast().warnings;
  REQUIRE(of_floats.size() == 2);
  CHECK_THAT(of_floats[1], Contains("the output takes") && Contains("more than the"));

  // A copy is not what anybody asks for.
  options.format = RunFormat::gguf;
  options.type = GgufType::q8_0;
  CHECK_THAT(error_of([&] { const ModelRun run(options); }).message(),
             Contains("nothing in it would be quantized") &&
                 Contains("tensors: quantized it would not be smaller than as Q8_0"));
}

TEST_CASE("A recipe that has no pairs to transform as GGUF is told so") {
  const ModelDirectory directory;
  RunOptions options = directory.options("out.gguf", RunFormat::gguf);
  options.plan.recipe = recipes::learned<>{};
  CHECK(ModelRun(options).forecast().warnings.empty());
  options.plan.pairs = false;
  const auto warnings = ModelRun(options).forecast().warnings;
  REQUIRE(warnings.size() == 1);
  CHECK_THAT(warnings[0], Contains("recipe learned changes nothing"));
  options.plan.recipe.reset();
  CHECK(ModelRun(options).forecast().warnings.empty());
}

TEST_CASE("An interrupted run goes on to the same bytes") {
  const ModelDirectory directory;
  for (const RunFormat format : {RunFormat::quantized, RunFormat::gguf}) {
    const std::string whole = message("whole", int(format)), out = message("out", int(format));
    ModelRun(directory.options(whole, format)).quantize();
    for (const auto& [stage, calls] :
         {std::pair{"quantizing", 1}, {"quantizing", 4}, {"writing", 3}}) {
      INFO(stage << " " << calls);
      RunOptions options = directory.options(out, format);
      CHECK_THROWS_AS(ModelRun(options).quantize(interrupt_at(stage, calls)), Interruption);
      CHECK_FALSE(directory.names().contains(out));
      REQUIRE(directory.names().contains(out + ".partial"));
      CHECK_THAT(error_of([&] { ModelRun(options).quantize(); }).message(),
                 Contains("out") && Contains(".partial: is there already"));

      options.start = PartStore::Start::resume;
      RunOptions other = options;
      other.plan.exclude = {"*q_proj*"};
      CHECK_THAT(error_of([&] { ModelRun(other).quantize(); }).message(),
                 Contains("belongs to another plan"));
      const RunSummary summary = ModelRun(options).quantize();
      CHECK(directory.read(out) == directory.read(whole));
      CHECK_FALSE(summary.errors.matrices.empty());
      CHECK_FALSE(directory.names().contains(out + ".partial"));
      std::filesystem::remove(directory / out);
    }
  }
}

TEST_CASE("What an interrupted run has done is not done again") {
  const ModelDirectory directory;
  RunOptions options = directory.options("out");
  CHECK_THROWS_AS(ModelRun(options).quantize(interrupt_at("quantizing", 5)), Interruption);
  const auto part = std::filesystem::last_write_time(directory / "out.partial/0.part");
  options.start = PartStore::Start::resume;
  CHECK_THROWS_AS(ModelRun(options).quantize(interrupt_at("writing", 1)), Interruption);
  CHECK(std::filesystem::last_write_time(directory / "out.partial/0.part") == part);
}

namespace {

/// Adds so many random inputs.
void add(GramCollector& grams, const std::string& name, Index count, Index dim,
         std::uint64_t seed) {
  const auto X = test::gaussian<float>(count, dim, seed);
  grams.add(name, X);
}

/// Inputs of all matrices of a model's layers, a few of them massive.
GramCollector some_inputs(const ModelFile& model) {
  GramCollector grams;
  for (const MatrixRole& matrix : find_roles(model.tensors(), model.config()).matrices) {
    if (matrix.layer < 0) continue;
    auto X = test::gaussian<float>(200, matrix.place.in, std::uint64_t(matrix.layer));
    for (Index i = 0; i < X.rows(); ++i) X(i, 3) *= 30;
    grams.add(matrix.place.tensor, X.view());
  }
  return grams;
}

}  // namespace

TEST_CASE("Matrices whose inputs a file knows are rounded in their metric, others as ever") {
  const ModelDirectory directory;
  const ModelFile model(directory / "model");
  const GramCollector grams = some_inputs(model);
  write_grams(directory / "grams", grams, fingerprint_of(model));
  RunOptions options = directory.options("out");
  options.plan.recipe = recipes::fast<>{.bits = 3, .group = 32};
  options.plan.embeddings = true;
  options.metric = directory / "grams";
  const ModelRun run(options);
  CHECK(run.forecast().warnings.empty());
  run.quantize();

  const QuantizedFileReader file(directory / "out");
  for (const Step& step : run.plan().steps) {
    const MatrixRole& matrix = run.plan().roles.matrices[step.matrices[0]];
    INFO(matrix.place.tensor);
    CHECK(step.in_metric == (matrix.layer >= 0));
    CHECK_FALSE(step.pair);
    if (!step.in_metric) continue;
    const Metric metric = grams.find(matrix.place.tensor)->metric();
    const Matrix<float> W = load_matrix(model, matrix.place);
    const auto error = [&](const auto& q) {
      Matrix<float> hat(W.rows(), W.cols());
      q.dequantize(hat);
      return relative_error(W, hat, metric, Side::input);
    };
    const double found = error(file.load(matrix.place.tensor));
    CHECK(found < error(quantize(W, recipes::fast<3>{.group = 32})));
    CHECK(found == Approx(error(quantize(W, recipes::fast<3>{.group = 32}, metric))).epsilon(0.2));
  }
  ThreadPool executor(3);
  options.output = directory / "three";
  ModelRun(options, executor).quantize();
  CHECK(directory.read("three") == directory.read("out"));
}

TEST_CASE("A file of Grams is checked against the model before any work") {
  const ModelDirectory directory;
  RunOptions options = directory.options("out");
  options.metric = directory / "grams";
  const std::string query = "model.layers.0.self_attn.q_proj.weight";
  const auto refusal = [&](const GramCollector& grams) {
    write_grams(directory / "grams", grams);
    return error_of([&] { const ModelRun run(options); }).message();
  };
  GramCollector narrow, strange, some;
  add(narrow, query, 5, 31, 1);
  CHECK_THAT(refusal(narrow), Contains("31") && Contains(query));
  add(strange, "other.weight", 5, 32, 1);
  CHECK_THAT(refusal(strange), Contains("inputs of no matrix"));
  add(some, query, 50, 32, 1);
  write_grams(directory / "grams", some, "of another model");
  const ModelRun run(options);
  REQUIRE(run.forecast().warnings.size() == 1);
  CHECK_THAT(run.forecast().warnings[0], Contains("another model"));
  Index in_metric = 0;
  for (const Step& step : run.plan().steps) in_metric += step.in_metric;
  CHECK(in_metric == 1);
}

TEST_CASE("A metric is made once, ahead of all else, and kept for a run that goes on") {
  const ModelDirectory directory;
  const ModelFile model(directory / "model");
  const GramCollector grams = some_inputs(model);
  int made = 0;
  RunOptions options = directory.options("out");
  options.metric_maker = MetricMaker{.description = "some inputs"};
  for (const auto& input : grams.inputs())
    options.metric_maker->inputs.push_back(detail::entry_of(input));
  options.metric_maker->copy = directory / "copy";
  options.metric_maker->make = [&](const std::string& path, const RunProgress& progress) {
    ++made;
    progress("making", 1, 1);
    write_grams(path, grams);
  };
  CHECK(ModelRun(options).forecast().metric_bytes > 0);
  CHECK_THROWS_AS(ModelRun(options).quantize(interrupt_at("making", 1)), Interruption);
  CHECK(made == 1);
  options.start = PartStore::Start::resume;
  CHECK_THROWS_AS(ModelRun(options).quantize(interrupt_at("quantizing", 2)), Interruption);
  CHECK(made == 2);
  RunOptions other = options;
  other.metric_maker->description = "other inputs";
  CHECK_THAT(error_of([&] { ModelRun(other).quantize(); }).message(), Contains("another plan"));
  std::filesystem::remove(directory / "copy");
  ModelRun(options).quantize();
  CHECK(made == 2);
  CHECK_FALSE(directory.names().contains("out.partial"));

  // The same as from a file, which stays.
  write_grams(directory / "grams", grams);
  CHECK(directory.read("copy") == directory.read("grams"));
  RunOptions from_file = directory.options("again");
  from_file.metric = directory / "grams";
  ModelRun(from_file).quantize();
  CHECK(directory.read("again") == directory.read("out"));
  CHECK(directory.names().contains("grams"));

  // A recipe that does not mind inputs does not have them made.
  RunOptions plain = options;
  plain.output = directory / "plain";
  plain.start = PartStore::Start::fresh;
  plain.plan.recipe = recipes::rtn<>{};
  ModelRun(plain).quantize();
  CHECK(made == 2);
}

namespace {

/// Of all matrices; those of values are what counts.
Sensitivities some_sensitivities(const ModelFile& model, double of_values = 100) {
  std::vector<Sensitivity> all;
  for (const MatrixRole& m : find_roles(model.tensors(), model.config()).matrices)
    all.push_back({.tensor = m.place.tensor,
                   .first_row = m.place.begin,
                   .rows = m.place.out,
                   .value = m.role == Role::value ? of_values : 1});
  return Sensitivities(std::move(all), fingerprint_of(model));
}

}  // namespace

TEST_CASE("Bits go where errors cost most, in every format, and sizes are met") {
  const ModelDirectory directory;
  const ModelFile model(directory / "model");
  directory.write("sensitivities", to_json(some_sensitivities(model)).dump());
  write_grams(directory / "grams", some_inputs(model), fingerprint_of(model));
  for (const RunFormat format : {RunFormat::quantized, RunFormat::gguf}) {
    RunOptions options = directory.options("out", format);
    options.overwrite = true;
    options.metric = directory / "grams";
    options.sensitivities = directory / "sensitivities";
    if (format == RunFormat::quantized) options.plan.recipe = recipes::fast<>{.group = 32};
    const auto bits_of_values = [&](const Plan& plan, bool values) {
      double bits = 0, weights = 0;
      for (const Step& step : plan.steps) {
        if ((plan.roles.matrices[step.matrices[0]].role == Role::value) != values) continue;
        bits += double(plan.storage_bits(step));
        weights += double(plan.weights(step));
      }
      return bits / weights;
    };
    options.target_bits = 5.2;
    const ModelRun run(options);
    CHECK(run.forecast().warnings.empty());
    CHECK(bits_of_values(run.plan(), true) > bits_of_values(run.plan(), false) + 0.4);
    CHECK(run.plan().expected_loss() > 0.0);
    const RunSummary summary = run.quantize();

    options.target_bits = 0;
    options.target_size = double(summary.bytes_after) + 1000;
    CHECK(double(ModelRun(options).quantize().bytes_after) <= options.target_size);
    options.target_size = 1000;
    CHECK_THAT(error_of([&] { const ModelRun none(options); }).message(), Contains("target size"));
    options.target_size = 0;
    options.target_bits = 1.5;
    CHECK_THAT(error_of([&] { const ModelRun none(options); }).message(), Contains("target bits"));
  }
  directory.write("sensitivities", to_json(Sensitivities({}, "another")).dump());
  RunOptions none = directory.options("none");
  none.sensitivities = directory / "sensitivities";
  CHECK_THAT(error_of([&] { const ModelRun run(none); }).message(), Contains("there is none of"));
}

TEST_CASE("Sensitivities are made once, ahead of the plan, and kept for a run that goes on") {
  const ModelDirectory directory;
  const ModelFile model(directory / "model");
  const GramCollector grams = some_inputs(model);
  int metrics = 0, measured = 0;
  RunOptions options = directory.options("out");
  options.plan.recipe = recipes::smallest{};
  options.target_bits = 3.5;
  options.metric_maker = MetricMaker{.description = "some inputs"};
  for (const auto& input : grams.inputs())
    options.metric_maker->inputs.push_back(detail::entry_of(input));
  options.metric_maker->make = [&](const std::string& path, const RunProgress&) {
    ++metrics;
    write_grams(path, grams);
  };
  options.sensitivity_maker = SensitivityMaker{.description = "some noise"};
  options.sensitivity_maker->copy = directory / "copy";
  double of_values = 100;
  options.sensitivity_maker->make = [&](const std::string& path, const RunProgress& progress) {
    ++measured;
    write_file(path, to_json(some_sensitivities(model, of_values)).dump());
    if (progress) progress("measuring", 1, 1);
  };
  CHECK_THROWS_AS(ModelRun(options, {}, interrupt_at("choosing bits", 2)), Interruption);
  CHECK(metrics == 1);
  CHECK(measured == 1);
  options.start = PartStore::Start::resume;
  CHECK_THROWS_AS(ModelRun(options).quantize(interrupt_at("quantizing", 2)), Interruption);

  // What was made stays, and what was decided by it.
  RunOptions other = options;
  other.sensitivity_maker->description = "other noise";
  CHECK_THAT(error_of([&] { const ModelRun run(other); }).message(), Contains("another plan"));
  const std::string kept = directory.read("out.partial/sensitivities");
  write_file(directory / "out.partial/sensitivities", to_json(some_sensitivities(model, 1)).dump());
  CHECK_THAT(error_of([&] { const ModelRun run(options); }).message(), Contains("another plan"));
  write_file(directory / "out.partial/sensitivities", kept);
  std::filesystem::remove(directory / "copy");
  ModelRun(options).quantize();
  CHECK(directory.read("copy") == kept);
  CHECK(metrics == 1);
  CHECK(measured == 1);
  CHECK_FALSE(directory.names().contains("out.partial"));

  // The same as from files.
  write_grams(directory / "grams", grams);
  directory.write("sensitivities", kept);
  RunOptions from_files = directory.options("again");
  from_files.plan.recipe = options.plan.recipe;
  from_files.target_bits = options.target_bits;
  from_files.metric = directory / "grams";
  from_files.sensitivities = directory / "sensitivities";
  ModelRun(from_files).quantize();
  CHECK(directory.read("again") == directory.read("out"));

  // What is wrong with the target, or with a file, is said before anything is made.
  RunOptions typo = options;
  typo.output = directory / "typo";
  typo.start = PartStore::Start::fresh;
  typo.sensitivity_maker.reset();
  typo.sensitivities = directory / "typo.json";
  CHECK_THAT(error_of([&] { const ModelRun run(typo); }).message(), Contains("typo.json"));
  directory.write("typo.json", to_json(Sensitivities()).dump());
  CHECK_THAT(error_of([&] { const ModelRun run(typo); }).message(), Contains("there is none of"));
  CHECK(metrics == 1);
  CHECK_FALSE(directory.names().contains("typo.partial"));
  RunOptions few = options;
  few.output = directory / "few";
  few.start = PartStore::Start::fresh;
  few.target_bits = 0.9;
  CHECK_THAT(error_of([&] { const ModelRun run(few); }).message(), Contains("target bits"));
  CHECK(measured == 1);
  CHECK_FALSE(directory.names().contains("few.partial"));
}

TEST_CASE("What a run cannot do is refused before anything is written") {
  const ModelDirectory directory;
  const auto refusal = [&](const RunOptions& options) {
    const Error error = error_of([&] { ModelRun(options).quantize(); });
    CHECK_FALSE(directory.names().contains("new"));
    CHECK_FALSE(directory.names().contains("new.partial"));
    return error.message();
  };
  ModelRun(directory.options("there")).quantize();
  const std::string before = directory.read("there");

  RunOptions again = directory.options("new");
  again.input = directory / "there";
  CHECK_THAT(refusal(again), Contains("there: is quantized already"));

  CHECK_THAT(refusal(directory.options("there")), Contains("there: is there already"));
  CHECK(directory.read("there") == before);
  CHECK(directory.names() == Names{"model", "there"});

  RunOptions nothing = directory.options("new");
  nothing.plan.exclude = {"*"};
  CHECK_THAT(refusal(nothing), Contains("model: nothing in it would be quantized"));

  RunOptions together = directory.options("new", RunFormat::gguf);
  together.plan.recipe = recipes::smallest{};
  CHECK_THAT(refusal(together), Contains("cannot hold the codes of smallest"));

  RunOptions none = directory.options("new");
  none.input = directory / "none";
  CHECK_THAT(refusal(none), Contains("none: cannot open"));
}

TEST_CASE("A file is replaced where that is asked for, a directory never") {
  const ModelDirectory directory;
  RunOptions options = directory.options("out");
  ModelRun(options).quantize();
  const std::string before = directory.read("out");
  options.overwrite = true;
  options.start = PartStore::Start::anew;
  options.plan.recipe = recipes::fast<>{.bits = 3};
  ModelRun(options).quantize();
  CHECK(directory.read("out").size() < before.size());

  RunOptions floats = directory.options("floats/", RunFormat::floats);
  ModelRun(floats).quantize();
  const std::string weights = directory.read("floats/model.safetensors");
  floats.overwrite = true;
  floats.start = PartStore::Start::anew;
  floats.plan.recipe = recipes::fast<>{.bits = 3};
  CHECK_THAT(error_of([&] { ModelRun(floats).quantize(); }).message(),
             Contains("floats: is a directory, which is not overwritten"));
  CHECK(directory.read("floats/model.safetensors") == weights);
  CHECK(directory.names() == Names{"floats", "model", "out"});
}
