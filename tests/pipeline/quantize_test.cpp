#include "cafeq/pipeline/quantize.hpp"
#include "cafeq/pipeline/recipes.hpp"

#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

TEST_CASE("quantize() is the recipe's pipeline") {
  const auto W = test::gaussian<float>(40, 64, 2);
  const recipes::fast<3> recipe{.group = 16, .seed = 3};
  CHECK(quantize(W, recipe).error(W) == recipe.pipeline(40, 64).quantize(W).error(W));
}

TEST_CASE("try_quantize() gives a value or says what is wrong") {
  auto W = test::gaussian<float>(4, 8, 2);
  const auto good = try_quantize(W, recipes::fast<4>{});
  REQUIRE(good);
  CHECK(good.value().rows() == 4);
  W(1, 2) = std::numeric_limits<float>::quiet_NaN();
  const auto bad = try_quantize(W, recipes::fast<4>{});
  REQUIRE(!bad);
  CHECK(bad.error().code() == ErrorCode::non_finite);
  CHECK(bad.error().message() == "W: row 1, column 2 is nan");
  W(1, 2) = 0;
  const auto wrong = try_quantize(W, recipes::fast<4>{.group = -7});
  REQUIRE(!wrong);
  CHECK(wrong.error().code() == ErrorCode::invalid_argument);
  CHECK_THROWS_AS(wrong.value(), Error);
}

namespace {
struct MyRecipe {
  auto pipeline(Index, Index) const {
    return Pipeline{Identity{}, Affine<8>{.group = 4}, Nearest{}};
  }
};
}  // namespace

TEST_CASE("A pipeline is a recipe too") {
  const auto W = test::gaussian<float>(4, 8, 2);
  const auto pipeline = MyRecipe{}.pipeline(4, 8);
  CHECK(quantize(W, pipeline).error(W) == pipeline.quantize(W).error(W));
  CHECK(try_quantize(W, pipeline).has_value());
}

TEST_CASE("A recipe of the caller's own") {
  const auto W = test::gaussian<float>(4, 8, 2);
  CHECK(quantize(W, MyRecipe{}).error(W) < 1e-4);
}
