/// What of the tool touches weights: compiled for each architecture.
#pragma once

#include <utility>

#include "cafeq/model/recipe_book.hpp"
#include "cafeq/run/run_options.hpp"
#include "cafeq/simd/dispatch.hpp"

namespace cafeq::example {

struct Quantizer {
  RecipeBook (*recipes)();
  /// What a run would do.
  Plan (*plan)(const RunOptions& options, ExecutorRef executor);
  /// What it was to do, and what has come of it.
  std::pair<Plan, RunSummary> (*quantize)(const RunOptions& options, ExecutorRef executor,
                                          const RunProgress& progress);
};

}  // namespace cafeq::example
