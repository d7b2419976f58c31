/// All that a run writes for a plan, in one step.
#pragma once

#include <string>

#include "cafeq/io/part_store.hpp"
#include "cafeq/model/quantize_model.hpp"

namespace cafeq::test {

template <class Output>
void write_output(const Output& output, const ModelFile& model, const Plan& plan,
                  const std::string& path) {
  PartStore parts(path + ".partial", "plan", PartStore::Start::fresh);
  for (std::size_t j = 0; j < plan.jobs.size(); ++j)
    output.write_part(parts.path(j), plan.jobs[j], quantize_job(model, plan, plan.jobs[j]), {});
  output.assemble(parts.whole(), parts, {}, [](double) {});
  parts.finish(path);
}

}  // namespace cafeq::test
