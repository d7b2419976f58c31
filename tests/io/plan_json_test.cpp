#include "cafeq/io/plan_json.hpp"

#include "cafeq/pipeline/recipes.hpp"
#include "model/plans.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using test::plan_of;

TEST_CASE("A recipe as JSON: its name, then its options") {
  CHECK(to_json(AnyRecipe(recipes::fast<>{.bits = 3, .seed = ~std::uint64_t(0)})).dump() ==
        R"({"recipe":"fast","bits":3,"group":64,"seed":18446744073709551615})");
  CHECK(to_json(AnyRecipe(recipes::rtn<>{})).dump() == R"({"recipe":"rtn","bits":4,"group":0})");
  const auto smallest = to_json(AnyRecipe(recipes::smallest{.bits = 3.5}));
  CHECK(smallest["recipe"] == "smallest");
  CHECK(smallest["bits"] == 3.5);
  CHECK(to_json(GgufRecipe::make(GgufType::q4_k, recipes::fast<>{})).dump() ==
        R"({"recipe":"fast","type":"Q4_K","seed":0})");
}

TEST_CASE("A plan as JSON: its steps, what is kept, and what all of it takes") {
  const Plan plan = plan_of(test::llama());
  const auto json = to_json(plan);
  REQUIRE(json["steps"].size() == plan.steps.size());
  const auto& names = matrix_names(plan.roles);
  double bits = 0;
  for (std::size_t s = 0; s < plan.steps.size(); ++s) {
    const Step& step = plan.steps[s];
    const auto& said = json["steps"][s];
    REQUIRE(said["matrices"].size() == step.matrices.size());
    for (std::size_t i = 0; i < step.matrices.size(); ++i) {
      const MatrixPlace& place = plan.place(step.matrices[i]);
      CHECK(said["matrices"][i]["name"] == names[step.matrices[i]]);
      CHECK(said["matrices"][i]["rows"] == place.out);
      CHECK(said["matrices"][i]["cols"] == place.in);
    }
    CHECK(said["choice"] == to_json(step.recipe));
    CHECK(said["transform"] == plan.transform(step));
    CHECK(said["grid"] == plan.grid(step, 0));
    CHECK(said["storage_bits"] == plan.storage_bits(step));
    CHECK(said["why"] == step.why);
    bits += double(plan.storage_bits(step));
  }
  CHECK(json["steps"][0]["matrices"][0]["role"] == "query");
  CHECK(json["steps"][0]["grid"] == "affine4 g64");

  REQUIRE(json["kept"].size() == plan.kept.size());
  CHECK(json["kept"][0]["name"] == plan.kept[0].tensor);
  CHECK(json["kept"][0]["why"] == plan.kept[0].why);
  CHECK(json["weights"] == plan.weights());
  CHECK(json["bits_per_weight"].get<double>() == Approx(bits / double(plan.weights())));
}

TEST_CASE("Equal plans give equal texts, and others do not") {
  const auto text = [](const PlanOptions& options) {
    return to_json(plan_of(test::llama(), options)).dump();
  };
  CHECK(text({}) == text({.recipe = recipes::fast<>{}}));
  CHECK(text({}) != text({.recipe = recipes::fast<>{.seed = 1}}));
  CHECK(text({}) != text({.pairs = false}));
  CHECK(text({.recipe = recipes::smallest{}}) != text({.recipe = recipes::smallest{.window = 10}}));

  const Plan nothing = make_plan({}, {}, {.recipe = recipes::fast<>{}});
  CHECK(to_json(nothing)["bits_per_weight"] == 0.0);
}
