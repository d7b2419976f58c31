#include "cafeq/rounding/nearest.hpp"

#include <cmath>

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/quant/affine.hpp"
#include "cafeq/quant/midrise.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/toy_quantizer.hpp"

using namespace cafeq;

namespace {

/// No level of the grid is nearer than the one chosen.
template <class Q>
void check_nearest(const Q& quantizer, View<const float> X) {
  const auto encoding = round(Nearest{}, X, quantizer, Metric::identity(X.cols));
  for (Index i = 0; i < X.rows; ++i)
    for (Index j = 0; j < X.cols; ++j) {
      const double distance = std::abs(double(encoding.value(i, j)) - double(X(i, j)));
      for (int code = 0; code < 1 << int(quantizer.bits); ++code) {
        const double other = std::abs(
            double(quantizer.decode(std::uint8_t(code), encoding.params(i, j))) - double(X(i, j)));
        REQUIRE(distance <= other + 1e-6 * std::abs(double(X(i, j))));
      }
    }
}

}  // namespace

TEST_CASE("No level is nearer than the one that was chosen") {
  for (const Index n : {1, 7, 17, 33, 129}) {
    const auto X = test::heavy_tailed(3, n, std::uint64_t(n), 0, 100.0);
    for (const Index group : {per_row, per_tensor, Index(16)}) {
      check_nearest(test::ToyMidrise{.bits = 3, .group = group}, X.view());
      check_nearest(Midrise<4>{.group = group}, X.view());
      check_nearest(Affine<2>{.group = group}, X.view());
    }
  }
}

TEST_CASE("The metric and its side change nothing, and parameters stay as they were fitted") {
  const auto X = test::gaussian<float>(9, 9, 2);
  const auto expected = round(Nearest{}, X.view(), Midrise<3>{}, Metric::identity(9));
  std::vector<double> weights;
  for (Index i = 0; i < 9; ++i) weights.push_back(std::pow(10.0, double(i - 4)));
  Encoding<Midrise<3>> fitted({}, 9, 9);
  fitted.fit(X.view());
  for (const Side side : {Side::input, Side::output}) {
    const auto encoding = round(Nearest{}, X.view(), Midrise<3>{}, Metric::diagonal(weights), side);
    for (Index i = 0; i < 9; ++i) {
      CHECK(encoding.params(i, 0).scale.bits == fitted.params(i, 0).scale.bits);
      for (Index j = 0; j < 9; ++j) CHECK(encoding.code(i, j) == expected.code(i, j));
    }
  }
}

TEST_CASE("Part of a larger matrix rounds as a copy of it does, on any number of threads") {
  const auto whole = test::gaussian<float>(200, 150, 3);
  const auto part = whole.view().block(3, 5, 190, 129);
  const auto copied = to_matrix<float>(part);
  const auto expected =
      round(Nearest{}, copied.view(), Affine<3>{.group = 32}, Metric::identity(129));
  for (const Index threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    const auto encoding =
        round(Nearest{}, part, Affine<3>{.group = 32}, Metric::identity(129), Side::input, pool);
    for (Index i = 0; i < 190; ++i)
      REQUIRE(std::equal(encoding.codes(i).begin(), encoding.codes(i).end(),
                         expected.codes(i).begin()));
  }
}
