#include "run/own_recipe.hpp"

#include <iostream>
#include <sstream>

#include "cafeq/io/quantized_file.hpp"
#include "cafeq/model/standard_recipes.hpp"
#include "io/saved_model.hpp"
#include "quantize_model/command_line.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using test::mine;

namespace {

/// The recipes of programs, and one more.
RecipeBook book_with_mine() {
  RecipeBook book = standard_recipes();
  book.add(mine{});
  return book;
}

AnyRecipe mine_of_3_bits() {
  const std::vector<RecipeOption> options{{"bits", std::int64_t(3)}, {"group", std::int64_t(32)}};
  return book_with_mine().make("mine", options);
}

/// What the tool's parser answers, and what it prints.
struct Answer {
  std::variant<example::CommandLine, int> parsed;
  std::string printed;

  const example::CommandLine* line() const { return std::get_if<example::CommandLine>(&parsed); }
};

Answer answer_to(std::vector<const char*> arguments) {
  std::ostringstream printed;
  auto* const out = std::cout.rdbuf(printed.rdbuf());
  auto* const error = std::cerr.rdbuf(printed.rdbuf());
  arguments.insert(arguments.begin(), "cafeq-quantize");
  auto parsed =
      example::parse_command_line(int(arguments.size()), arguments.data(), book_with_mine());
  std::cout.rdbuf(out);
  std::cerr.rdbuf(error);
  return {std::move(parsed), printed.str()};
}

}  // namespace

TEST_CASE("A plan does with a recipe of one's own what that says") {
  const test::MemoryModel model(test::llama());
  const AnyRecipe recipe = mine_of_3_bits();
  const Plan plan = make_plan(model.tensors(), model.config(), {.recipe = recipe});
  REQUIRE_FALSE(plan.steps.empty());
  std::int64_t stored = 0;
  for (const Step& step : plan.steps) {
    CHECK(step.recipe == AnyRecipe(mine{.bits = 3, .group = 32}));
    CHECK(plan.grid(step, 0) == "midrise3 g32");
    CHECK(plan.transform(step) == "Hadamards of 16");
    CHECK_FALSE(step.pair);
  }
  for (const Job& job : plan.jobs)
    for (const MatrixResult& part : quantize_job(model, plan, job).matrices)
      stored += part.quantized.matrix.storage_bits();
  CHECK(stored == plan.storage_bits());

  const auto value = std::find_if(plan.steps.begin(), plan.steps.end(), [&](const Step& step) {
    return plan.roles.matrices[step.matrices[0]].role == Role::value;
  });
  REQUIRE(value != plan.steps.end());
  CHECK(value->why == "no value/output pair: small Hadamards have no use for it");
}

TEST_CASE("Bits are spread over the matrices of a recipe of one's own") {
  const test::MemoryModel model(test::llama());
  Plan plan = make_plan(model.tensors(), model.config(), {.recipe = mine{.group = 32}});
  allocate_plan(plan, model, 4.5);
  CHECK(double(plan.storage_bits()) <= 4.5 * double(plan.weights()));
  for (const Step& step : plan.steps) CHECK(step.recipe.as<mine>()->group == 32);
}

TEST_CASE("A run writes what a recipe of one's own makes, and the file gives it back") {
  const test::TemporaryDirectory directory;
  test::save_model(test::llama(), directory, "model");
  const std::string out = directory / "out.safetensors";
  const ModelRun run(
      {.input = directory / "model", .output = out, .plan = {.recipe = mine_of_3_bits()}});
  run.quantize();

  const QuantizedFileReader file(out);
  const auto names = matrix_names(run.plan().roles);
  CHECK(file.metadata().at("cafeq.recipe") ==
        R"({"choice":{"recipe":"mine","bits":3,"group":32},"pairs":true})");
  for (const Step& step : run.plan().steps) {
    const std::size_t m = step.matrices[0];
    const Matrix<float> W = load_matrix(run.model(), run.plan().place(m));
    const AnyQuantized loaded = file.load(names[m]);
    const auto expected = quantize(W, mine{.bits = 3, .group = 32});
    Matrix<float> hat(W.rows(), W.cols()), expected_hat(W.rows(), W.cols());
    loaded.dequantize(hat);
    expected.dequantize(expected_hat);
    CHECK(std::equal(hat.data(), hat.data() + hat.size(), expected_hat.data()));
    CHECK(loaded.storage_bits() == expected.storage_bits());
  }
}

TEST_CASE("The command line knows a recipe of one's own from the book") {
  const Answer help = answer_to({"--help"});
  CHECK(help.line() == nullptr);
  CHECK(std::get<int>(help.parsed) == 0);
  CHECK_THAT(help.printed, Contains("mine: Hadamards of 16, levels without a zero"));
  CHECK_THAT(help.printed, Contains("rtn, mse, fast, learned, paper, smallest, mine"));

  const Answer all = answer_to({"in", "out", "--recipe", "mine", "--bits", "3", "--group", "32"});
  REQUIRE(all.line() != nullptr);
  CHECK(all.line()->run.plan.recipe == AnyRecipe(mine{.bits = 3, .group = 32}));
  const Answer usual = answer_to({"in", "out", "--recipe", "mine"});
  REQUIRE(usual.line() != nullptr);
  CHECK(usual.line()->run.plan.recipe == AnyRecipe(mine{}));

  const Answer seeded = answer_to({"in", "out", "--recipe", "mine", "--seed", "1"});
  CHECK(seeded.line() == nullptr);
  CHECK(std::get<int>(seeded.parsed) == 2);
  CHECK_THAT(seeded.printed, Contains("--recipe mine") && Contains("--seed"));
  const Answer many = answer_to({"in", "out", "--recipe", "mine", "--bits", "9"});
  CHECK(std::get<int>(many.parsed) == 2);
}

TEST_CASE("The command line knows what other recipes take") {
  const auto recipe_of = [](std::vector<const char*> options) {
    options.insert(options.begin(), {"in", "out"});
    const Answer answer = answer_to(options);
    REQUIRE(answer.line() != nullptr);
    return answer.line()->run.plan.recipe;
  };
  CHECK(recipe_of({}) == AnyRecipe(recipes::fast<>{}));
  CHECK(recipe_of({"--seed", "18446744073709551615"}) ==
        AnyRecipe(recipes::fast<>{.seed = ~std::uint64_t(0)}));
  CHECK(recipe_of({"--recipe", "rtn"}) == AnyRecipe(recipes::rtn<>{.group = 64}));
  CHECK(recipe_of({"--recipe", "learned", "--bits", "3"}) ==
        AnyRecipe(recipes::learned<>{.bits = 3}));
  CHECK(recipe_of({"--recipe", "smallest"}) == AnyRecipe(recipes::smallest{}));
  CHECK(recipe_of({"--recipe", "smallest", "--bits", "2", "--group", "0"}) ==
        AnyRecipe(recipes::smallest{.bits = 2.25}));

  const auto refused = [](std::vector<const char*> options) {
    options.insert(options.begin(), {"in", "out"});
    const Answer answer = answer_to(options);
    REQUIRE(answer.line() == nullptr);
    CHECK(std::get<int>(answer.parsed) == 2);
    return answer.printed;
  };
  CHECK_THAT(refused({"--recipe", "best"}), Contains("recipe best is not one of"));
  CHECK_THAT(refused({"--recipe", "smallest", "--group", "64"}), Contains("--group"));
  CHECK_THAT(refused({"--recipe", "rtn", "--seed", "1"}), Contains("--seed"));
  CHECK_THAT(refused({"--recipe", "smallest", "--bits", "8"}), Contains("--bits"));
  CHECK_THAT(refused({"--format", "gguf:Q9_9"}), Contains("--format"));
}
