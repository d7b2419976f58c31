/// quantize(): one matrix by a recipe or a pipeline.
#pragma once

#include <optional>

#include "cafeq/pipeline/recipe.hpp"

namespace cafeq {

/// What keeps a recipe from quantizing a matrix [rows, cols], if anything: what it says itself, or
/// what its pipeline says.
template <Recipe R>
std::optional<Error> recipe_fault(const R& recipe, Index rows, Index cols) {
  if (auto fault = fault_of(recipe, rows, cols)) return fault;
  return recipe.pipeline(rows, cols).fault(rows, cols);
}

/// Quantizes W [out, in] by a recipe: `quantize(W, recipes::learned<3>{})`. Throws Error for an
/// empty matrix, a layout whose elements overlap, a value that is not finite, or members of the
/// recipe out of range. The result owns everything and knows its error and bits per weight.
template <MatrixView M, Recipe R>
auto quantize(M&& W, const R& recipe, ExecutorRef executor = {}) {
  const auto view = as_view(W);
  if (auto fault = layout_fault(view, "W")) raise(*fault);
  if (auto fault = recipe_fault(recipe, view.rows, view.cols)) raise(*fault);
  return recipe.pipeline(view.rows, view.cols).quantize(view, executor);
}

/// quantize() for callers without exceptions: whatever is wrong with W or with the recipe's members
/// comes back as an Error (with exceptions, whatever else is, too).
template <MatrixView M, Recipe R>
auto try_quantize(M&& W, const R& recipe, ExecutorRef executor = {})
    -> Result<decltype(quantize(W, recipe, executor))> {
  const auto view = as_view(W);
  if (auto fault = weights_fault(view, "W")) return *fault;
  if (auto fault = recipe_fault(recipe, view.rows, view.cols)) return *fault;
  return catch_error([&] { return quantize(W, recipe, executor); });
}

}  // namespace cafeq
