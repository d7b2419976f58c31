/// In cafeq::compiled, where there is nlohmann_json: what a run does from a model's files to a
/// smaller one.
#pragma once

#include "cafeq/compiled/gguf_instances.hpp"
#include "cafeq/compiled/recipes_instances.hpp"

#if __has_include(<nlohmann/json.hpp>)
#include "cafeq/run/model_run.hpp"

namespace cafeq {

CAFEQ_INSTANCE ModelRun::ModelRun(RunOptions, ExecutorRef, const RunProgress&);
CAFEQ_INSTANCE RunSummary ModelRun::quantize<DefaultArch>(const RunProgress&) const;

}  // namespace cafeq
#endif
