/// The recipes of the demo: a source of their own, which compiles beside main.cpp.
#pragma once

#include <span>
#include <string_view>

#include "cafeq/model/any_recipe.hpp"

namespace cafeq::example {

/// A row of the demo's table.
struct DemoRecipe {
  std::string_view name;
  int bits;       ///< of a code; scales, offsets and all else come to it
  bool own_text;  ///< in the metric of what the layers read on texts that the model writes
};

/// From the largest output to the smallest.
std::span<const DemoRecipe> demo_recipes();

AnyRecipe make_recipe(const DemoRecipe& recipe, std::uint64_t seed);

}  // namespace cafeq::example
