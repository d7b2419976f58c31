#include "cafeq/quant/scale_refinement.hpp"

#include "cafeq/quant/levels.hpp"
#include "laws.hpp"
#include "one_group.hpp"

using namespace cafeq;

namespace {

using Halves = UniformLevels<false, true>;

}  // namespace

TEST_CASE("least squares never adds error, and ends at a fixed point") {
  for (const auto& x : test::awkward_groups()) {
    const float absmax = kernel::range(x).absmax();
    if (absmax > 1e30f || absmax < 1e-30f) continue;
    CAPTURE(x.size(), x[0]);
    const UniformLevels<true> levels{0, 7};
    detail::ScaleOffset at{2 * absmax / 7, -absmax};
    double error = 1e300;
    for (int round = 0; round < 8; ++round) {
      const double next = test::error_at(x, levels, at);
      CHECK(next <= error * (1 + 1e-4) + 1e-6 * double(absmax) * double(absmax));
      error = next;
      at = test::refined(x, levels, at, 1);
      CHECK(at.scale > 0);
    }
    const detail::ScaleOffset fixed = test::refined(x, Halves{-4, 3}, {absmax / 4, 0}, 500);
    CHECK(test::refined(x, Halves{-4, 3}, fixed, 1).scale == Approx(fixed.scale).epsilon(1e-3));
  }
}
