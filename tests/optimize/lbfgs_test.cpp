#include "cafeq/optimize/lbfgs.hpp"

#include <limits>

#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

namespace {

using Point = std::span<const double>;
using Slope = std::span<double>;

/// Chained Rosenbrock: minimum 0 at (1, …, 1), in a curved valley.
double rosenbrock(Point x, Slope g) {
  double f = 0;
  for (double& v : g) v = 0;
  for (std::size_t i = 0; i + 1 < x.size(); ++i) {
    const double a = x[i + 1] - x[i] * x[i];
    const double b = 1 - x[i];
    f += 100 * a * a + b * b;
    g[i] += -400 * a * x[i] - 2 * b;
    g[i + 1] += 200 * a;
  }
  return f;
}

/// ½ Σ c_i (x_i − i)², condition number 1e4.
double quadratic(Point x, Slope g) {
  double f = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double c = std::pow(1e4, double(i) / double(x.size()));
    const double d = x[i] - double(i);
    f += 0.5 * c * d * d;
    g[i] = c * d;
  }
  return f;
}

Lbfgs patient() {
  Lbfgs o;
  o.max_iterations = 2000;
  o.tolerance = 0;
  o.gradient_tolerance = 1e-8;
  return o;
}

/// Counts calls and remembers values.
template <class F>
struct Recorder {
  F f;
  std::vector<double> values;
  double operator()(Point x, Slope g) {
    values.push_back(f(x, g));
    return values.back();
  }
};

}  // namespace

TEST_CASE("L-BFGS finds the minimum of Rosenbrock's function", "[optimize][lbfgs]") {
  for (const std::size_t n : {2u, 10u, 100u}) {
    std::vector<double> x0(n, -1.2);
    for (std::size_t i = 1; i < n; i += 2) x0[i] = 1.0;
    const auto r = patient().minimize(rosenbrock, x0);
    CHECK(r.converged);
    CHECK(r.value < 1e-14);
    CHECK(r.iterations < 60 + 6 * Index(n));
    for (const double v : r.x) CHECK(v == Approx(1.0).epsilon(1e-6));
  }
}

TEST_CASE("L-BFGS solves an ill-conditioned quadratic", "[optimize][lbfgs]") {
  for (const Index history : {1, 3, 10, 40}) {
    auto o = patient();
    o.history = history;
    const auto r = o.minimize(quadratic, std::vector<double>(50, 0.0));
    CHECK(r.converged);
    for (std::size_t i = 0; i < 50; ++i) CHECK(r.x[i] == Approx(double(i)).margin(1e-6));
  }
  // More history than unknowns: as good as conjugate gradients.
  auto o = patient();
  o.history = 8;
  CHECK(o.minimize(quadratic, std::vector<double>(3, 10.0)).iterations < 20);
}

TEST_CASE(
    "with all its history and a sharp line search, L-BFGS ends on a quadratic in as many steps as "
    "unknowns",
    "[optimize][lbfgs]") {
  auto o = patient();
  o.history = 60;
  o.curvature = 0.1;
  const auto r = o.minimize(quadratic, std::vector<double>(50, 0.0));
  CHECK(r.converged);
  CHECK(r.iterations <= 55);
}

TEST_CASE("values never grow, and the value belongs to the point", "[optimize][lbfgs]") {
  double last = std::numeric_limits<double>::infinity();
  for (Index limit = 0; limit <= 30; ++limit) {
    auto o = patient();
    o.max_iterations = limit;
    const auto r = o.minimize(rosenbrock, {-1.2, 1.0, -1.2, 1.0});
    CHECK(r.iterations <= limit);
    CHECK(r.value <= last);
    last = r.value;
    std::vector<double> g(4);
    CHECK(rosenbrock(r.x, g) == r.value);
  }
  CHECK(last < 0.1);
}

TEST_CASE("evaluations are counted", "[optimize][lbfgs]") {
  Recorder<double (*)(Point, Slope)> f{rosenbrock, {}};
  const auto r = patient().minimize(f, {-1.2, 1.0});
  CHECK(r.evaluations == Index(f.values.size()));
  CHECK(*std::min_element(f.values.begin(), f.values.end()) == r.value);
}

TEST_CASE("line search accepts only points with the strong Wolfe conditions", "[optimize][lbfgs]") {
  // A wavy slope with many local conditions; first steps far too short and far too long.
  const auto wavy = [](Point x, Slope g) {
    g[0] = 2 * (x[0] - 3) + 3 * std::cos(5 * x[0]);
    return (x[0] - 3) * (x[0] - 3) + 0.6 * std::sin(5 * x[0]);
  };
  Lbfgs options;
  options.curvature = 0.1;
  for (const double first : {1e-6, 1e-2, 1.0, 100.0, 1e6}) {
    detail::LineSearch line(options, ObjectiveRef(wavy), 1);
    std::vector<double> g(1);
    const std::vector<double> origin{-2.0};
    const double f0 = wavy(origin, g);
    const std::vector<double> direction{-g[0]};
    const double slope = -g[0] * g[0];
    const auto value = line.search(origin, direction, f0, slope, first);
    REQUIRE(value);
    const double step = (line.x()[0] - origin[0]) / direction[0];
    CHECK(step > 0);
    CHECK(*value <= f0 + options.sufficient_decrease * step * slope);
    CHECK(std::abs(line.gradient()[0] * direction[0]) <= -options.curvature * slope);
    CHECK(wavy(line.x(), g) == *value);
    CHECK(g[0] == line.gradient()[0]);
  }
}

TEST_CASE("L-BFGS backs off from where the objective is not finite", "[optimize][lbfgs]") {
  // A logarithmic barrier: nothing beyond x = 0, the minimum at 1e-3.
  constexpr double infinity = std::numeric_limits<double>::infinity();
  for (const double outside : {infinity, -infinity, std::numeric_limits<double>::quiet_NaN()}) {
    const auto barrier = [&](Point x, Slope g) {
      if (x[0] <= 0) {
        g[0] = std::numeric_limits<double>::quiet_NaN();
        return outside;
      }
      g[0] = 1e3 - 1 / x[0];
      return 1e3 * x[0] - std::log(x[0]);
    };
    auto o = patient();
    o.gradient_tolerance = 1e-5;
    const auto r = o.minimize(barrier, {5.0});
    CHECK(r.x[0] == Approx(1e-3).epsilon(1e-6));
    CHECK(r.converged);
  }
  // A start outside the domain is returned as it is.
  const auto nowhere = [](Point, Slope) { return std::numeric_limits<double>::quiet_NaN(); };
  const auto r = patient().minimize(nowhere, {1.0, 2.0});
  CHECK(r.x == std::vector<double>{1.0, 2.0});
  CHECK_FALSE(r.converged);
  CHECK(r.evaluations == 1);
}

TEST_CASE("L-BFGS stops when the gain is exhausted", "[optimize][lbfgs]") {
  Lbfgs o;
  o.max_iterations = 1000;
  o.tolerance = 1e-3;
  o.window = 10;
  std::vector<double> x0(100, -1.2);
  const auto early = o.minimize(rosenbrock, x0);
  CHECK(early.converged);
  o.tolerance = 0;
  o.gradient_tolerance = 1e-8;
  const auto late = o.minimize(rosenbrock, x0);
  CHECK(early.iterations < late.iterations);
  CHECK(early.iterations >= o.window);
  CHECK(late.value <= early.value);
}

TEST_CASE("a start at the minimum is left alone", "[optimize][lbfgs]") {
  const auto r = patient().minimize(rosenbrock, {1.0, 1.0});
  CHECK(r.converged);
  CHECK(r.iterations == 0);
  CHECK(r.evaluations == 1);
  CHECK(patient().minimize([](Point, Slope) { return 4.0; }, {}).value == 4.0);  // no unknowns
}

TEST_CASE("an objective without the slope it claims ends the search", "[optimize][lbfgs]") {
  const auto lies = [](Point x, Slope g) {
    g[0] = -1;
    return x[0];
  };
  const auto r = patient().minimize(lies, {2.0});
  CHECK_FALSE(r.converged);
  CHECK(r.x[0] == 2.0);
  CHECK(r.value == 2.0);
}

TEST_CASE("bad options of L-BFGS are refused", "[optimize][lbfgs]") {
  const auto refuses = [](auto change, const char* name) {
    Lbfgs o;
    change(o);
    CHECK_THROWS_WITH(o.minimize(rosenbrock, {0.0, 0.0}), Contains(name));
  };
  refuses([](Lbfgs& o) { o.history = 0; }, "history is 0");
  refuses([](Lbfgs& o) { o.max_iterations = -1; }, "max_iterations is -1");
  refuses([](Lbfgs& o) { o.max_search = 0; }, "max_search is 0");
  refuses([](Lbfgs& o) { o.window = 0; }, "window is 0");
  refuses([](Lbfgs& o) { o.tolerance = -1; }, "tolerance is -1");
  refuses([](Lbfgs& o) { o.gradient_tolerance = std::nan(""); }, "gradient_tolerance is nan");
  refuses([](Lbfgs& o) { o.curvature = 1; }, "curvature 1");
  refuses([](Lbfgs& o) { o.sufficient_decrease = 0.95; }, "sufficient_decrease 0.95");
}

TEST_CASE("L-BFGS says what is wrong with it, and takes fewer iterations", "[optimize][lbfgs]") {
  CHECK_FALSE(fault_of(Lbfgs{}));
  const auto fault = [](const Lbfgs& lbfgs) {
    const auto error = fault_of(lbfgs, 3, 4);
    REQUIRE(error);
    CHECK(error->code() == ErrorCode::invalid_argument);
    return error->message();
  };
  CHECK(fault({.history = 0}) == "lbfgs: history is 0, must be positive");
  CHECK(fault({.max_iterations = -1}) == "lbfgs: max_iterations is -1, must not be negative");
  CHECK(fault({.max_search = 0}) == "lbfgs: max_search is 0, must be positive");
  CHECK(fault({.sufficient_decrease = 0.5, .curvature = 0.5}) ==
        "lbfgs: sufficient_decrease 0.5 and curvature 0.5 must satisfy 0 < sufficient_decrease < "
        "curvature < 1");
  CHECK(fault({.tolerance = -1}) == "optimizer: tolerance is -1, must not be negative");
  CHECK(detail::with_iterations(Lbfgs{.max_iterations = 60}, 7).max_iterations == 7);
  CHECK(detail::with_iterations(Lbfgs{.max_iterations = 5}, 7).max_iterations == 5);
}
