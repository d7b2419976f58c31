#include "cafeq/quant/level_table.hpp"

#include <cmath>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

static_assert(GridLevels<TableLevels> && LevelFamily<LevelTable>);

namespace {

LevelTable dense(Index size) {
  std::vector<float> levels(static_cast<std::size_t>(size));
  for (Index k = 0; k < size; ++k)
    levels[std::size_t(k)] = float(k * k) / float(size) - 0.3f * float(size);
  return LevelTable(std::span<const float>(levels));
}

}  // namespace

TEST_CASE("a table finds the nearest level, one weight or a vector at a time") {
  for (const Index size : {2, 3, 16, 17, 256}) {
    const LevelTable table = dense(size);
    const auto u = test::gaussian<float>(1, 64, 3, double(size));
    for (Index i = 0; i < 64; i += Index(Batch<float>::size)) {
      alignas(64) float lane[Batch<float>::size];
      table.nearest(Batch<float>::load_unaligned(u.data() + i)).store_aligned(lane);
      for (std::size_t l = 0; l < Batch<float>::size; ++l) {
        const float v = u.data()[i + Index(l)];
        float nearest = table.level(0);
        for (Index k = 1; k < size; ++k)
          if (std::abs(table.level(std::uint8_t(k)) - v) < std::abs(nearest - v))
            nearest = table.level(std::uint8_t(k));
        CHECK(lane[l] == nearest);
        CHECK(table.nearest(v) == nearest);
      }
    }
  }
}

TEST_CASE("a table as levels gives what the table does") {
  const LevelTable table{-3, 0.5f, 1};
  const TableLevels levels = table.of(table.bits());
  CHECK(levels(0.6f) == 0.5f);
  CHECK(levels(Batch<float>(-1.0f)).get(0) == 0.5f);
  CHECK(levels.code(0.75f) == 1);  // of two that are equally near, the lower
  CHECK(levels.level(2) == 1);
  CHECK(levels.reach() == 3);
  CHECK(levels.unit_scale() == Approx(1 / std::sqrt((9 + 0.25 + 1) / 3.0)));
}

TEST_CASE("what is no table says so") {
  const std::vector<float> many(257, 0.0f);
  const auto check_fault = [](const LevelTable& table, ErrorCode code, const std::string& part) {
    const auto fault = table.fault();
    REQUIRE(fault);
    CHECK(fault->code() == code);
    CHECK_THAT(fault->message(), Contains(part));
  };
  check_fault({1.0f}, ErrorCode::invalid_argument, "levels: 1");
  check_fault(LevelTable(std::span<const float>()), ErrorCode::invalid_argument, "levels: 0");
  check_fault(LevelTable(std::span<const float>(many)), ErrorCode::invalid_argument, "levels: 257");
  check_fault({0.0f, 2.0f, 1.0f}, ErrorCode::invalid_argument, "number 2 is 1 after 2");
  check_fault({0.0f, 0.0f}, ErrorCode::invalid_argument, "levels: must ascend");
  check_fault({0.0f, INFINITY}, ErrorCode::non_finite, "levels: number 1");
  check_fault({std::nanf(""), 0.0f}, ErrorCode::non_finite, "levels: number 0");
  CHECK_FALSE(LevelTable().fault());
}
