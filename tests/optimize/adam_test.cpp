#include "cafeq/optimize/adam.hpp"

#include <limits>

#include "support/catch.hpp"

using namespace cafeq;

namespace {

using Point = std::span<const double>;
using Slope = std::span<double>;

double bowl(Point x, Slope g) {
  double f = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double d = x[i] - double(i);
    const double c = double(1 + i * i);  // Adam is blind to the scale of a coordinate
    f += 0.5 * c * d * d;
    g[i] = c * d;
  }
  return f;
}

}  // namespace

TEST_CASE("Adam takes the steps of the paper", "[optimize][adam]") {
  // Two steps by hand on f = ½ x², x₀ = 1, rate .1: the bias-corrected first step is the rate
  // itself.
  Adam adam;
  adam.learning_rate = 0.1;
  std::vector<double> visited;
  const auto f = [&](Point x, Slope g) {
    visited.push_back(x[0]);
    g[0] = x[0];
    return 0.5 * x[0] * x[0];
  };
  adam.steps = 2;
  const auto r = adam.minimize(f, {1.0});
  REQUIRE(visited.size() == 3);
  const double first = 1.0 - 0.1 / (1.0 + 1e-8);
  CHECK(visited[1] == Approx(first).epsilon(1e-12));
  const double mean = (0.9 * 0.1 * 1.0 + 0.1 * first) / (1 - 0.81);
  const double square = (0.999 * 0.001 * 1.0 + 0.001 * first * first) / (1 - 0.999 * 0.999);
  CHECK(visited[2] == Approx(first - 0.1 * mean / (std::sqrt(square) + 1e-8)).epsilon(1e-10));
  CHECK(r.evaluations == 3);
  CHECK(r.iterations == 2);
  CHECK_FALSE(r.converged);
  CHECK(r.x[0] == visited[2]);
}

TEST_CASE("Adam reaches a minimum whatever the scales of the coordinates", "[optimize][adam]") {
  Adam adam;
  adam.learning_rate = 0.05;
  adam.steps = 4000;
  const auto r = adam.minimize(bowl, std::vector<double>(12, 5.0));
  CHECK(r.value < 1e-6);
  for (std::size_t i = 0; i < 12; ++i) CHECK(r.x[i] == Approx(double(i)).margin(1e-3));
}

TEST_CASE("Adam returns the best point of all", "[optimize][adam]") {
  Adam adam;
  adam.learning_rate = 0.5;  // overshoots
  double lowest = std::numeric_limits<double>::infinity();
  for (adam.steps = 0; adam.steps < 60; ++adam.steps) {
    const auto r = adam.minimize(bowl, {3.0, -2.0, 8.0});
    CHECK(r.value <= lowest);
    lowest = r.value;
    std::vector<double> g(3);
    CHECK(bowl(r.x, g) == r.value);
  }
}

TEST_CASE("Adam goes back from where the objective is not finite", "[optimize][adam]") {
  const auto barrier = [](Point x, Slope g) {
    if (x[0] <= 0) {
      g[0] = std::numeric_limits<double>::quiet_NaN();
      return std::numeric_limits<double>::infinity();
    }
    g[0] = 10 - 1 / x[0];
    return 10 * x[0] - std::log(x[0]);
  };
  Adam adam;
  adam.learning_rate = 1.0;  // the first step already leaves the domain
  const auto r = adam.minimize(barrier, {0.9});
  CHECK(r.x[0] == Approx(0.1).epsilon(1e-3));
  CHECK(std::isfinite(r.value));

  const auto nowhere = [](Point, Slope) { return std::numeric_limits<double>::quiet_NaN(); };
  CHECK(adam.minimize(nowhere, {1.0}).x[0] == 1.0);
}

TEST_CASE("Adam stops when the gain is exhausted, if asked to", "[optimize][adam]") {
  Adam adam;
  adam.learning_rate = 0.1;
  adam.gradient_tolerance = 0;
  const auto full = adam.minimize(bowl, {3.0, -2.0});
  CHECK(full.iterations == 3000);
  adam.tolerance = 1e-3;
  const auto early = adam.minimize(bowl, {3.0, -2.0});
  CHECK(early.converged);
  CHECK(early.iterations < 1000);
  CHECK(adam.minimize(bowl, {0.0, 1.0}).iterations == 0);  // at the minimum
}

TEST_CASE("bad options of Adam are refused", "[optimize][adam]") {
  const auto refuses = [](auto change, const char* name) {
    Adam o;
    change(o);
    CHECK_THROWS_WITH(o.minimize(bowl, {0.0}), Contains(name));
  };
  refuses([](Adam& o) { o.learning_rate = 0; }, "learning_rate is 0");
  refuses([](Adam& o) { o.steps = -3; }, "steps is -3");
  refuses([](Adam& o) { o.beta1 = 1; }, "beta is 1");
  refuses([](Adam& o) { o.beta2 = -0.5; }, "beta is -0.5");
  refuses([](Adam& o) { o.window = 0; }, "window is 0");
}

TEST_CASE("Adam says what is wrong with it, and takes fewer steps", "[optimize][adam]") {
  CHECK_FALSE(fault_of(Adam{}));
  const auto fault = [](const Adam& adam) {
    const auto error = fault_of(adam, 3, 4);
    REQUIRE(error);
    CHECK(error->code() == ErrorCode::invalid_argument);
    return error->message();
  };
  CHECK(fault({.learning_rate = 0}) == "adam: learning_rate is 0, must be positive");
  CHECK(fault({.steps = -1}) == "adam: steps is -1, must not be negative");
  CHECK(fault({.beta2 = 1}) == "adam: beta is 1, must lie in [0, 1)");
  CHECK(fault({.window = 0}) == "optimizer: window is 0, must be positive");
  CHECK(detail::with_iterations(Adam{.steps = 100}, 7).steps == 7);
  CHECK(detail::with_iterations(Adam{.steps = 5}, 7).steps == 5);
}
