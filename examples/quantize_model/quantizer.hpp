/// What of the tool touches weights: compiled for each architecture.
#pragma once

#include <functional>

#include "cafeq/model/recipe_book.hpp"
#include "cafeq/run/run_options.hpp"
#include "cafeq/simd/dispatch.hpp"

namespace cafeq::example {

/// What a run will do, and what is known of it.
struct PlannedRun {
  Plan plan;
  RunForecast forecast;
};

struct Quantizer {
  RecipeBook (*recipes)();
  /// What a run would do.
  PlannedRun (*plan)(const RunOptions& options, ExecutorRef executor, const RunProgress& progress);
  /// What has come of it; `begins` is told what it will do.
  RunSummary (*quantize)(const RunOptions& options, ExecutorRef executor,
                         const std::function<void(PlannedRun)>& begins,
                         const RunProgress& progress);
};

}  // namespace cafeq::example
