#include "cafeq/model/allocate_plan.hpp"

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
