#include "demo/recipes.hpp"

#include <array>

#include "cafeq/pipeline/recipes/fast.hpp"
#include "cafeq/pipeline/recipes/rtn.hpp"
#include "cafeq/pipeline/recipes/smallest.hpp"

namespace cafeq::example {

std::span<const DemoRecipe> demo_recipes() {
  static constexpr std::array<DemoRecipe, 7> all{{{"rtn", 4},
                                                  {"fast", 4},
                                                  {"smallest", 4},
                                                  {"rtn", 3},
                                                  {"fast", 3},
                                                  {"smallest", 3},
                                                  {"smallest", 2}}};
  return all;
}

AnyRecipe make_recipe(const DemoRecipe& recipe, std::uint64_t seed) {
  if (recipe.name == "rtn") return recipes::rtn<>{.bits = recipe.bits, .group = 64};
  if (recipe.name == "fast") return recipes::fast<>{.bits = recipe.bits, .seed = seed};
  return recipes::smallest{.bits = recipe.bits + 0.25, .seed = seed};
}

}  // namespace cafeq::example
