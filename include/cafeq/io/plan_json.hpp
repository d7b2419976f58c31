/// Plans as JSON: what tools print, and what a run is recognised by.
#pragma once

#include <string>
#include <utility>

#include "cafeq/io/gguf_recipe.hpp"
#include "cafeq/io/json.hpp"
#include "cafeq/io/model_output.hpp"
#include "cafeq/model/plan.hpp"

namespace cafeq {

/// {"recipe": name} and its options.
inline nlohmann::ordered_json to_json(const AnyRecipe& recipe) {
  nlohmann::ordered_json json{{"recipe", recipe->name()}};
  for (const RecipeOption& option : recipe->options())
    std::visit([&](const auto& value) { json[option.name] = value; }, option.value);
  if (const auto* gguf = recipe.as<GgufRecipe>()) json["type"] = gguf_type_info(gguf->type()).name;
  return json;
}

/// Steps, with what they will store and why, and the tensors that are kept. Equal plans for equal
/// models give equal texts.
inline nlohmann::ordered_json to_json(const Plan& plan) {
  const auto names = matrix_names(plan.roles);
  auto steps = nlohmann::ordered_json::array(), kept = steps;

  for (const Step& step : plan.steps) {
    auto matrices = nlohmann::ordered_json::array();
    for (std::size_t i = 0; i < step.matrices.size(); ++i) {
      const std::size_t m = step.matrices[i];
      const MatrixRole& matrix = plan.roles.matrices[m];
      matrices.push_back({{"name", names[m]},
                          {"role", name_of(matrix.role)},
                          {"rows", matrix.place.out},
                          {"cols", matrix.place.in}});
      if (step.expected_loss) matrices.back()["expected_loss"] = (*step.expected_loss)[i];
    }
    steps.push_back({{"matrices", matrices},
                     {"choice", to_json(step.recipe)},
                     {"transform", plan.transform(step)},
                     {"grid", plan.grid(step, 0)},
                     {"storage_bits", plan.storage_bits(step)},
                     {"in_metric", step.in_metric},
                     {"why", step.why}});
  }
  for (const KeptTensor& tensor : plan.kept)
    kept.push_back({{"name", tensor.tensor}, {"role", name_of(tensor.role)}, {"why", tensor.why}});

  const Index weights = plan.weights();
  nlohmann::ordered_json json{
      {"steps", steps},
      {"kept", kept},
      {"weights", weights},
      {"bits_per_weight", weights > 0 ? double(plan.storage_bits()) / double(weights) : 0.0}};
  if (const auto loss = plan.expected_loss()) json["expected_loss"] = *loss;
  return json;
}

}  // namespace cafeq
