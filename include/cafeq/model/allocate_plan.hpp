/// Gives the steps of a plan different bits, or types of GGUF, so that a mean is met from below.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>
#include <vector>

#include "cafeq/model/allocate.hpp"
#include "cafeq/model/quantize_model.hpp"

namespace cafeq {

/// Raises invalid_argument where even the fewest bits are above `target`: the mean bits of all
/// quantized weights, everything counted.
///
/// What a matrix would cost with each choice is measured on 64 of its rows, by the fast recipe or
/// as blocks of a type: its relative error times its weights. What is minimised is the sum, by
/// marginal gains. Types are those of 2 to 8 bits that fit a matrix, and one for each tensor.
template <ModelReader R>
void allocate_plan(Plan& plan, const R& reader, double target, ExecutorRef executor = {});

namespace detail {

/// Steps that are chosen for together: each by itself, but those of a job where a tensor has one
/// type.
inline std::vector<std::vector<std::size_t>> steps_to_choose_for(const Plan& plan) {
  std::vector<std::vector<std::size_t>> all;
  for (const Job& job : plan.jobs) {
    if (plan.steps[job.steps[0]].choice.type) all.push_back(job.steps);
    else
      for (const std::size_t s : job.steps) all.push_back({s});
  }
  return all;
}

inline std::vector<Choice> choices_for(const Plan& plan, std::span<const std::size_t> steps) {
  Choice choice = plan.steps[steps[0]].choice;
  std::vector<Choice> choices;
  const auto fits = [&](GgufType type) {
    return std::all_of(steps.begin(), steps.end(), [&](std::size_t s) {
      const auto& matrices = plan.steps[s].matrices;
      return std::all_of(matrices.begin(), matrices.end(), [&](std::size_t m) {
        return gguf_row_bytes(type, plan.place(m).in).has_value();
      });
    });
  };
  if (!choice.type) {
    for (choice.bits = 2; choice.bits <= 8; ++choice.bits) choices.push_back(choice);
    return choices;
  }
  for (const GgufTypeInfo& info : gguf_types)
    if (info.weights > 1 && fits(info.type)) choices.emplace_back(choice).type = info.type;
  if (choices.empty()) choices.push_back(choice);
  return choices;
}

/// The relative error of the rows of W.
CAFEQ_LAZY double choice_error(const Choice& choice, const Matrix<float>& W, ExecutorRef executor) {
  if (!choice.type)
    return quantize(
               W, recipes::fast<>{.bits = choice.bits, .group = choice.group, .seed = choice.seed},
               executor)
        .error(W, executor);
  const QuantizedMatrix blocks = quantize_to_gguf(0, W, *choice.type, executor);
  return blocks.squared_norm > 0 ? blocks.squared_error / blocks.squared_norm : 0;
}

/// In order of growing storage, and of those that cost the same only the best.
inline void sort_choices(std::vector<Choice>& choices, std::vector<BitChoice>& costs) {
  std::vector<std::pair<BitChoice, Choice>> all;
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

}  // namespace detail

template <ModelReader R>
void allocate_plan(Plan& plan, const R& reader, double target, ExecutorRef executor) {
  constexpr Index sampled_rows = 64;
  const auto all = detail::steps_to_choose_for(plan);
  std::vector<std::vector<Choice>> choices;
  std::vector<std::vector<detail::BitChoice>> costs;
  const double weights = double(plan.weights());
  for (const auto& steps : all) {
    choices.push_back(detail::choices_for(plan, steps));
    costs.emplace_back(choices.back().size());
    for (const std::size_t s : steps) {
      const Step& step = plan.steps[s];
      for (std::size_t c = 0; c < choices.back().size(); ++c)
        costs.back()[c].storage += plan.storage(step, choices.back()[c]);
      for (const std::size_t m : step.matrices) {
        const Matrix<float> sample = load_rows(reader, plan.place(m), sampled_rows);
        reader.release(plan.place(m).tensor);
        const double size = double(plan.place(m).out) * double(plan.place(m).in);
        for (std::size_t c = 0; c < choices.back().size(); ++c)
          costs.back()[c].error += size * detail::choice_error(choices.back()[c], sample, executor);
      }
    }
    detail::sort_choices(choices.back(), costs.back());
  }
  const detail::Allocation found =
      detail::allocate_bits(costs, std::int64_t(std::floor(target * weights)));
  if (!found.fits)
    raise(ErrorCode::invalid_argument,
          message("target bits: ", target, " are fewer than the ", double(found.storage) / weights,
                  " that the fewest bits take, everything counted"));
  for (std::size_t i = 0; i < all.size(); ++i)
    for (const std::size_t s : all[i]) plan.steps[s].choice = choices[i][found.choice[i]];
}

}  // namespace cafeq
