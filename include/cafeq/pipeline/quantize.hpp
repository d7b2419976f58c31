/// quantize(): one matrix by a recipe or a pipeline.
#pragma once

#include "cafeq/pipeline/recipes.hpp"

namespace cafeq {

/// Something with pipeline(rows, cols), a Pipeline for matrices of that shape; or a pipeline
/// itself.
template <class R>
concept Recipe = requires(const R& r, Index n) { r.pipeline(n, n); } ||
                 requires(const R& r, View<const float> W) { r.quantize(W, ExecutorRef{}); };

/// Quantizes W [out, in] by a recipe: `quantize(W, recipes::learned<3>{})`. Throws Error for an
/// empty matrix, a layout whose elements overlap, a value that is not finite, or members of the
/// recipe out of range. The result owns everything and knows its error and bits per weight.
template <MatrixView M, Recipe R>
auto quantize(M&& W, const R& recipe, ExecutorRef executor = {}) {
  const auto view = as_view(W);
  if (auto fault = layout_fault(view, "W")) raise(*fault);
  if constexpr (requires { recipe.pipeline(view.rows, view.cols); })
    return recipe.pipeline(view.rows, view.cols).quantize(view, executor);
  else return recipe.quantize(view, executor);
}

/// quantize() for callers without exceptions: what is wrong with W, bits or group comes back as an
/// Error (with exceptions, whatever else is, too).
template <MatrixView M, Recipe R>
auto try_quantize(M&& W, const R& recipe, ExecutorRef executor = {})
    -> Result<decltype(quantize(W, recipe, executor))> {
  const auto view = as_view(W);
  if (auto fault = weights_fault(view, "W")) return *fault;
  if constexpr (requires { recipe.pipeline(view.rows, view.cols).quantizer; }) {
    const auto pipeline = catch_error([&] { return recipe.pipeline(view.rows, view.cols); });
    if (!pipeline) return pipeline.error();
    if (auto fault = quantizer_fault(pipeline.value().quantizer)) return *fault;
  }
  return catch_error([&] { return quantize(W, recipe, executor); });
}

}  // namespace cafeq
