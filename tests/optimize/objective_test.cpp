#include "cafeq/optimize/objective.hpp"

#include "cafeq/core/fault.hpp"
#include "support/catch.hpp"

using namespace cafeq;

namespace {

struct Square {
  int calls = 0;
  double operator()(std::span<const double> x, std::span<double> g) {
    ++calls;
    g[0] = 2 * x[0];
    return x[0] * x[0];
  }
};

/// The smallest optimizer: a user's own.
struct FixedStep {
  double rate = 0.1;
  Minimum minimize(ObjectiveRef f, std::vector<double> x) const {
    std::vector<double> g(x.size());
    for (int i = 0; i < 100; ++i) {
      f(x, g);
      for (std::size_t j = 0; j < x.size(); ++j) x[j] -= rate * g[j];
    }
    const double value = f(x, g);
    return {std::move(x), value, 100, 101, false};
  }
};

static_assert(DifferentiableObjective<Square>);
static_assert(!DifferentiableObjective<int>);
static_assert(Optimizer<FixedStep>);
static_assert(!Optimizer<Square>);

}  // namespace

TEST_CASE("an objective is called through its reference", "[optimize]") {
  Square square;
  const ObjectiveRef f(square);
  std::vector<double> g(1);
  CHECK(f(std::vector<double>{3.0}, g) == 9.0);
  CHECK(g[0] == 6.0);
  CHECK(square.calls == 1);
  const ObjectiveRef copy = f;
  copy(std::vector<double>{1.0}, g);
  CHECK(square.calls == 2);
}

TEST_CASE("an optimizer of the user's own", "[optimize]") {
  Square square;
  const auto r = FixedStep{}.minimize(square, {5.0});
  CHECK(r.x[0] == Approx(0.0).margin(1e-8));
  CHECK(square.calls == 101);
}

TEST_CASE("an optimizer that cannot be limited runs as it is", "[optimize]") {
  const FixedStep same = detail::with_iterations(FixedStep{.rate = 0.2}, 3);
  CHECK(same.rate == 0.2);
  CHECK_FALSE(fault_of(same));
}

TEST_CASE("gain over a window", "[optimize]") {
  detail::GainWindow gain(0.5, 3);
  CHECK_FALSE(gain.exhausted(10.0));
  CHECK_FALSE(gain.exhausted(10.0));
  CHECK_FALSE(gain.exhausted(9.9));
  CHECK_FALSE(gain.exhausted(9.4));  // 0.6 below the value three calls ago
  CHECK(gain.exhausted(9.6));        // 0.4 below
  detail::GainWindow never(0.0, 1);
  for (int i = 0; i < 5; ++i) CHECK_FALSE(never.exhausted(1.0));
}
