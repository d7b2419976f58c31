/// Models by recipes: which recipes, and what each of them makes of a model.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "accuracy/subject.hpp"
#include "cafeq/io/gguf_recipe.hpp"
#include "cafeq/model/make_plan.hpp"
#include "cafeq/model/quantize_model.hpp"
#include "cafeq/pipeline/recipes.hpp"

namespace cafeq::example {

/// One way to quantize a model, and what tables say of it.
struct Candidate {
  std::string recipe;
  std::string grid;
  Index group = per_row;
  int bits = 0;  ///< of a code
  std::uint64_t seed = 0;
  PlanOptions plan{};
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

/// As cafeq-quantize does it, each matrix by itself. What the quantizer is called, `grid`, is up to
/// the recipe.
template <NamedRecipe R>
Candidate by_recipe(std::string name, std::string grid, const R& recipe) {
  Candidate candidate{.recipe = std::move(name),
                      .grid = std::move(grid),
                      .bits = int(recipe.bits),
                      .plan = {.recipe = recipe, .pairs = false}};
  if constexpr (requires { recipe.group; }) candidate.group = recipe.group;
  if constexpr (requires { recipe.seed; }) candidate.seed = recipe.seed;
  return candidate;
}
template <NamedRecipe R>
Candidate by_recipe(std::string grid, const R& recipe) {
  return by_recipe(std::string(R::name), std::move(grid), recipe);
}

inline Candidate by_type(GgufType type) {
  Candidate candidate{
      .recipe = "gguf",
      .grid = std::string(gguf_type_info(type).name),
      .plan = {.recipe = GgufRecipe::make(type, recipes::fast<>{}), .pairs = false}};
  gguf::with_quantizer(type, [&](const auto& q) {
    candidate.bits = q.bits;
    candidate.group = q.group;
  });
  return candidate;
}

/// The slow ones first, so that threads end at about the same time.
inline std::vector<Candidate> all_candidates(std::uint64_t seeds) {
  std::vector<Candidate> all;
  const auto with_and_without_pairs = [&](Candidate candidate) {
    for (const bool pairs : {false, true}) {
      candidate.plan.pairs = pairs;
      all.push_back(candidate);
    }
  };

  for (const int bits : {2, 3, 4})
    with_and_without_pairs(by_recipe("midrise", recipes::paper<>{.bits = bits}));
  for (std::uint64_t seed = 0; seed < seeds; ++seed)
    for (const int bits : {2, 3, 4}) {
      with_and_without_pairs(by_recipe("midrise", recipes::learned<>{.bits = bits, .seed = seed}));
      all.push_back(by_recipe(
          "learned, k = 64", "midrise",
          recipes::learned<>{.bits = bits, .transform_bits = 9, .max_block = 64, .seed = seed}));
      all.back().only =
          "use";  // of a language model of width 64 the transforms would be larger than the weights
      all.push_back(by_recipe("affine", recipes::learned<runtime_bits, Affine<>>{
                                            .bits = bits, .group = 64, .seed = seed}));
      with_and_without_pairs(
          by_recipe("trellis", recipes::smallest{.bits = bits + 0.25, .seed = seed}));
      for (const int window : {10, 14})
        all.push_back(
            by_recipe(message("smallest, window ", window), "trellis",
                      recipes::smallest{.bits = bits + 0.25, .window = window, .seed = seed}));
      with_and_without_pairs(by_recipe("affine", recipes::fast<>{.bits = bits, .seed = seed}));
      all.push_back(
          by_recipe("midrise", recipes::fast<runtime_bits, Midrise<>>{.bits = bits, .seed = seed}));
    }
  for (const int bits : {2, 3, 4})
    all.push_back(by_recipe("affine", recipes::rtn<>{.bits = bits, .group = 64}));
  for (const GgufTypeInfo& info : gguf_types)
    if (info.weights > 1) all.push_back(by_type(info.type));
  return all;
}

/// Whether one of a plan's matrices is quantized as the plan was asked to, and not by a type of
/// GGUF that had to take the place of the one that was named.
inline bool has_any_as_asked(const Plan& plan) {
  return std::any_of(plan.steps.begin(), plan.steps.end(), [&](const Step& step) {
    const auto* gguf = step.recipe.as<GgufRecipe>();
    return gguf == nullptr || gguf->type_for(plan.place(step.matrices[0]).in) == gguf->type();
  });
}

/// Writes what a job has changed in the place of what was there and returns the bits that its
/// matrices take.
inline double write_back(const JobResult& result, const Plan& plan, Tensors& tensors) {
  double bits = 0;
  for (const MatrixResult& part : result.matrices) {
    const MatrixPlace& place = plan.place(part.matrix);
    const EncodedMatrix& matrix = part.quantized.matrix;
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
  Measurement m{.model = subject.name,
                .recipe = candidate.recipe,
                .grid = candidate.grid,
                .group = candidate.group,
                .bits = candidate.bits,
                .pairs = candidate.plan.pairs,
                .seed = candidate.seed};
  double bits = 0, weights = 0, error = 0, norm = 0;
  bool as_asked = false;
  Tensors all;
  for (const TensorModel& part : subject.parts) {
    // Packed matrices part only where the heads are known: alone they are quantized as one.
    const Plan plan =
        make_plan(part.tensors(), m.pairs ? part.config() : ModelConfig{}, candidate.plan);
    weights += double(plan.weights());
    as_asked = as_asked || has_any_as_asked(plan);
    Tensors tensors = part.values();
    for (const Job& job : plan.jobs) {
      const JobResult result = quantize_job(part, plan, job);
      bits += write_back(result, plan, tensors);
      for (const MatrixResult& matrix : result.matrices) {
        error += matrix.quantized.squared_error;
        norm += matrix.quantized.squared_norm;
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
