#include "demo/quantize.hpp"

#include "cafeq/io/quantized_output.hpp"
#include "cafeq/model/make_plan.hpp"
#include "cafeq/model/quantize_model.hpp"

namespace cafeq::example {

double quantize_file(const std::string& from, const std::string& to, const AnyRecipe& recipe,
                     ExecutorRef executor) {
  const ModelFile model(from);
  const Plan plan = make_plan(model.tensors(), model.config(), {.recipe = recipe});
  const QuantizedOutput output(model, plan);
  PartStore parts(to + ".partial", to, PartStore::Start::anew);
  for (std::size_t j = 0; j < plan.jobs.size(); ++j)
    output.write_part(parts.path(j), plan.jobs[j],
                      quantize_job(model, plan, plan.jobs[j], executor), executor);
  output.assemble(parts.whole(), parts, {}, [](double) {});
  parts.finish(to);
  return double(plan.storage_bits()) / double(plan.weights());
}

}  // namespace cafeq::example
