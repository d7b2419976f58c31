#include "cafeq/model/allocate_plan.hpp"

#include <map>
#include <set>

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/model/make_plan.hpp"
#include "model/memory_model.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/error_of.hpp"
#include "support/random.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace {

double mean_bits(const Plan& plan) {
  double bits = 0, weights = 0;
  for (const Step& step : plan.steps) {
    bits += double(plan.storage_bits(step));
    weights += double(plan.weights(step));
  }
  return bits / weights;
}
std::vector<int> bits_of(const Plan& plan) {
  std::vector<int> bits;
  for (const Step& step : plan.steps)
    bits.push_back(int(std::get<std::int64_t>(*step.recipe.option("bits"))));
  return bits;
}
void add(MemoryModel& model, const std::string& name, const Matrix<float>& W) {
  model.add<bf16>(name, {W.rows(), W.cols()}, std::vector<double>(W.data(), W.data() + W.size()));
}

}  // namespace

TEST_CASE("The mean of all bits is met from below, whatever it is") {
  const MemoryModel model(llama());
  const Plan plan = make_plan(model.tensors(), model.config(), {.recipe = recipes::fast<>{}});
  double before = 0;
  std::int64_t largest_step = 0;
  double weights = 0;
  for (const Step& step : plan.steps) {
    largest_step = std::max<std::int64_t>(largest_step, plan.weights(step));
    weights += double(plan.weights(step));
  }
  for (const double target : test::sweep({3.8, 4.1, 5.0, 6.3, 8.0}, {4.1, 8.0})) {
    INFO(target);
    Plan allocated = plan;
    allocate_plan(allocated, model, target);
    const double bits = mean_bits(allocated);
    CHECK(bits <= target);
    // One more bit for any step would be too many.
    CHECK(bits > target - double(largest_step) / weights);
    CHECK(bits > before);
    before = bits;
    ThreadPool executor(2);
    Plan again = plan;
    allocate_plan(again, model, target, executor);
    CHECK(bits_of(again) == bits_of(allocated));
  }
  Plan most = plan;
  allocate_plan(most, model, 16);
  CHECK(bits_of(most) == std::vector<int>(plan.steps.size(), 8));
}

TEST_CASE("Equal bits spend what the rates of the matrices leave over") {
  const MemoryModel model(llama());
  for (const double target : {2.9, 3.2, 3.27}) {
    INFO(target);
    Plan plan = make_plan(model.tensors(), model.config(), {.recipe = recipes::smallest{}});
    allocate_plan(plan, model, target);
    const auto budget = std::int64_t(target * double(plan.weights()));
    CHECK(plan.storage_bits() <= budget);
    std::vector<double> all;
    for (const Step& step : plan.steps)
      all.push_back(std::get<double>(*step.recipe.option("bits")));
    const auto [fewest, most] = std::ranges::minmax(all);
    for (const Step& step : plan.steps) {
      if (std::get<double>(*step.recipe.option("bits")) > fewest) continue;
      // One rate more for it would be too much.
      const std::int64_t before = plan.storage_bits(step);
      std::int64_t after = before;
      for (double more = 0.01; more < 0.3 && after == before; more += 0.01)
        after = plan.storage_bits(step, *step.recipe->with_bits(fewest + more));
      REQUIRE(after > before);
      CHECK(plan.storage_bits() + after - before > budget);
    }
    CHECK(most > fewest);  // something was left over
    CHECK(most - fewest < 0.25);
  }
}

TEST_CASE("A target that two bits exceed is refused with what they take") {
  const MemoryModel model(llama());
  Plan plan = make_plan(model.tensors(), model.config(), {.recipe = recipes::fast<>{}});
  for (Step& step : plan.steps) step.recipe = recipes::fast<>{.bits = 2};
  const double least = mean_bits(plan);
  const Error error = error_of([&] { allocate_plan(plan, model, least - 0.01); });
  CHECK(error.code() == ErrorCode::invalid_argument);
  CHECK_THAT(error.message(), Contains(message("fewer than the ", least)));
  allocate_plan(plan, model, least + 1e-9);
  CHECK(bits_of(plan) == std::vector<int>(plan.steps.size(), 2));
}

TEST_CASE("What is harder to quantize gets more bits") {
  MemoryModel model;
  Matrix<float> unit(64, 128);  // a row of one weight has two levels behind a Hadamard
  for (Index i = 0; i < unit.rows(); ++i) unit(i, i) = 1;
  add(model, "hard", gaussian(64, 128, 1));
  add(model, "easy", unit);
  Plan plan = make_plan(model.tensors(), model.config(), {.recipe = recipes::fast<>{}});
  REQUIRE(plan.steps.size() == 2);
  allocate_plan(plan, model, 4.6);
  CHECK(bits_of(plan)[0] > bits_of(plan)[1]);
}

TEST_CASE("Only rows of a sample are read") {
  MemoryModel model;
  auto W = gaussian(128, 64, 2);
  for (Index j = 0; j < 64; ++j) W(1, j) = 1e30f;  // an odd row: every second one is in the sample
  add(model, "one", gaussian(128, 64, 2));
  add(model, "two", W);
  Plan plan = make_plan(model.tensors(), model.config(), {.recipe = recipes::fast<>{}});
  allocate_plan(plan, model, 5);
  CHECK(std::abs(bits_of(plan)[0] - bits_of(plan)[1]) <= 1);
  CHECK(model.released() == std::set<std::string>{"one", "two"});
}

namespace {

/// Of all matrices of a model, each the same but those of one role.
Sensitivities sensitivities_of(const Plan& plan, Role other, double its_value) {
  std::vector<Sensitivity> all;
  for (const MatrixRole& m : plan.roles.matrices)
    all.push_back({.tensor = m.place.tensor,
                   .slice = m.place.slice,
                   .first_row = m.place.begin,
                   .rows = m.place.out,
                   .value = m.role == other ? its_value : 1});
  return Sensitivities(std::move(all));
}
double mean_bits(const Plan& plan, Role role, bool is_it) {
  double bits = 0, weights = 0;
  for (const Step& step : plan.steps) {
    if ((plan.roles.matrices[step.matrices[0]].role == role) != is_it) continue;
    bits += double(plan.storage_bits(step));
    weights += double(plan.weights(step));
  }
  return bits / weights;
}

}  // namespace

TEST_CASE("Bits go to what is sensitive, and what is lost is the sum over all matrices") {
  const MemoryModel model(llama());
  for (const AnyRecipe& recipe : {AnyRecipe(recipes::smallest{}), AnyRecipe(recipes::fast<>{})}) {
    INFO(recipe->name());
    const double target = recipe->with_bits(4) ? 3.4 : 4.5;
    const Plan plan =
        make_plan(model.tensors(), model.config(), {.recipe = recipe, .pairs = false});
    const Sensitivities alike = sensitivities_of(plan, Role::down, 1),
                        differ = sensitivities_of(plan, Role::down, 16);
    const auto allocated = [&](const Sensitivities& sensitivities, double bits) {
      Plan result = plan;
      allocate_plan(result, model, {.target_bits = bits, .sensitivities = &sensitivities});
      return result;
    };
    const Plan even = allocated(alike, target), uneven = allocated(differ, target);
    for (const Plan* each : {&even, &uneven}) {
      CHECK(mean_bits(*each) <= target);
      CHECK(mean_bits(*each) > target - 0.2);
      double sum = 0;
      for (const Step& step : each->steps) {
        REQUIRE(step.expected_loss);
        CHECK((*step.expected_loss)[0] > 0);
        CHECK((*step.expected_loss)[1] == 0);
        sum += (*step.expected_loss)[0];
      }
      CHECK(each->expected_loss() == sum);
    }
    // 16 times as sensitive is two bits.
    const double more = mean_bits(uneven, Role::down, true) - mean_bits(uneven, Role::down, false) -
                        mean_bits(even, Role::down, true) + mean_bits(even, Role::down, false);
    CHECK(more == Approx(2).margin(0.7));
    CHECK(*allocated(differ, target + 0.1).expected_loss() < *uneven.expected_loss());
    // The same for any number of threads.
    ThreadPool threads(3);
    Plan again = plan;
    allocate_plan(again, model, {.target_bits = target, .sensitivities = &differ}, threads);
    for (std::size_t s = 0; s < plan.steps.size(); ++s) {
      CHECK(again.steps[s].recipe == uneven.steps[s].recipe);
      CHECK(again.steps[s].expected_loss == uneven.steps[s].expected_loss);
    }
  }
}

TEST_CASE("What is expected of a matrix is its sensitivity times its error") {
  const MemoryModel model(llama());
  Plan plan = make_plan(model.tensors(), model.config(),
                        {.recipe = recipes::rtn<>{.bits = 3}, .pairs = false});
  const Plan before = plan;
  const Sensitivities sensitivities = sensitivities_of(plan, Role::value, 5);
  allocate_plan(plan, model, {.sensitivities = &sensitivities});
  for (std::size_t s = 0; s < plan.steps.size(); ++s) {
    CHECK(plan.steps[s].recipe == before.steps[s].recipe);
    const MatrixRole& matrix = plan.roles.matrices[plan.steps[s].matrices[0]];
    const Matrix<float> W = load_matrix(model, matrix.place);
    const double error = quantize(W, recipes::rtn<>{.bits = 3}).error(W);
    CHECK((*plan.steps[s].expected_loss)[0] ==
          Approx((matrix.role == Role::value ? 5 : 1) * error).epsilon(0.1));
  }
}

TEST_CASE("What is fused has one grid") {
  const MemoryModel model(llama());
  for (const AnyRecipe& recipe : {AnyRecipe(recipes::smallest{}), AnyRecipe(recipes::fast<>{})}) {
    const Plan plan =
        make_plan(model.tensors(), model.config(), {.recipe = recipe, .pairs = false});
    const Sensitivities differ = sensitivities_of(plan, Role::value, 30);
    for (const Sensitivities* sensitivities : {&differ, static_cast<const Sensitivities*>(nullptr)})
      for (const double target : {4.2, 4.37}) {
        INFO(recipe->name() << " " << target << " " << (sensitivities != nullptr));
        Plan alike = plan;
        allocate_plan(alike, model,
                      {.target_bits = target, .sensitivities = sensitivities, .fused_alike = true});
        CHECK(mean_bits(alike) <= target);
        CHECK(mean_bits(alike) > target - 0.3);
        std::map<std::pair<Index, Role>, std::set<std::string>> grids;
        for (const Step& step : alike.steps) {
          const MatrixRole& m = alike.roles.matrices[step.matrices[0]];
          if (m.layer >= 0) grids[{m.layer, first_reader(m.role)}].insert(alike.grid(step, 0));
        }
        for (const auto& [place, some] : grids) CHECK(some.size() == 1);
      }
  }
}

TEST_CASE("A matrix whose sensitivity is not known is refused by its name") {
  const MemoryModel model(llama());
  Plan plan = make_plan(model.tensors(), model.config(), {.recipe = recipes::fast<>{}});
  const Sensitivities none;
  const Error error = error_of([&] { allocate_plan(plan, model, {.sensitivities = &none}); });
  CHECK(error.code() == ErrorCode::invalid_argument);
  CHECK_THAT(error.message(), Contains("there is none of model.layers.0."));
}
