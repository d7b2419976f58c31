#include "demo/quantize.hpp"

#include "cafeq/run/model_run.hpp"

namespace cafeq::example {

double quantize_file(const std::string& from, const std::string& to, const AnyRecipe& recipe,
                     ExecutorRef executor) {
  const ModelRun run({.input = from,
                      .output = to,
                      .plan = {.recipe = recipe},
                      .start = PartStore::Start::anew,
                      .overwrite = true},
                     executor);
  run.quantize();
  return double(run.plan().storage_bits()) / double(run.plan().weights());
}

}  // namespace cafeq::example
