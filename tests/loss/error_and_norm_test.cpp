#include "cafeq/loss/error_and_norm.hpp"

#include <limits>

#include "support/catch.hpp"

using namespace cafeq;

TEST_CASE("an error relative to a norm, also to none", "[loss][error_and_norm]") {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  const auto relative = [](double error, double norm) {
    return ErrorAndNorm{.error = error, .norm = norm}.relative();
  };
  CHECK(relative(1, 4) == 0.25);
  CHECK(relative(0, 4) == 0);
  CHECK(relative(0, 0) == 0);
  CHECK(relative(1, 0) == infinity);
  CHECK(std::isnan(relative(nan, 0)));
  CHECK(std::isnan(relative(nan, 4)));
  CHECK(std::isnan(relative(0, nan)));
}
