/// What of the demo quantizes; in sources of their own, which compile side by side.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "cafeq/model/any_recipe.hpp"

namespace cafeq::example {

/// A row of the demo's table.
struct DemoRecipe {
  std::string_view name;
  int bits;  ///< of a code; scales, offsets and all else come to it
};

/// From the largest output to the smallest.
std::span<const DemoRecipe> demo_recipes();

/// A recipe as quantize_file() takes it.
AnyRecipe make_recipe(const DemoRecipe& recipe, std::uint64_t seed);

/// Quantizes a model from file to file, as cafeq-quantize does. Returns the bits a weight that are
/// stored.
double quantize_file(const std::string& from, const std::string& to, const AnyRecipe& recipe,
                     ExecutorRef executor);

}  // namespace cafeq::example
