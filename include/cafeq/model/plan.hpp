/// What will be done with each tensor of a model, and why, before any of it is.
#pragma once

#include <algorithm>
#include <array>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cafeq/model/find_roles.hpp"
#include "cafeq/model/method.hpp"
#include "cafeq/model/name_pattern.hpp"

namespace cafeq {

struct PlanOptions {
  Choice choice{};
  bool pairs = true;
  bool embeddings = false;             ///< quantize embeddings and unembeddings too
  std::vector<std::string> include{};  ///< shell patterns of tensors to quantize, whatever their
                                       ///< role; empty for those that one quantizes
  std::vector<std::string> exclude{};  ///< of tensors to keep
};

/// Where heads have fewer channels, two matrices are not rounded together: M must be as large as
/// the blocks that each could have on its own.
inline constexpr Index least_head_dim = 32;

/// Whether a pair is only balanced, which is exact and costs nothing, and each of its matrices then
/// quantized by itself. The others round the two together, without a transform to store. Matrices
/// that become GGUF have no transform but M.
inline bool is_balanced(const Choice& choice, const PairRole& pair) noexcept {
  return !choice.type && (choice.method == Method::fast || pair.layout.head_dim < least_head_dim);
}

/// One matrix, or the two of a pair (first and second as in PairRole), quantized together.
struct Step {
  std::vector<std::size_t> matrices;  ///< in Plan::roles
  std::optional<std::size_t> pair{};
  Choice choice{};
  std::string why{};
};

/// Steps that write into the same tensors, whose results become whole tensors together.
struct Job {
  std::vector<std::size_t> steps;
  std::vector<std::string> tensors;  ///< that change: matrices, and biases where a pair moves them
};

struct Plan {
  ModelRoles roles;
  std::vector<Step> steps;
  std::vector<Job> jobs;
  std::vector<KeptTensor> kept;

  const MatrixPlace& place(std::size_t matrix) const { return roles.matrices[matrix].place; }
  Index weights(const Step& step) const {
    Index count = 0;
    for (const std::size_t m : step.matrices) count += place(m).out * place(m).in;
    return count;
  }
  /// Of all steps.
  Index weights() const {
    Index count = 0;
    for (const Step& step : steps) count += weights(step);
    return count;
  }
  /// In bits.
  std::int64_t storage() const {
    std::int64_t bits = 0;
    for (const Step& step : steps) bits += storage(step);
    return bits;
  }
  std::int64_t storage(const Step& step) const { return storage(step, step.choice); }
  std::int64_t storage(const Step& step, const Choice& choice) const {
    std::int64_t bits = 0;
    for (std::size_t i = 0; i < step.matrices.size(); ++i) bits += storage(step, choice, i);
    return bits;
  }
  /// Of one of its matrices.
  std::int64_t storage(const Step& step, const Choice& choice, std::size_t i) const {
    const MatrixPlace& W = place(step.matrices[i]);
    if (is_together(step) && choice.method == Method::smallest)
      return trellis_loads(step)[i].storage_bits(pair_trellis(step, choice));
    return planned_storage(choice, W.out, W.in, is_together(step));
  }
  /// Whether the two matrices of a step are rounded together.
  bool is_together(const Step& step) const {
    return step.pair && !is_balanced(step.choice, roles.pairs[*step.pair]);
  }
  /// What two matrices that `smallest` rounds together take as [lines, length]: an output
  /// projection has its heads on the input side.
  std::array<recipes::TrellisLoad, 2> trellis_loads(const Step& step) const {
    const MatrixPlace &first = place(step.matrices[0]), &second = place(step.matrices[1]);
    return roles.pairs[*step.pair].kind == PairKind::value_output
               ? recipes::smallest::pair_loads(first.in, first.out, second.out, second.in)
               : recipes::smallest::pair_loads(first.out, first.in, second.out, second.in);
  }
  /// The trellis for both.
  Trellis pair_trellis(const Step& step, const Choice& choice) const {
    const auto loads = trellis_loads(step);
    return recipes::affordable_trellis(loads, smallest_for(choice, loads).bits);
  }
  /// Of one of its matrices, in a few words.
  std::string grid(const Step& step, std::size_t i) const {
    const MatrixPlace& W = place(step.matrices[i]);
    if (is_together(step) && step.choice.method == Method::smallest)
      return trellis_name(pair_trellis(step, step.choice));
    return grid_name(step.choice, W.out, W.in);
  }
  /// In a few words.
  std::string transform(const Step& step) const {
    if (is_together(step)) return "M between the two";
    const MatrixPlace& first = place(step.matrices[0]);
    return (step.pair ? "balance; " : "") + transform_name(step.choice, first.out, first.in);
  }
};

/// The plan for a model. Raises invalid_argument for bits or groups that no grid has, and for
/// patterns that match no tensor.
inline Plan make_plan(std::span<const TensorInfo> tensors, const ModelConfig& config,
                      const PlanOptions& options);

/// The smallest type of GGUF that keeps `cols` weights a row in whole blocks and is no coarser than
/// `type`.
inline GgufType legal_type(GgufType type, Index cols) noexcept {
  if (gguf_row_bytes(type, cols)) return type;
  std::optional<GgufType> best;
  for (const GgufType other : {GgufType::iq4_nl, GgufType::q4_1, GgufType::q5_0, GgufType::q5_1,
                               GgufType::q8_0, GgufType::f16}) {
    const auto& info = gguf_type_info(other);
    if (!gguf_row_bytes(other, cols) ||
        info.bits_per_weight() < gguf_type_info(type).bits_per_weight())
      continue;
    if (!best || info.bits_per_weight() < gguf_type_info(*best).bits_per_weight()) best = other;
  }
  return best.value_or(GgufType::f32);
}

namespace detail {

class Planner {
 public:
  Planner(std::span<const TensorInfo> tensors, const ModelConfig& config,
          const PlanOptions& options)
      : tensors_(tensors), options_(options) {
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
      const bool both =
          chosen.contains(tensor_of(pair.first)) && chosen.contains(tensor_of(pair.second));
      if (std::string reason = both ? no_pair_because(pair) : "the other one is kept";
          !reason.empty()) {
        for (const std::size_t m : {pair.first, pair.second})
          if (alone[m].empty()) alone[m] = message("no ", name_of(pair.kind), " pair: ", reason);
        continue;
      }
      done[pair.first] = done[pair.second] = 1;
      plan_.steps.push_back({{pair.first, pair.second},
                             p,
                             choice_for(pair.first),
                             message(name_of(pair.kind), " pair")});
    }
    for (std::size_t m = 0; m < done.size(); ++m) {
      if (done[m] || !chosen.contains(tensor_of(m))) continue;
      const std::string& note = plan_.roles.matrices[m].note;
      plan_.steps.push_back({{m},
                             std::nullopt,
                             choice_for(m),
                             note.empty()       ? alone[m]
                             : alone[m].empty() ? note
                                                : message(note, "; ", alone[m])});
    }
    std::stable_sort(plan_.steps.begin(), plan_.steps.end(),
                     [](const Step& a, const Step& b) { return first_of(a) < first_of(b); });
    for (Step& step : plan_.steps) note_fallback(step);
    join_steps();
    return std::move(plan_);
  }

 private:
  const std::string& tensor_of(std::size_t matrix) const {
    return plan_.roles.matrices[matrix].place.tensor;
  }
  static std::size_t first_of(const Step& step) {
    return *std::min_element(step.matrices.begin(), step.matrices.end());
  }

  void check_options() const {
    const Choice& choice = options_.choice;
    if (choice.method == Method::smallest) {
      if (choice.type)
        raise(ErrorCode::invalid_argument,
              message("plan: GGUF's ", gguf_type_info(*choice.type).name,
                      " cannot hold the codes of smallest"));
      if (!(choice.budget >= 2 && choice.budget <= 9))
        raise(ErrorCode::invalid_argument,
              message("plan: budget is ", choice.budget, " bits, must be 2 to 9"));
    } else if (!choice.type) {
      check_bits(choice.bits);
      if (choice.group < 0)
        raise(ErrorCode::invalid_argument,
              message("plan: group is ", choice.group, ", must be positive or per_row"));
    }
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

  /// Tensors to quantize; those that stay are noted with the reason.
  std::set<std::string> chosen_tensors() {
    std::set<std::string> chosen, seen;
    std::map<std::string, std::int64_t> planned;
    for (std::size_t m = 0; m < plan_.roles.matrices.size(); ++m) {
      const MatrixPlace& place = plan_.roles.matrices[m].place;
      planned[place.tensor] += planned_storage(choice_for(m), place.out, place.in, false);
    }
    std::map<std::string_view, const TensorInfo*> infos;
    for (const TensorInfo& tensor : tensors_) infos[tensor.name] = &tensor;
    for (const MatrixRole& matrix : plan_.roles.matrices) {
      const std::string& name = matrix.place.tensor;
      if (!seen.insert(name).second) continue;
      std::string why = kept_because(matrix);
      if (why.empty() && planned[name] >= 8 * infos[name]->bytes)
        why = "quantized it would not be smaller";
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

  Choice choice_for(std::size_t matrix) const {
    Choice choice = options_.choice;
    if (choice.type) choice.type = legal_type(*choice.type, plan_.roles.matrices[matrix].place.in);
    return choice;
  }
  void note_fallback(Step& step) const {
    if (!step.choice.type || step.choice.type == options_.choice.type) return;
    const Index cols = plan_.place(step.matrices[0]).in;
    const auto& asked = gguf_type_info(*options_.choice.type);
    step.why += message(step.why.empty() ? "" : "; ", "rows of ", cols, " are no multiple of ",
                        asked.name, "'s ", asked.weights);
  }

  std::string no_pair_because(const PairRole& pair) const {
    if (!options_.pairs) return "not wanted";
    if (!pair.refusal.empty()) return pair.refusal;
    if (options_.choice.method == Method::rtn) return "rounding to nearest has no use for it";
    if (pair.kind == PairKind::up_down)
      return "scales between up and down are what the grids' own scales are";
    if (pair.kind == PairKind::query_key && pair.attention.rotary)
      return "rotary positions leave M too little freedom to be of use";
    const bool alone_is_as_good = options_.choice.method == Method::smallest ||
                                  (options_.choice.type && options_.choice.method == Method::fast);
    if (alone_is_as_good && pair.layout.head_dim < least_head_dim)
      return message("heads of ", pair.layout.head_dim, " channels gain nothing by it");
    if (choice_for(pair.first).type != choice_for(pair.second).type)
      return "its matrices need different types";
    if (const auto type = choice_for(pair.first).type; type && gguf_type_info(*type).weights == 1)
      return "floats have no use for it";
    return {};
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
  Plan plan_;
};

}  // namespace detail

inline Plan make_plan(std::span<const TensorInfo> tensors, const ModelConfig& config,
                      const PlanOptions& options) {
  return detail::Planner(tensors, config, options).plan();
}

}  // namespace cafeq
