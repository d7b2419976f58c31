#include "quantize_model/quantizer.hpp"

#include "cafeq/model/standard_recipes.hpp"
#include "cafeq/run/model_run.hpp"
#if CAFEQ_COMPILED
#include "cafeq/compiled/run_instances.hpp"
#endif

template <>
constinit const cafeq::example::Quantizer cafeq::Dispatched<cafeq::example::Quantizer>::table{
    .recipes = standard_recipes,
    .plan =
        [](const RunOptions& options, ExecutorRef executor, const RunProgress& progress) {
          const ModelRun run(options, executor, progress);
          return cafeq::example::PlannedRun{run.plan(), run.forecast()};
        },
    .quantize =
        [](const RunOptions& options, ExecutorRef executor,
           const std::function<void(cafeq::example::PlannedRun)>& begins,
           const RunProgress& progress) {
          const ModelRun run(options, executor, progress);
          begins({run.plan(), run.forecast()});
          return run.quantize(progress);
        },
};
