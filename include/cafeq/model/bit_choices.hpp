/// The choices of bits that steps of a plan have, by themselves or together. Internal.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cafeq/model/plan.hpp"

namespace cafeq::detail {

/// The fewest bits a weight that recipes with a continuous rate have.
inline constexpr double least_rate = 1;

/// Steps that are chosen for together: each by itself, but those of a job where a tensor has one
/// recipe, and those with matrices that are to be alike.
inline std::vector<std::vector<std::size_t>> steps_to_choose_for(const Plan& plan,
                                                                 bool fused_alike = false) {
  std::vector<std::size_t> root(plan.steps.size());
  std::iota(root.begin(), root.end(), std::size_t(0));
  const auto find = [&](std::size_t s) {
    while (root[s] != s) s = root[s];
    return s;
  };
  const auto join = [&](std::size_t s, std::size_t t) {
    const std::size_t a = find(s), b = find(t);
    root[std::max(a, b)] = std::min(a, b);
  };
  for (const Job& job : plan.jobs)
    if (plan.steps[job.steps[0]].recipe->is_one_a_tensor())
      for (const std::size_t s : job.steps) join(job.steps[0], s);
  if (fused_alike) {
    std::map<std::pair<Index, Role>, std::size_t> first;
    for (std::size_t s = 0; s < plan.steps.size(); ++s)
      for (const std::size_t m : plan.steps[s].matrices)
        if (const MatrixRole& matrix = plan.roles.matrices[m]; matrix.layer >= 0)
          join(first.try_emplace({matrix.layer, first_reader(matrix.role)}, s).first->second, s);
  }

  std::map<std::size_t, std::vector<std::size_t>> groups;
  for (std::size_t s = 0; s < root.size(); ++s) groups[find(s)].push_back(s);
  std::vector<std::vector<std::size_t>> all;
  for (auto& [first, steps] : groups) all.push_back(std::move(steps));
  return all;
}

/// Recipes for steps that are chosen for together, what they store and what they cost.
struct StepsChoice {
  std::vector<AnyRecipe> recipes;  // of each step
  std::int64_t storage = 0;
  std::vector<std::array<double, 2>> losses{};  // of each step's matrices

  double loss() const {
    double sum = 0;
    for (const auto& [first, second] : losses) sum += first + second;
    return sum;
  }
};

/// Whether these are bits that a continuous rate has not.
inline bool has_fault(const Plan& plan, std::span<const std::size_t> steps, double bits) {
  return (*plan.steps[steps[0]].recipe->with_bits(bits))->fault().has_value();
}

/// The same bits for all of these steps, and where the grids that these afford differ, the finest
/// of them.
inline std::vector<AnyRecipe> with_equal_bits(const Plan& plan, std::span<const std::size_t> steps,
                                              double bits) {
  constexpr double close = 1. / 64, widest = 0.5;
  const auto grid = [&](std::size_t s, const AnyRecipe& recipe) {
    Step step = plan.steps[s];
    step.recipe = recipe;
    return plan.grid(step, 0);
  };
  const auto code_bits = [&](std::size_t s, const AnyRecipe& recipe) {
    const MatrixPlace& place = plan.place(plan.steps[s].matrices[0]);
    return recipe->code_bits(place.out, place.in);
  };
  std::vector<AnyRecipe> recipes;
  for (const std::size_t s : steps) recipes.push_back(*plan.steps[s].recipe->with_bits(bits));
  std::size_t finest = 0;
  for (std::size_t i = 1; i < steps.size(); ++i)
    if (code_bits(steps[i], recipes[i]) > code_bits(steps[finest], recipes[finest])) finest = i;
  const std::string wanted = grid(steps[finest], recipes[finest]);
  for (std::size_t i = 0; i < steps.size(); ++i)
    for (double more = close; more <= widest && grid(steps[i], recipes[i]) != wanted;
         more += close) {
      if (has_fault(plan, steps, bits + more)) break;
      const AnyRecipe other = *plan.steps[steps[i]].recipe->with_bits(bits + more);
      if (grid(steps[i], other) == wanted) recipes[i] = other;
    }
  return recipes;
}

inline StepsChoice choice_of(const Plan& plan, std::span<const std::size_t> steps,
                             std::vector<AnyRecipe> recipes) {
  StepsChoice choice{.recipes = std::move(recipes)};
  for (std::size_t i = 0; i < steps.size(); ++i)
    choice.storage += plan.storage_bits(plan.steps[steps[i]], choice.recipes[i]);
  return choice;
}
inline StepsChoice as_planned(const Plan& plan, std::span<const std::size_t> steps) {
  std::vector<AnyRecipe> recipes;
  for (const std::size_t s : steps) recipes.push_back(plan.steps[s].recipe);
  return choice_of(plan, steps, std::move(recipes));
}

/// All that there are; of recipes with a continuous rate those that store more than the one before.
inline std::vector<StepsChoice> choices_for(const Plan& plan, std::span<const std::size_t> steps) {
  std::vector<StepsChoice> choices;
  if (plan.steps[steps[0]].recipe->with_bits(least_rate)) {
    constexpr double most = 9, step = 1. / 32;
    for (double bits = least_rate; bits <= most; bits += step) {
      StepsChoice choice = choice_of(plan, steps, with_equal_bits(plan, steps, bits));
      if (choices.empty() || choice.storage > choices.back().storage)
        choices.push_back(std::move(choice));
    }
    return choices;
  }
  std::vector<Index> cols;
  for (const std::size_t s : steps)
    for (const std::size_t m : plan.steps[s].matrices) cols.push_back(plan.place(m).in);
  // Each step has its own, some of them perhaps in a metric, in the same order.
  std::vector<std::vector<AnyRecipe>> each;
  std::size_t count = std::numeric_limits<std::size_t>::max();
  for (const std::size_t s : steps) {
    each.push_back(plan.steps[s].recipe->alternatives(cols));
    count = std::min(count, each.back().size());
  }
  for (std::size_t c = 0; c < count; ++c) {
    std::vector<AnyRecipe> recipes;
    for (const auto& own : each) recipes.push_back(own[c]);
    choices.push_back(choice_of(plan, steps, std::move(recipes)));
  }
  return choices;
}

/// In order of growing storage, and of those that cost the same only the best.
inline void sort_choices(std::vector<StepsChoice>& choices) {
  std::ranges::stable_sort(choices, {}, [](const StepsChoice& choice) {
    return std::pair(choice.storage, choice.loss());
  });
  const auto same = [](const StepsChoice& a, const StepsChoice& b) {
    return a.storage == b.storage;
  };
  choices.erase(std::unique(choices.begin(), choices.end(), same), choices.end());
}

}  // namespace cafeq::detail
