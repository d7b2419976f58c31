/// Plans for the families of models, and what tests look up in them.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cafeq/io/json_config.hpp"
#include "cafeq/model/make_plan.hpp"
#include "cafeq/pipeline/recipes/fast.hpp"
#include "model/families.hpp"
#include "support/catch.hpp"

namespace cafeq::test {

/// With the bytes that the tensors take in a file.
inline std::vector<TensorInfo> in_file(std::vector<TensorInfo> tensors) {
  for (TensorInfo& tensor : tensors) {
    const auto scalar = scalar_type_named(tensor.type);
    const auto blocks = gguf_type_named(tensor.type);
    const Index count = *element_count(tensor.shape);
    tensor.bytes = scalar ? count * bytes_of(*scalar)
                          : Index(double(count) * gguf_type_info(*blocks).bits_per_weight() / 8);
  }
  return tensors;
}

/// Each matrix is in one step or its tensor is kept, each tensor is in one job or kept, and jobs
/// have whole steps.
inline void check_cover(std::span<const TensorInfo> tensors, const Plan& plan) {
  std::map<std::size_t, int> steps_of;
  for (const Step& step : plan.steps) {
    CHECK(step.matrices.size() == (step.pair ? 2 : 1));
    for (const std::size_t m : step.matrices) ++steps_of[m];
  }

  std::map<std::string, int> owners;
  std::vector<int> jobs_of(plan.steps.size());
  for (const Job& job : plan.jobs) {
    for (const std::string& tensor : job.tensors) ++owners[tensor];
    for (const std::size_t s : job.steps) {
      ++jobs_of[s];
      for (const std::size_t m : plan.steps[s].matrices)
        CHECK(std::count(job.tensors.begin(), job.tensors.end(), plan.place(m).tensor) == 1);
    }
  }
  CHECK(std::all_of(jobs_of.begin(), jobs_of.end(), [](int count) { return count == 1; }));

  std::map<std::string, int> kept;
  for (const KeptTensor& tensor : plan.kept) {
    ++kept[tensor.tensor];
    CHECK_FALSE(tensor.why.empty());
  }
  for (const TensorInfo& tensor : tensors) {
    INFO(tensor.name);
    CHECK(owners[tensor.name] + kept[tensor.name] == 1);
  }
  CHECK(owners.size() == tensors.size());
  for (std::size_t m = 0; m < plan.roles.matrices.size(); ++m) {
    INFO(plan.place(m).tensor);
    CHECK(steps_of[m] == 1 - kept[plan.place(m).tensor]);
  }
}

/// By recipes::fast<> where the options have none.
inline Plan plan_of(const Family& family, PlanOptions options = {}) {
  if (!options.recipe) options.recipe = recipes::fast<>{};
  const auto tensors = in_file(family.tensors);
  Plan plan = make_plan(tensors, config_from_json(family.config), options);
  check_cover(tensors, plan);
  return plan;
}

/// The step that has a tensor's only matrix, or the one with that role.
inline const Step& step_of(const Plan& plan, const std::string& tensor,
                           std::optional<Role> role = {}) {
  for (const Step& step : plan.steps)
    for (const std::size_t m : step.matrices)
      if (plan.place(m).tensor == tensor && (!role || plan.roles.matrices[m].role == *role))
        return step;
  FAIL("no step for " << tensor);
  return plan.steps.front();
}

inline std::set<std::string> tensors_of(const Step& step, const Plan& plan) {
  std::set<std::string> names;
  for (const std::size_t m : step.matrices) names.insert(plan.place(m).tensor);
  return names;
}

}  // namespace cafeq::test
