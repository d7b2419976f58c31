/// Gives the steps of a plan different bits, so that a mean is met from below.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <numeric>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "cafeq/model/allocate.hpp"
#include "cafeq/model/bit_choices.hpp"
#include "cafeq/model/model.hpp"
#include "cafeq/model/plan.hpp"
#include "cafeq/model/sensitivities.hpp"
#include "cafeq/model/trial.hpp"

namespace cafeq {

/// What bits are spread by.
struct AllocationOptions {
  double target_bits = 0;  ///< mean of all quantized weights, everything counted; 0: as planned
  const Sensitivities* sensitivities = nullptr;  ///< of all matrices that the plan quantizes; none:
                                                 ///< the relative errors of all weights count alike
  MetricSource metric{};                         ///< for steps in one, with sensitivities
  bool fused_alike = false;  ///< the same grid for what engines multiply as one matrix: query, key
                             ///< and value; gate and up; experts of a layer
  std::function<void(double done, double all)> progress{};
};

/// Spreads bits, and predicts with sensitivities what the model will lose (Step::expected_loss).
/// Raises invalid_argument where even the fewest bits are above the target, and for a matrix whose
/// sensitivity is not known.
///
/// What a matrix would cost with each choice of bits is measured on 64 of its rows, in the metric
/// of its inputs where that is known; of a recipe with a continuous rate, once. With sensitivities
/// that is the expected loss, else the relative error times its weights. What is minimised is the
/// sum, by marginal gains. Without sensitivities a recipe with a continuous rate gets the same bits
/// for every matrix, as many as the target allows on the whole (a small matrix may take more):
/// spreading by plain errors does not help codes that are chosen together.
template <ModelReader R>
void allocate_plan(Plan& plan, const R& reader, const AllocationOptions& options,
                   ExecutorRef executor = {});
template <ModelReader R>
void allocate_plan(Plan& plan, const R& reader, double target_bits, ExecutorRef executor = {}) {
  allocate_plan(plan, reader, AllocationOptions{.target_bits = target_bits}, executor);
}

namespace detail {

[[noreturn]] inline void raise_target(double target, double least) {
  raise(ErrorCode::invalid_argument, message("target bits: ", target, " are fewer than the ", least,
                                             " that the fewest bits take, everything counted"));
}

/// The same bits for every step, as near as its rates come; what these leave over raises some to
/// the next that takes more, the smallest first, which take least for it.
inline void set_equal_bits(Plan& plan, double target, bool fused_alike) {
  const auto groups = steps_to_choose_for(plan, fused_alike);
  const auto set = [&](const std::vector<std::size_t>& steps, const StepsChoice& choice) {
    for (std::size_t i = 0; i < steps.size(); ++i) plan.steps[steps[i]].recipe = choice.recipes[i];
  };
  const auto with = [&](const std::vector<std::size_t>& steps, double bits) {
    return choice_of(plan, steps, with_equal_bits(plan, steps, bits));
  };
  // Sets the bits of every matrix and says what comes of it, in bits a weight.
  const auto mean_with = [&](double each) {
    for (const auto& steps : groups) set(steps, with(steps, each));
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
  const auto storage_of = [&](std::size_t g) { return as_planned(plan, groups[g]).storage; };
  std::vector<std::size_t> by_size(groups.size());
  std::iota(by_size.begin(), by_size.end(), std::size_t(0));
  std::ranges::stable_sort(by_size, {}, storage_of);
  constexpr double widest_step = 0.25;
  for (const std::size_t g : by_size) {
    const std::int64_t before = storage_of(g);
    for (double more = close; more < widest_step; more += close) {
      if (has_fault(plan, groups[g], bits + more)) break;
      const StepsChoice raised = with(groups[g], bits + more);
      if (raised.storage == before) continue;
      if (stored + raised.storage - before <= budget) {
        set(groups[g], raised);
        stored += raised.storage - before;
      }
      break;
    }
  }
}

inline double sensitivity_of(const Sensitivities& sensitivities, const MatrixRole& matrix) {
  if (const auto value = sensitivities.find(matrix)) return *value;
  raise(ErrorCode::invalid_argument,
        message("sensitivities: there is none of ", matrix.place.tensor, ", rows ",
                matrix.place.begin, " to ", matrix.place.begin + matrix.place.out));
}

/// What the weights of a plan take with the fewest bits.
inline std::int64_t least_storage_bits(const Plan& plan, bool fused_alike = false) {
  std::int64_t bits = 0;
  for (const auto& steps : steps_to_choose_for(plan, fused_alike))
    bits += std::ranges::min(choices_for(plan, steps), {}, &StepsChoice::storage).storage;
  return bits;
}

/// Raises where one of a matrix is not there.
inline void check_sensitivities(const Plan& plan, const Sensitivities& sensitivities) {
  for (const Step& step : plan.steps)
    for (const std::size_t m : step.matrices) sensitivity_of(sensitivities, plan.roles.matrices[m]);
}

/// Raises what a target makes impossible, before any matrix is tried.
inline void check_target(const Plan& plan, const AllocationOptions& options) {
  if (plan.steps.empty() || !(options.target_bits > 0)) return;
  const double weights = double(plan.weights());
  const double least = double(least_storage_bits(plan, options.fused_alike)) / weights;
  if (least > options.target_bits) raise_target(options.target_bits, least);
}

/// Finds what each of these choices costs.
template <ModelReader R>
void try_choices(std::vector<StepsChoice>& choices, const Plan& plan,
                 std::span<const std::size_t> steps, const R& reader,
                 const AllocationOptions& options, ExecutorRef executor) {
  for (std::size_t s = 0; s < steps.size(); ++s) {
    const Step& step = plan.steps[steps[s]];
    for (StepsChoice& choice : choices) choice.losses.emplace_back();
    for (std::size_t i = 0; i < step.matrices.size(); ++i) {
      const MatrixRole& matrix = plan.roles.matrices[step.matrices[i]];
      double weight = double(matrix.place.out) * double(matrix.place.in);
      std::optional<Metric> metric;
      if (options.sensitivities) {
        weight = sensitivity_of(*options.sensitivities, matrix);
        if (step.in_metric && options.metric) metric = options.metric(matrix);
      }
      Trial trial(reader, matrix.place, step.recipe, std::move(metric), weight, executor);
      for (StepsChoice& choice : choices) choice.losses[s][i] = trial.cost(choice.recipes[s]);
    }
  }
}

}  // namespace detail

template <ModelReader R>
void allocate_plan(Plan& plan, const R& reader, const AllocationOptions& options,
                   ExecutorRef executor) {
  const double target = options.target_bits;
  if (plan.steps.empty() || (!(target > 0) && !options.sensitivities)) return;
  if (!options.sensitivities && plan.steps[0].recipe->with_bits(target))
    return detail::set_equal_bits(plan, target, options.fused_alike);

  const auto groups = detail::steps_to_choose_for(plan, options.fused_alike);
  std::vector<std::vector<detail::StepsChoice>> choices;
  std::vector<std::vector<detail::BitChoice>> costs;
  for (const auto& steps : groups) {
    auto& some = choices.emplace_back();
    if (target > 0) some = detail::choices_for(plan, steps);
    else some.push_back(detail::as_planned(plan, steps));
    detail::try_choices(some, plan, steps, reader, options, executor);
    detail::sort_choices(some);
    auto& cost = costs.emplace_back();
    for (const auto& choice : some) cost.push_back({choice.storage, choice.loss()});
    if (options.progress) options.progress(double(costs.size()), double(groups.size()));
  }

  const double weights = double(plan.weights());
  const double budget = target > 0 ? std::floor(target * weights) : double(plan.storage_bits());
  const detail::Allocation found = detail::allocate_bits(costs, std::int64_t(budget));
  if (!found.fits) detail::raise_target(target, double(found.storage) / weights);
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const detail::StepsChoice& choice = choices[g][found.choice[g]];
    for (std::size_t i = 0; i < groups[g].size(); ++i) {
      Step& step = plan.steps[groups[g][i]];
      step.recipe = choice.recipes[i];
      if (options.sensitivities) step.expected_loss = choice.losses[i];
    }
  }
}

}  // namespace cafeq
