// Code of many kinds, compiled at every level of optimization: a pipeline, packed products and
// threads from the headers alone, and recipes by name.
#include "cafeq/compiled/run_instances.hpp"
#include "quickstart.cpp"

cafeq::AnyRecipe recipe_by_name(std::string_view name) {
  return cafeq::standard_recipes().make(name);
}
