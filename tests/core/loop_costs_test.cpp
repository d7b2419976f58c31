#include "cafeq/core/loop_costs.hpp"

#include "support/catch.hpp"

using namespace cafeq;
using detail::LoopCost;
using detail::LoopCosts;

TEST_CASE("a loop of unknown length is shared, one that is over at once is not",
          "[core][loop_costs]") {
  LoopCost cost;
  CHECK(cost.worth_sharing(0));
  cost.ran(1'000, 1, 2);  // 2 µs in all
  CHECK_FALSE(cost.worth_sharing(0));
  CHECK_FALSE(cost.worth_sharing(1'000'000'000));

  LoopCost longer;
  longer.ran(50'000, 1, 2);
  CHECK(longer.worth_sharing(0));
}

TEST_CASE("a loop that loses by being shared is not shared for sixteen times the loss",
          "[core][loop_costs]") {
  LoopCost cost;
  cost.ran(100'000, 2, 2);
  cost.was_shared(3'100'000, 10'000'000);  // 3 ms longer
  CHECK_FALSE(cost.worth_sharing(10'000'000));
  CHECK_FALSE(cost.worth_sharing(10'000'000 + 47'999'999));
  CHECK(cost.worth_sharing(10'000'000 + 48'000'001));

  // Loops that gain are shared on, and one accident does not end that.
  LoopCost gains;
  for (int loop = 0; loop < 100; ++loop) {
    gains.ran(100'000, 2, 2);
    gains.was_shared(55'000, loop);
    CHECK(gains.worth_sharing(loop));
  }
  gains.was_shared(4'000'000, 1000);
  CHECK(gains.worth_sharing(1000));
  gains.was_shared(4'000'000, 1000);
  CHECK_FALSE(gains.worth_sharing(1000));
}

TEST_CASE("an estimate falls at once and grows slowly", "[core][loop_costs]") {
  LoopCost cost;
  cost.ran(4'000, 1, 1);
  cost.ran(1'000'000, 1, 1);     // the thread was set aside
  CHECK(cost.worth_sharing(0));  // 5 µs
  cost.ran(4'000, 1, 1);
  CHECK_FALSE(cost.worth_sharing(0));
  for (int loop = 0; loop < 20; ++loop) cost.ran(1'000'000, 1, 1);  // it has become longer
  CHECK(cost.worth_sharing(0));
}

TEST_CASE("loops are told apart by place and size", "[core][loop_costs]") {
  LoopCosts costs;
  costs.of(0x1000, 10, 1).ran(1'000, 1, 1);
  CHECK_FALSE(costs.of(0x1000, 10, 1).worth_sharing(0));
  CHECK(costs.of(0x1000, 11, 1).worth_sharing(0));
  CHECK(costs.of(0x1000, 10, 2).worth_sharing(0));
  CHECK(costs.of(0x2000, 10, 1).worth_sharing(0));
}
