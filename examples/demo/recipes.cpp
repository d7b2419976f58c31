#include "demo/recipes.hpp"

#include <array>

#include "cafeq/pipeline/recipes/fast.hpp"
#include "cafeq/pipeline/recipes/rtn.hpp"
#include "cafeq/pipeline/recipes/smallest.hpp"

namespace cafeq::example {

std::span<const DemoRecipe> demo_recipes() {
  static constexpr std::array<DemoRecipe, 6> all{{{"rtn", 4, false},
                                                  {"smallest", 4, true},
                                                  {"rtn", 3, false},
                                                  {"fast", 3, false},
                                                  {"smallest", 3, true},
                                                  {"smallest", 2, true}}};
  return all;
}

AnyRecipe make_recipe(const DemoRecipe& recipe, std::uint64_t seed) {
  if (recipe.name == "rtn") return recipes::rtn<>{.bits = recipe.bits, .group = 64};
  if (recipe.name == "fast") return recipes::fast<>{.bits = recipe.bits, .seed = seed};
  // Shorter windows than usual: a third of the time for some percent of error.
  return recipes::smallest{.bits = recipe.bits + 0.2, .window = 10, .seed = seed};
}

}  // namespace cafeq::example
