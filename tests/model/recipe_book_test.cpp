#include "cafeq/model/recipe_book.hpp"

#include <cmath>
#include <limits>

#include "cafeq/model/standard_recipes.hpp"
#include "support/catch.hpp"
#include "support/error_of.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace {

using Options = std::vector<RecipeOption>;

std::string refusal_of(std::string_view name, const Options& options) {
  const RecipeBook book = standard_recipes();
  const Error error = error_of([&] { (void)book.make(name, options); });
  CHECK(error.code() == ErrorCode::invalid_argument);
  return error.message();
}

/// Members of every kind that options can have.
struct Particular {
  static constexpr std::string_view name = "particular";
  static constexpr std::string_view description = "a recipe with many options";
  static constexpr double work = 1;

  float weight = 0;
  bool flag = false;
  std::uint8_t small = 0;
  BitCount<3> bits{};  // which cannot be chosen

  auto pipeline(Index, Index) const {
    return Pipeline{RandomizedHadamard{}, Affine<>{}, Nearest{}};
  }
  std::string transform(Index, Index) const { return "Hadamard"; }
  PairAdvice pair_advice(Index) const { return {}; }
  template <class Self, class F>
  static void options(Self& recipe, F&& f) {
    f("weight", recipe.weight);
    f("flag", recipe.flag);
    f("small", recipe.small);
    f("bits", recipe.bits);
  }
};

}  // namespace

TEST_CASE("The standard recipes by name") {
  const RecipeBook book = standard_recipes();
  CHECK(book.names() == "rtn, mse, fast, learned, paper, smallest");
  REQUIRE(book.entries().size() == 6);
  for (const RecipeBook::Entry& entry : book.entries()) {
    INFO(entry.name);
    CHECK_FALSE(entry.description.empty());
    CHECK(entry.usual->name() == entry.name);
    CHECK(book.make(entry.name) == entry.usual);
    CHECK_FALSE(entry.usual->fault());
  }
  CHECK(book.make("rtn") == AnyRecipe(recipes::rtn<>{.group = 64}));
  CHECK(book.make("fast") == AnyRecipe(recipes::fast<>{}));
  CHECK(book.make("learned") == AnyRecipe(recipes::learned<>{}));
  CHECK(book.make("paper") == AnyRecipe(recipes::paper<>{}));
  CHECK(book.make("smallest") == AnyRecipe(recipes::smallest{}));
}

TEST_CASE("Options take the place of what a recipe has without them") {
  const RecipeBook book = standard_recipes();
  const Options all{
      {"bits", std::int64_t(3)}, {"group", std::int64_t(32)}, {"seed", std::int64_t(7)}};
  CHECK(book.make("fast", all) == AnyRecipe(recipes::fast<>{.bits = 3, .group = 32, .seed = 7}));
  CHECK(book.make("rtn", Options{{"bits", 2.0}}) ==
        AnyRecipe(recipes::rtn<>{.bits = 2, .group = 64}));
  CHECK(book.make("smallest", Options{{"bits", std::int64_t(3)}}) ==
        AnyRecipe(recipes::smallest{.bits = 3}));
  constexpr auto largest = std::numeric_limits<std::uint64_t>::max();
  CHECK(book.make("fast", Options{{"seed", largest}}) ==
        AnyRecipe(recipes::fast<>{.seed = largest}));
  // The book itself stays as it was.
  CHECK(book.make("fast") == AnyRecipe(recipes::fast<>{}));
}

TEST_CASE("Names, options and values that a book does not know are refused") {
  CHECK_THAT(refusal_of("best", {}),
             Contains("recipe best is not one of rtn, mse, fast, learned, paper, smallest"));
  CHECK_THAT(refusal_of("smallest", {{"group", std::int64_t(64)}}),
             Contains("recipe smallest has no option group"));
  CHECK_THAT(refusal_of("rtn", {{"seed", std::int64_t(1)}}),
             Contains("recipe rtn has no option seed"));
  CHECK_THAT(refusal_of("fast", {{"bits", 2.5}}), Contains("recipe fast: bits cannot be 2.5"));
  CHECK_THAT(refusal_of("fast", {{"seed", std::int64_t(-1)}}),
             Contains("recipe fast: seed cannot be -1"));
  CHECK_THAT(refusal_of("fast", {{"group", std::uint64_t(1) << 63}}),
             Contains("group cannot be 9223372036854775808"));
  CHECK_THAT(refusal_of("fast", {{"bits", std::int64_t(1) << 40}}), Contains("bits cannot be"));
  for (const double none : {1e30, -1e30, std::ldexp(1.0, 63), HUGE_VAL, std::nan("")})
    CHECK_THAT(refusal_of("fast", {{"group", none}}), Contains("group cannot be"));

  // What fits a member, but not the recipe, the recipe refuses.
  CHECK_THAT(refusal_of("fast", {{"bits", std::int64_t(9)}}), Contains("bits"));
  CHECK_THAT(refusal_of("fast", {{"group", std::int64_t(-2)}}), Contains("group is -2"));
  CHECK_THAT(refusal_of("smallest", {{"bits", 0.5}}), Contains("smallest: bits is 0.5"));
  CHECK_THAT(refusal_of("smallest", {{"bits", std::nan("")}}), Contains("smallest: bits is nan"));
}

TEST_CASE("A recipe is added by one line, and replaces one of its name") {
  RecipeBook book = standard_recipes();
  book.add(Particular{});
  book.add(recipes::fast<>{.bits = 2});
  CHECK(book.names() == "rtn, mse, learned, paper, smallest, particular, fast");
  CHECK(book.make("fast") == AnyRecipe(recipes::fast<>{.bits = 2}));
  CHECK(book.make("fast", Options{{"group", std::int64_t(16)}}) ==
        AnyRecipe(recipes::fast<>{.bits = 2, .group = 16}));
}

TEST_CASE("Members of any type of numbers can be options") {
  RecipeBook book;
  book.add(Particular{.weight = 1});
  const AnyRecipe recipe =
      book.make("particular",
                Options{{"flag", std::int64_t(1)}, {"small", std::uint64_t(255)}, {"weight", 0.5}});
  const auto* particular = recipe.as<Particular>();
  REQUIRE(particular != nullptr);
  CHECK(particular->flag);
  CHECK(particular->small == 255);
  CHECK(particular->weight == 0.5f);
  const auto refused = [&](const RecipeOption& option) {
    return error_of([&] { (void)book.make("particular", Options{option}); }).message();
  };
  CHECK_THAT(refused({"flag", std::int64_t(2)}), Contains("flag cannot be 2"));
  CHECK_THAT(refused({"small", std::int64_t(256)}), Contains("small cannot be 256"));
  CHECK_THAT(refused({"small", std::int64_t(-1)}), Contains("small cannot be -1"));
  CHECK_THAT(refused({"bits", std::int64_t(3)}), Contains("bits cannot be 3"));
}
