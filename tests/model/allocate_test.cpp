#include "cafeq/model/allocate.hpp"

#include <cmath>

#include "support/catch.hpp"

using namespace cafeq;
using detail::allocate_bits;
using detail::Allocation;
using detail::BitChoice;

namespace {

/// 2 to 8 bits of `weights` weights whose error quarters with each.
std::vector<BitChoice> gaussian(std::int64_t weights, double error) {
  std::vector<BitChoice> choices;
  for (int bits = 2; bits <= 8; ++bits)
    choices.push_back({weights * bits, error * std::pow(0.25, bits - 2)});
  return choices;
}

/// The least error of all allocations.
double exhaustive(const std::vector<std::vector<BitChoice>>& matrices, std::int64_t budget,
                  std::size_t m = 0) {
  if (budget < 0) return 1e300;
  if (m == matrices.size()) return 0;
  double least = 1e300;
  for (const BitChoice& choice : matrices[m])
    least = std::min(least, choice.error + exhaustive(matrices, budget - choice.storage, m + 1));
  return least;
}
double error_of_choice(const std::vector<std::vector<BitChoice>>& matrices,
                       const Allocation& allocation) {
  double error = 0;
  for (std::size_t m = 0; m < matrices.size(); ++m)
    error += matrices[m][allocation.choice[m]].error;
  return error;
}

}  // namespace

TEST_CASE("Bits go where they save the most error, and the budget is met from below") {
  const std::vector<std::vector<BitChoice>> matrices{gaussian(100, 1), gaussian(100, 16),
                                                     gaussian(50, 1)};
  for (std::int64_t budget = 500; budget <= 2000; budget += 50) {
    INFO(budget);
    const auto found = allocate_bits(matrices, budget);
    CHECK(found.fits);
    CHECK(found.storage <= budget);
    std::int64_t storage = 0;
    for (std::size_t m = 0; m < matrices.size(); ++m)
      storage += matrices[m][found.choice[m]].storage;
    CHECK(storage == found.storage);
    // The result is within one step of the optimum, and no step takes more than 100 bits.
    CHECK(error_of_choice(matrices, found) <= exhaustive(matrices, budget - 100) + 1e-12);
  }
  // 16 times the error is worth two bits more.
  const auto equal = allocate_bits(std::vector{gaussian(10, 1), gaussian(10, 16)}, 100);
  CHECK(equal.choice == std::vector<std::size_t>{2, 4});
}

TEST_CASE("More budget never adds error") {
  const std::vector<std::vector<BitChoice>> matrices{gaussian(64, 3), gaussian(1000, 1),
                                                     gaussian(17, 40)};
  double before = 1e300;
  for (std::int64_t budget = 2000; budget < 9000; budget += 501) {
    const double error = error_of_choice(matrices, allocate_bits(matrices, budget));
    CHECK(error <= before);
    before = error;
  }
  CHECK(allocate_bits(matrices, 1 << 20).choice == std::vector<std::size_t>{6, 6, 6});
}

TEST_CASE("A choice whose neighbour saves nothing is passed over") {
  const std::vector<std::vector<BitChoice>> matrices{{{10, 5}, {20, 5}, {30, 1}}};
  CHECK(allocate_bits(matrices, 30).choice[0] == 2);
  CHECK(allocate_bits(matrices, 29).choice[0] == 0);
}

TEST_CASE("What does not fit at all says so") {
  const std::vector<std::vector<BitChoice>> matrices{gaussian(100, 1)};
  const auto found = allocate_bits(matrices, 199);
  CHECK_FALSE(found.fits);
  CHECK(found.choice == std::vector<std::size_t>{0});
  CHECK(allocate_bits({}, 0).fits);
  CHECK_THROWS_WITH(allocate_bits(std::vector<std::vector<BitChoice>>(1), 1),
                    Contains("without choices"));
  CHECK_THROWS_WITH(allocate_bits(std::vector<std::vector<BitChoice>>{{{2, 1}, {2, 0}}}, 1),
                    Contains("growing storage"));
}
