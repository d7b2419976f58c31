/// Plan: what will be done with each tensor of a model, and why, before any of it is. make_plan()
/// (cafeq/model/make_plan.hpp) makes one.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cafeq/model/any_recipe.hpp"
#include "cafeq/model/roles.hpp"

namespace cafeq {

/// One matrix, or the two of a pair (first and second as in PairRole), quantized together.
struct Step {
  std::vector<std::size_t> matrices;  ///< in Plan::roles
  std::optional<std::size_t> pair{};
  AnyRecipe recipe;
  std::string why{};
  bool in_metric = false;  ///< of the inputs, which are known: the recipe is one for it
  /// What the model is expected to lose by each of the matrices, in nats a token, where their
  /// sensitivities are known.
  std::optional<std::array<double, 2>> expected_loss{};
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

  // Weights.
  Index weights(const Step& step) const {
    Index count = 0;
    for (const std::size_t m : step.matrices) count += place(m).out * place(m).in;
    return count;
  }
  Index weights() const {
    Index count = 0;
    for (const Step& step : steps) count += weights(step);
    return count;
  }

  // What will be stored, in bits.
  /// Of each of a step's matrices, by its recipe or by another one.
  std::array<std::int64_t, 2> storage_bits_each(const Step& step, const AnyRecipe& recipe) const {
    if (is_together(step)) return recipe->storage_bits(paired(step));
    std::array<std::int64_t, 2> bits{};
    for (std::size_t i = 0; i < step.matrices.size(); ++i) {
      const MatrixPlace& W = place(step.matrices[i]);
      bits[i] = recipe->storage_bits(W.out, W.in);
    }
    return bits;
  }
  std::int64_t storage_bits(const Step& step, const AnyRecipe& recipe) const {
    const auto each = storage_bits_each(step, recipe);
    return each[0] + each[1];
  }
  std::int64_t storage_bits(const Step& step) const { return storage_bits(step, step.recipe); }
  std::int64_t storage_bits() const {
    std::int64_t bits = 0;
    for (const Step& step : steps) bits += storage_bits(step);
    return bits;
  }

  // Pairs.
  /// What becomes of the two matrices of a pair.
  PairAdvice advice(const Step& step) const { return advice(roles.pairs[*step.pair], step.recipe); }
  PairAdvice advice(const PairRole& pair, const AnyRecipe& recipe) const {
    return recipe->advice(pair.layout.head_dim, paired(pair));
  }
  /// Whether the two matrices of a step are rounded together.
  bool is_together(const Step& step) const {
    return step.pair && advice(step).form == PairForm::together;
  }
  /// Shapes and sides of the matrices of a pair: an output projection has its heads on the input
  /// side.
  std::array<PairedMatrix, 2> paired(const PairRole& pair) const {
    const MatrixPlace &first = place(pair.first), &second = place(pair.second);
    const bool is_output = pair.kind == PairKind::value_output;
    return {PairedMatrix{first.out, first.in, is_output ? Side::input : Side::output},
            PairedMatrix{second.out, second.in, Side::output}};
  }
  std::array<PairedMatrix, 2> paired(const Step& step) const {
    return paired(roles.pairs[*step.pair]);
  }

  /// Of all matrices; nothing where sensitivities are not known.
  std::optional<double> expected_loss() const {
    double sum = 0;
    for (const Step& step : steps) {
      if (!step.expected_loss) return std::nullopt;
      sum += (*step.expected_loss)[0] + (*step.expected_loss)[1];
    }
    return steps.empty() ? std::nullopt : std::optional(sum);
  }

  // In a few words.
  /// The grid of one of a step's matrices.
  std::string grid(const Step& step, std::size_t i) const {
    if (is_together(step)) return step.recipe->grids(paired(step))[i];
    const MatrixPlace& W = place(step.matrices[i]);
    return step.recipe->grid(W.out, W.in);
  }
  std::string transform(const Step& step) const {
    if (is_together(step)) return "M between the two";
    const MatrixPlace& first = place(step.matrices[0]);
    return (step.pair ? "balance; " : "") + step.recipe->transform(first.out, first.in);
  }
};

}  // namespace cafeq
