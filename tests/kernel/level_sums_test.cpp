// That they are those of the reference, for every grid, squared_error_test.cpp shows.
#include "cafeq/kernel/level_sums.hpp"

#include <vector>

#include "support/catch.hpp"

using namespace cafeq;

TEST_CASE("level sums are those of the definition") {
  const std::vector<float> x{0.1f, 0.9f, 2.2f, -0.4f, 5.0f};
  const float pivot = 0.25f;
  kernel::Units units{};
  units.inverse[0] = 2;
  const auto sums = kernel::level_sums({x, 5, &pivot}, kernel::UniformLevels<true, false>{0, 3},
                                       units);  // levels 0 1 3 0 3 of y = −.15 .65 1.95 −.65 4.75
  CHECK(sums.level[0] == 7);
  CHECK(sums.level_squares[0] == 19);
  CHECK(sums.product[0] == Approx(0.65 + 3 * 1.95 + 3 * 4.75));
  units.inverse[0] = 1;
  const auto halves = kernel::level_sums({x, 5}, kernel::UniformLevels<false, true>{-2, 1},
                                         units);  // |x| at levels ½ ½ 1½ ½ 1½
  CHECK(halves.level_squares[0] == 3 * 0.25f + 2 * 2.25f);
  CHECK(halves.product[0] == Approx(0.5 * 1.4 + 1.5 * 7.2));
}
