/// quantize(): one matrix by a recipe or a pipeline.
#pragma once

#include <optional>

#include "cafeq/pipeline/recipe.hpp"

namespace cafeq {

namespace detail {

/// What keeps a recipe from quantizing a matrix [rows, cols], if anything: what it says itself, or
/// what its pipeline says.
template <Recipe R>
std::optional<Error> recipe_fault(const R& recipe, Index rows, Index cols) {
  if (auto fault = fault_of(recipe, rows, cols)) return fault;
  return recipe.pipeline(rows, cols).fault(rows, cols);
}

/// That of a recipe for a metric of the inputs.
template <Recipe R>
auto metric_pipeline(const R& recipe, Index rows, Index cols) {
  if constexpr (requires { recipe.metric_pipeline(rows, cols); })
    return recipe.metric_pipeline(rows, cols);
  else return recipe.pipeline(rows, cols);
}

}  // namespace detail

/// quantize() for callers without exceptions. An empty matrix, a layout whose elements overlap,
/// members of the recipe out of range and a value that is not finite come back as an Error before
/// any work is done; Pipeline::try_quantize() names the little that only the work finds.
template <MatrixView M, Recipe R>
auto try_quantize(M&& W, const R& recipe, ExecutorRef executor = {})
    -> decltype(recipe.pipeline(Index(), Index()).try_quantize(as_view(W), executor)) {
  const auto view = as_view(W);
  if (auto fault = detail::layout_fault(view, "W")) return *fault;
  if (auto fault = fault_of(recipe, view.rows, view.cols)) return *fault;
  return recipe.pipeline(view.rows, view.cols).try_quantize(view, executor);
}

/// The same where errors count in a metric of W's inputs, ‖E‖² = tr(E H Eᵀ): by the recipe's
/// metric_pipeline(), where it has one. The identity changes nothing.
template <MatrixView M, Recipe R>
auto try_quantize(M&& W, const R& recipe, const Metric& metric, ExecutorRef executor = {})
    -> decltype(recipe.pipeline(Index(), Index()).try_quantize(as_view(W), executor)) {
  const auto view = as_view(W);
  if (metric.is_identity() && metric.dim() == view.cols) return try_quantize(W, recipe, executor);
  if (auto fault = detail::layout_fault(view, "W")) return *fault;
  if (auto fault = fault_of(recipe, view.rows, view.cols)) return *fault;
  return detail::metric_pipeline(recipe, view.rows, view.cols).try_quantize(view, metric, executor);
}

/// Quantizes W [out, in] by a recipe: `quantize(W, recipes::learned<3>{})`. Raises what
/// try_quantize() returns. The result owns everything and knows its error and bits per weight.
template <MatrixView M, Recipe R>
auto quantize(M&& W, const R& recipe, ExecutorRef executor = {}) {
  return try_quantize(W, recipe, executor).value();
}
/// The same in a metric of W's inputs: `quantize(W, recipes::learned<3>{}, inputs.metric())`.
template <MatrixView M, Recipe R>
auto quantize(M&& W, const R& recipe, const Metric& metric, ExecutorRef executor = {}) {
  return try_quantize(W, recipe, metric, executor).value();
}

}  // namespace cafeq
