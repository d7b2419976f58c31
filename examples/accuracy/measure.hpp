/// Models by recipes: which recipes, and what each of them makes of a model.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "accuracy/subject.hpp"
#include "cafeq/model/quantize_model.hpp"

namespace cafeq::example {

/// One way to quantize a model.
struct Candidate {
  std::string recipe;
  std::string grid;
  PlanOptions plan;
  std::function<JobResult(const TensorModel&, const Plan&, const Job&)> quantize;
  std::string only{};  ///< the one model for which it makes sense; empty for all
};

struct Measurement {
  std::string model;
  std::string recipe;
  std::string grid;
  Index group = 0;
  int bits = 0;  ///< of a code
  bool pairs = false;
  std::uint64_t seed = 0;
  double bits_per_weight = 0;  ///< everything counted
  double relative_error =
      0;  ///< Σ‖W − Ŵ‖² / Σ‖W‖² over all matrices that are rounded by themselves
  std::vector<double> value_output_errors{};  ///< of the products of those that are rounded
                                              ///< together, layer by layer
  Quality quality{};
};

/// As cafeq-quantize does it.
inline Candidate by_choice(const Choice& choice, bool pairs) {
  return {std::string(name_of(choice.method)),
          std::string(grid_kind(choice.method)),
          {.choice = choice, .pairs = pairs},
          [](const TensorModel& model, const Plan& plan, const Job& job) {
            return quantize_job(model, plan, job);
          }};
}

inline Candidate by_type(GgufType type) {
  Candidate candidate = by_choice({.type = type}, false);
  candidate.recipe = "gguf";
  candidate.grid = gguf_type_info(type).name;
  gguf::with_quantizer(type, [&](const auto& q) {
    candidate.plan.choice.bits = q.bits;
    candidate.plan.choice.group = q.group;
  });
  return candidate;
}

/// Any other recipe, each matrix by itself.
template <class Recipe>
Candidate by_recipe(std::string name, std::string grid, const Recipe& recipe) {
  const auto quantize_all = [recipe](const TensorModel& model, const Plan& plan, const Job& job) {
    JobResult result;
    for (const std::size_t s : job.steps) {
      const std::size_t m = plan.steps[s].matrices[0];
      result.matrices.push_back(quantize_by(m, load_matrix(model, plan.place(m)), recipe));
    }
    return result;
  };
  Choice choice{.bits = int(recipe.bits), .group = per_row, .seed = recipe.seed};
  if constexpr (requires { recipe.group; }) choice.group = recipe.group;
  return {std::move(name), std::move(grid), {.choice = choice, .pairs = false}, quantize_all};
}

/// The slow ones first, so that threads end at about the same time.
inline std::vector<Candidate> all_candidates(std::uint64_t seeds) {
  std::vector<Candidate> all;
  const auto with_and_without_pairs = [&](const Choice& choice) {
    for (const bool pairs : {false, true}) all.push_back(by_choice(choice, pairs));
  };
  for (const int bits : {2, 3, 4})
    with_and_without_pairs({.method = Method::paper, .bits = bits, .group = per_row});
  for (std::uint64_t seed = 0; seed < seeds; ++seed)
    for (const int bits : {2, 3, 4}) {
      with_and_without_pairs(
          {.method = Method::learned, .bits = bits, .group = per_row, .seed = seed});
      all.push_back(by_recipe(
          "learned, k = 64", "midrise",
          recipes::learned<>{.bits = bits, .transform_bits = 9, .max_block = 64, .seed = seed}));
      all.back().only =
          "use";  // of a language model of width 64 the transforms would be larger than the weights
      all.push_back(by_recipe(
          "learned", "affine",
          recipes::learned<runtime_bits, Affine<>>{.bits = bits, .group = 64, .seed = seed}));
      with_and_without_pairs({.method = Method::smallest,
                              .bits = bits,
                              .group = per_row,
                              .seed = seed,
                              .budget = bits + 0.25});
      for (const int window : {10, 14})
        all.push_back(
            by_recipe(message("smallest, window ", window), "trellis",
                      recipes::smallest{.bits = bits + 0.25, .window = window, .seed = seed}));
      with_and_without_pairs({.method = Method::fast, .bits = bits, .seed = seed});
      all.push_back(by_recipe("fast", "midrise",
                              recipes::fast<runtime_bits, Midrise<>>{.bits = bits, .seed = seed}));
    }
  for (const int bits : {2, 3, 4})
    all.push_back(by_choice({.method = Method::rtn, .bits = bits}, false));
  for (const GgufTypeInfo& info : gguf_types)
    if (info.weights > 1) all.push_back(by_type(info.type));
  return all;
}

/// Writes what a job has changed in the place of what was there and returns the bits that its
/// matrices take.
inline double write_back(const JobResult& result, const Plan& plan, Tensors& tensors) {
  double bits = 0;
  for (const QuantizedMatrix& matrix : result.matrices) {
    const MatrixPlace& place = plan.place(matrix.matrix);
    matrix.dequantize(tensors.at(place.tensor).view().row_block(place.begin, place.out));
    bits += double(matrix.storage_bits());
  }
  for (const auto& [matrix, values] : result.biases) {
    const BiasPlace& place = *plan.roles.matrices[matrix].bias;
    std::copy(values.begin(), values.end(), tensors.at(place.tensor).row(0).begin() + place.begin);
  }
  return bits;
}

/// Nothing where the candidate is not for this model, or no matrix can be of the type that it asks
/// for.
inline std::optional<Measurement> measure(const Subject& subject, const Candidate& candidate) {
  if (!candidate.only.empty() && candidate.only != subject.name) return std::nullopt;
  const Choice& choice = candidate.plan.choice;
  Measurement m{.model = subject.name,
                .recipe = candidate.recipe,
                .grid = candidate.grid,
                .group = choice.group,
                .bits = choice.bits,
                .pairs = candidate.plan.pairs,
                .seed = choice.seed};
  double bits = 0, weights = 0, error = 0, norm = 0;
  bool as_asked = false;
  Tensors all;
  for (const TensorModel& part : subject.parts) {
    // Packed matrices part only where the heads are known: alone they are quantized as one.
    const Plan plan =
        make_plan(part.tensors(), m.pairs ? part.config() : ModelConfig{}, candidate.plan);
    weights += double(plan.weights());
    for (const Step& step : plan.steps) as_asked = as_asked || step.choice.type == choice.type;
    Tensors tensors = part.values();
    for (const Job& job : plan.jobs) {
      const JobResult result = candidate.quantize(part, plan, job);
      bits += write_back(result, plan, tensors);
      for (const QuantizedMatrix& matrix : result.matrices) {
        error += matrix.squared_error;
        norm += matrix.squared_norm;
      }
      for (const auto& [pair, product_error] : result.pairs)
        if (plan.roles.pairs[pair].kind == PairKind::value_output)
          m.value_output_errors.push_back(product_error);
    }
    all.merge(std::move(tensors));
  }
  if (!as_asked) return std::nullopt;
  m.bits_per_weight = bits / weights;
  m.relative_error = error / norm;
  m.quality = subject.measure(all);
  return m;
}

}  // namespace cafeq::example
