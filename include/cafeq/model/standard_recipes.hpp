/// The recipes that programs offer for whole models.
#pragma once

#include "cafeq/model/recipe_book.hpp"
#include "cafeq/pipeline/recipes.hpp"

namespace cafeq {

template <class Arch = DefaultArch>
RecipeBook standard_recipes() {
  RecipeBook book;
  book.add(recipes::rtn<>{.group = 64});
  book.add(recipes::mse<>{.group = 64});
  book.add(recipes::fast<>{});
  book.add(recipes::learned<>{});
  book.add(recipes::paper<>{});
  book.add(recipes::smallest{});
  return book;
}

}  // namespace cafeq
