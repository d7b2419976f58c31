/// Gives the steps of a plan different bits, so that a mean is met from below.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "cafeq/model/allocate.hpp"
#include "cafeq/model/load_matrix.hpp"
#include "cafeq/model/model.hpp"
#include "cafeq/model/plan.hpp"

namespace cafeq {

/// Raises invalid_argument where even the fewest bits are above `target`: the mean bits of all
/// quantized weights, everything counted.
///
/// Recipes with a continuous rate get the same bits for every matrix, as many as the target allows
/// on the whole (a small matrix may take more): spreading them does not help codes that are chosen
/// together. Of others, what a matrix would cost with each choice of bits is measured on 64 of its
/// rows: its relative error times its weights. What is minimised is the sum, by marginal gains.
template <ModelReader R>
void allocate_plan(Plan& plan, const R& reader, double target, ExecutorRef executor = {});

namespace detail {

[[noreturn]] inline void raise_target(double target, double least) {
  raise(ErrorCode::invalid_argument, message("target bits: ", target, " are fewer than the ", least,
                                             " that the fewest bits take, everything counted"));
}

/// The fewest bits a weight that recipes with a continuous rate have.
inline constexpr double least_rate = 1;

/// The same bits for every step, as near as its rates come; what these leave over raises some to
/// the next that takes more, the smallest first, which take least for it.
inline void set_equal_bits(Plan& plan, double target) {
  // Sets the bits of every matrix and says what comes of it, in bits a weight.
  const auto mean_with = [&](double each) {
    for (Step& step : plan.steps) step.recipe = *step.recipe->with_bits(each);
    return double(plan.storage_bits()) / double(plan.weights());
  };
  constexpr double close = 1e-3;
  double bits = target;
  if (mean_with(target) > target) {
    if (const double mean = mean_with(least_rate); mean > target) raise_target(target, mean);
    double high = target;
    bits = least_rate;
    while (high - bits > close) {
      const double middle = (bits + high) / 2;
      (mean_with(middle) <= target ? bits : high) = middle;
    }
    mean_with(bits);
  }

  const auto budget = std::int64_t(std::floor(target * double(plan.weights())));
  std::int64_t stored = plan.storage_bits();
  std::vector<std::size_t> by_size(plan.steps.size());
  std::iota(by_size.begin(), by_size.end(), std::size_t(0));
  std::ranges::stable_sort(by_size, {},
                           [&](std::size_t s) { return plan.storage_bits(plan.steps[s]); });
  constexpr double widest_step = 0.25;
  for (const std::size_t s : by_size) {
    Step& step = plan.steps[s];
    const std::int64_t before = plan.storage_bits(step);
    for (double more = close; more < widest_step; more += close) {
      const AnyRecipe raised = *step.recipe->with_bits(bits + more);
      if (raised->fault()) break;
      const std::int64_t after = plan.storage_bits(step, raised);
      if (after == before) continue;
      if (stored + after - before <= budget) {
        step.recipe = raised;
        stored += after - before;
      }
      break;
    }
  }
}

/// Steps that are chosen for together: each by itself, but those of a job where a tensor has one
/// recipe.
inline std::vector<std::vector<std::size_t>> steps_to_choose_for(const Plan& plan) {
  std::vector<std::vector<std::size_t>> all;
  for (const Job& job : plan.jobs) {
    if (plan.steps[job.steps[0]].recipe->is_one_a_tensor()) all.push_back(job.steps);
    else
      for (const std::size_t s : job.steps) all.push_back({s});
  }
  return all;
}

inline std::vector<AnyRecipe> choices_for(const Plan& plan, std::span<const std::size_t> steps) {
  std::vector<Index> cols;
  for (const std::size_t s : steps)
    for (const std::size_t m : plan.steps[s].matrices) cols.push_back(plan.place(m).in);
  return plan.steps[steps[0]].recipe->alternatives(cols);
}

/// In order of growing storage, and of those that cost the same only the best.
inline void sort_choices(std::vector<AnyRecipe>& choices, std::vector<BitChoice>& costs) {
  std::vector<std::pair<BitChoice, AnyRecipe>> all;
  for (std::size_t c = 0; c < choices.size(); ++c) all.emplace_back(costs[c], choices[c]);
  std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first.storage, a.first.error) < std::pair(b.first.storage, b.first.error);
  });

  choices.clear();
  costs.clear();
  for (const auto& [cost, choice] : all) {
    if (!costs.empty() && costs.back().storage == cost.storage) continue;
    costs.push_back(cost);
    choices.push_back(choice);
  }
}

/// What the weights of a plan take with the fewest bits.
inline std::int64_t least_storage_bits(Plan plan) {
  if (plan.steps.empty()) return 0;
  if (plan.steps[0].recipe->with_bits(least_rate)) {
    for (Step& step : plan.steps) step.recipe = *step.recipe->with_bits(least_rate);
    return plan.storage_bits();
  }

  std::int64_t bits = 0;
  for (const auto& steps : steps_to_choose_for(plan)) {
    std::optional<std::int64_t> least;
    for (const AnyRecipe& choice : choices_for(plan, steps)) {
      std::int64_t storage = 0;
      for (const std::size_t s : steps) storage += plan.storage_bits(plan.steps[s], choice);
      least = std::min(least.value_or(storage), storage);
    }
    bits += *least;
  }
  return bits;
}

}  // namespace detail

template <ModelReader R>
void allocate_plan(Plan& plan, const R& reader, double target, ExecutorRef executor) {
  if (plan.steps.empty()) return;
  if (plan.steps[0].recipe->with_bits(target)) return detail::set_equal_bits(plan, target);

  constexpr Index sampled_rows = 64;
  const auto all = detail::steps_to_choose_for(plan);
  std::vector<std::vector<AnyRecipe>> choices;
  std::vector<std::vector<detail::BitChoice>> costs;
  for (const auto& steps : all) {
    auto& recipes = choices.emplace_back(detail::choices_for(plan, steps));
    auto& cost = costs.emplace_back(recipes.size());

    for (const std::size_t s : steps) {
      const Step& step = plan.steps[s];
      for (std::size_t c = 0; c < recipes.size(); ++c)
        cost[c].storage += plan.storage_bits(step, recipes[c]);

      for (const std::size_t m : step.matrices) {
        const MatrixPlace& place = plan.place(m);
        const Matrix<float> sample = load_rows(reader, place, sampled_rows);
        reader.release(place.tensor);
        const double size = double(place.out) * double(place.in);
        for (std::size_t c = 0; c < recipes.size(); ++c)
          cost[c].error += size * recipes[c]->trial_error(sample, executor);
      }
    }
    detail::sort_choices(recipes, cost);
  }

  const double weights = double(plan.weights());
  const detail::Allocation found =
      detail::allocate_bits(costs, std::int64_t(std::floor(target * weights)));
  if (!found.fits) detail::raise_target(target, double(found.storage) / weights);
  for (std::size_t i = 0; i < all.size(); ++i)
    for (const std::size_t s : all[i]) plan.steps[s].recipe = choices[i][found.choice[i]];
}

}  // namespace cafeq
