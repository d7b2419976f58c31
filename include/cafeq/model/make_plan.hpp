/// make_plan(): from the names, shapes and configuration of a model to a Plan.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cafeq/model/bit_choices.hpp"
#include "cafeq/model/find_roles.hpp"
#include "cafeq/model/name_pattern.hpp"
#include "cafeq/model/plan.hpp"
#include "cafeq/model/plan_options.hpp"

namespace cafeq {

/// The plan for a model. Raises invalid_argument where there is no recipe, for options that it does
/// not take, and for patterns that match no tensor.
inline Plan make_plan(std::span<const TensorInfo> tensors, const ModelConfig& config,
                      const PlanOptions& options);

namespace detail {

inline const AnyRecipe& recipe_of(const PlanOptions& options) {
  if (!options.recipe) raise(ErrorCode::invalid_argument, "plan: recipe: none is given");
  return *options.recipe;
}

class Planner {
 public:
  Planner(std::span<const TensorInfo> tensors, const ModelConfig& config,
          const PlanOptions& options)
      : tensors_(tensors),
        options_(options),
        recipe_(recipe_of(options)),
        recipe_in_metric_(recipe_->in_metric()) {
    plan_.roles = find_roles(tensors, config);
  }

  Plan plan() {
    check_options();
    for (const auto& other : plan_.roles.others) plan_.kept.push_back(other);
    const auto chosen = chosen_tensors();
    std::vector<char> done(plan_.roles.matrices.size());
    std::vector<std::string> alone(done.size());  // why a matrix has no partner
    for (std::size_t p = 0; p < plan_.roles.pairs.size(); ++p) {
      const PairRole& pair = plan_.roles.pairs[p];
      if (in_metric(pair.first) || in_metric(pair.second)) {
        for (const std::size_t m : {pair.first, pair.second})
          if (alone[m].empty() && !in_metric(m)) alone[m] = "the other one has a metric of its own";
        continue;
      }
      const bool both =
          chosen.contains(tensor_of(pair.first)) && chosen.contains(tensor_of(pair.second));
      if (std::string reason = both ? no_pair_because(pair) : "the other one is kept";
          !reason.empty()) {
        for (const std::size_t m : {pair.first, pair.second})
          if (alone[m].empty()) alone[m] = message("no ", name_of(pair.kind), " pair: ", reason);
        continue;
      }
      done[pair.first] = done[pair.second] = 1;
      plan_.steps.push_back(
          {{pair.first, pair.second}, p, recipe_, message(name_of(pair.kind), " pair")});
    }
    for (std::size_t m = 0; m < done.size(); ++m) {
      if (done[m] || !chosen.contains(tensor_of(m))) continue;
      const std::string& note = plan_.roles.matrices[m].note;
      const bool metric = in_metric(m);
      plan_.steps.push_back({{m},
                             std::nullopt,
                             metric ? *recipe_in_metric_ : recipe_,
                             note.empty()       ? alone[m]
                             : alone[m].empty() ? note
                                                : message(note, "; ", alone[m]),
                             metric});
    }
    std::stable_sort(plan_.steps.begin(), plan_.steps.end(),
                     [](const Step& a, const Step& b) { return first_of(a) < first_of(b); });
    for (Step& step : plan_.steps) note_the_unusual(step);
    join_steps();
    return std::move(plan_);
  }

 private:
  /// Whether a matrix is rounded in the metric of its inputs.
  bool in_metric(std::size_t matrix) const {
    return recipe_in_metric_ && options_.known_inputs.contains(tensor_of(matrix));
  }
  const std::string& tensor_of(std::size_t matrix) const {
    return plan_.roles.matrices[matrix].place.tensor;
  }
  static std::size_t first_of(const Step& step) {
    return *std::min_element(step.matrices.begin(), step.matrices.end());
  }

  void check_options() const {
    if (auto fault = recipe_->fault()) raise(*fault);

    for (const auto* patterns : {&options_.include, &options_.exclude})
      for (const std::string& pattern : *patterns)
        if (std::none_of(tensors_.begin(), tensors_.end(),
                         [&](const TensorInfo& t) { return matches(pattern, t.name); }))
          raise(ErrorCode::invalid_argument, message("plan: no tensor is named like ", pattern));
  }
  static bool matches(const std::string& pattern, const std::string& name) {
    return matches_pattern(pattern, name);
  }
  static bool match_any(const std::vector<std::string>& patterns, const std::string& name) {
    return std::any_of(patterns.begin(), patterns.end(),
                       [&](const std::string& pattern) { return matches(pattern, name); });
  }

  /// What a matrix would take, with the fewest bits where these are not yet known.
  std::int64_t storage_bits(const MatrixPlace& place) const {
    if (!options_.any_bits) return recipe_->storage_bits(place.out, place.in);
    if (const auto least = recipe_->with_bits(least_rate))
      return (*least)->storage_bits(place.out, place.in);
    std::int64_t least = std::numeric_limits<std::int64_t>::max();
    for (const AnyRecipe& other : recipe_->alternatives({&place.in, 1}))
      least = std::min(least, other->storage_bits(place.out, place.in));
    return least;
  }
  /// Tensors to quantize; those that stay are noted with the reason.
  std::set<std::string> chosen_tensors() {
    std::set<std::string> chosen, seen;
    std::map<std::string, std::int64_t> planned;
    for (std::size_t m = 0; m < plan_.roles.matrices.size(); ++m) {
      const MatrixPlace& place = plan_.roles.matrices[m].place;
      planned[place.tensor] += storage_bits(place);
    }
    std::map<std::string_view, const TensorInfo*> infos;
    for (const TensorInfo& tensor : tensors_) infos[tensor.name] = &tensor;
    for (const MatrixRole& matrix : plan_.roles.matrices) {
      const std::string& name = matrix.place.tensor;
      if (!seen.insert(name).second) continue;
      std::string why = kept_because(matrix);
      if (why.empty() && planned[name] >= 8 * infos[name]->bytes)
        why = message("quantized it would not be smaller than as ", infos[name]->type);
      if (why.empty()) chosen.insert(name);
      else plan_.kept.push_back({name, matrix.role, std::move(why)});
    }
    return chosen;
  }
  std::string kept_because(const MatrixRole& matrix) const {
    if (match_any(options_.exclude, matrix.place.tensor)) return "excluded";
    if (!options_.include.empty())
      return match_any(options_.include, matrix.place.tensor) ? "" : "not included";
    if (matrix.role == Role::embedding || matrix.role == Role::unembedding ||
        matrix.role == Role::position)
      return options_.embeddings ? "" : "embeddings stay unless asked for";
    return matrix.role == Role::router ? "routers stay unless included" : "";
  }

  void note_the_unusual(Step& step) const {
    const MatrixPlace& first = plan_.place(step.matrices[0]);
    const std::string note = step.recipe->note(first.out, first.in);
    if (!note.empty()) step.why += (step.why.empty() ? "" : "; ") + note;
  }

  std::string no_pair_because(const PairRole& pair) const {
    if (!options_.pairs) return "not wanted";
    if (!pair.refusal.empty()) return pair.refusal;
    const PairAdvice advice = plan_.advice(pair, recipe_);
    if (advice.always) return advice.why;
    if (pair.kind == PairKind::up_down)
      return "scales between up and down are what the grids' own scales are";
    if (pair.kind == PairKind::query_key && pair.attention.rotary)
      return "rotary positions leave M too little freedom to be of use";
    return advice.why;
  }

  /// Steps whose tensors meet become one job.
  void join_steps() {
    std::map<std::string, std::size_t> owner;  // tensor -> a step
    std::vector<std::size_t> root(plan_.steps.size());
    std::iota(root.begin(), root.end(), std::size_t(0));
    const auto find = [&](std::size_t s) {
      while (root[s] != s) s = root[s];
      return s;
    };
    for (std::size_t s = 0; s < plan_.steps.size(); ++s)
      for (const std::string& tensor : changed_by(plan_.steps[s])) {
        const auto [entry, is_new] = owner.emplace(tensor, s);
        if (is_new) continue;
        const std::size_t a = find(entry->second), b = find(s);
        root[std::max(a, b)] = std::min(a, b);
      }
    std::map<std::size_t, std::size_t> job_of;
    for (std::size_t s = 0; s < plan_.steps.size(); ++s) {
      const auto [entry, is_new] = job_of.emplace(find(s), plan_.jobs.size());
      if (is_new) plan_.jobs.emplace_back();
      Job& job = plan_.jobs[entry->second];
      job.steps.push_back(s);
      for (const std::string& tensor : changed_by(plan_.steps[s]))
        if (std::find(job.tensors.begin(), job.tensors.end(), tensor) == job.tensors.end())
          job.tensors.push_back(tensor);
    }
    // A bias that a pair moves is no longer kept as it is.
    std::erase_if(plan_.kept, [&](const KeptTensor& kept) { return owner.contains(kept.tensor); });
  }
  std::vector<std::string> changed_by(const Step& step) const {
    std::vector<std::string> names;
    for (const std::size_t m : step.matrices) {
      names.push_back(tensor_of(m));
      if (step.pair && plan_.roles.matrices[m].bias)
        names.push_back(plan_.roles.matrices[m].bias->tensor);
    }
    return names;
  }

  std::span<const TensorInfo> tensors_;
  const PlanOptions& options_;
  AnyRecipe recipe_;
  std::optional<AnyRecipe> recipe_in_metric_;
  Plan plan_;
};

}  // namespace detail

inline Plan make_plan(std::span<const TensorInfo> tensors, const ModelConfig& config,
                      const PlanOptions& options) {
  return detail::Planner(tensors, config, options).plan();
}

}  // namespace cafeq
