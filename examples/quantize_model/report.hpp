/// A plan and its results as tables and as JSON.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cafeq/io/model_output.hpp"
#include "support/format.hpp"
#include "support/table.hpp"

namespace cafeq::example {

inline std::string shape_text(const MatrixPlace& place) {
  return message(place.out, " x ", place.in);
}

/// Every tensor: what will be done with it, and why.
inline void print_plan(const Plan& plan, std::FILE* to) {
  const auto names = matrix_names(plan.roles);
  Table table({{"tensor", Align::left},
               {"role", Align::left},
               {"shape"},
               {"transform", Align::left},
               {"grid", Align::left},
               {"bits"},
               {"why", Align::left}});
  for (const Step& step : plan.steps)
    for (std::size_t i = 0; i < step.matrices.size(); ++i) {
      const std::size_t m = step.matrices[i];
      const MatrixPlace& place = plan.place(m);
      const double bits =
          double(plan.storage(step, step.choice, i)) / (double(place.out) * double(place.in));
      table.row({names[m], std::string(name_of(plan.roles.matrices[m].role)), shape_text(place),
                 plan.transform(step), plan.grid(step, i), fixed(bits, 3), step.why});
    }
  for (const KeptTensor& kept : plan.kept)
    table.row({kept.tensor, std::string(name_of(kept.role)), "", "", "as it is", "", kept.why});
  table.print(to);
}

inline nlohmann::ordered_json to_json(const Choice& choice) {
  nlohmann::ordered_json json{{"recipe", name_of(choice.method)},
                              {"bits", choice.bits},
                              {"group", choice.group},
                              {"seed", choice.seed}};
  if (choice.method == Method::smallest)
    json = {{"recipe", name_of(choice.method)}, {"budget", choice.budget}, {"seed", choice.seed}};
  if (choice.type) json["type"] = gguf_type_info(*choice.type).name;
  return json;
}

inline nlohmann::ordered_json to_json(const Plan& plan) {
  const auto names = matrix_names(plan.roles);
  auto steps = nlohmann::ordered_json::array(), kept = steps;
  const Index weights = plan.weights();
  for (const Step& step : plan.steps) {
    auto matrices = nlohmann::ordered_json::array();
    for (const std::size_t m : step.matrices) {
      const MatrixRole& matrix = plan.roles.matrices[m];
      matrices.push_back({{"name", names[m]},
                          {"role", name_of(matrix.role)},
                          {"rows", matrix.place.out},
                          {"cols", matrix.place.in}});
    }
    steps.push_back({{"matrices", matrices},
                     {"choice", to_json(step.choice)},
                     {"transform", plan.transform(step)},
                     {"grid", plan.grid(step, 0)},
                     {"storage_bits", plan.storage(step)},
                     {"why", step.why}});
  }
  for (const KeptTensor& tensor : plan.kept)
    kept.push_back({{"name", tensor.tensor}, {"role", name_of(tensor.role)}, {"why", tensor.why}});
  return {{"steps", steps},
          {"kept", kept},
          {"weights", weights},
          {"bits_per_weight", weights > 0 ? double(plan.storage()) / double(weights) : 0.0}};
}

/// What a run has come to.
struct Summary {
  PartErrors errors;
  double seconds = 0;  ///< of this run
  Index bytes_before = 0;
  Index bytes_after = 0;
};

/// The plan with what has come of it: the relative error of each matrix, or of the product where
/// two are rounded together.
inline nlohmann::ordered_json to_json(const Plan& plan, const Summary& summary) {
  auto json = to_json(plan);
  for (auto& step : json["steps"]) {
    auto& matrices = step["matrices"];
    for (auto& matrix : matrices)
      if (const auto found = summary.errors.matrices.find(matrix["name"].get<std::string>());
          found != summary.errors.matrices.end())
        matrix["error"] = found->second.error / found->second.norm;
    if (const auto found = summary.errors.pairs.find(matrices[0]["name"].get<std::string>());
        matrices.size() > 1 && found != summary.errors.pairs.end())
      step["error_of_product"] = found->second;
  }
  json["seconds"] = summary.seconds;
  json["bytes_before"] = summary.bytes_before;
  json["bytes_after"] = summary.bytes_after;
  return json;
}

/// By role: how many, their weights, bits and error.
inline void print_summary(const Plan& plan, const Summary& summary, std::FILE* to) {
  struct Sums {
    Index matrices = 0;
    double weights = 0, bits = 0, error = 0, norm = 0, pair_error = 0;
    Index pairs = 0;
  };
  const auto names = matrix_names(plan.roles);
  const auto& [errors, pair_errors] = summary.errors;
  std::map<Role, Sums> roles;
  Sums all;
  for (const Step& step : plan.steps)
    for (std::size_t i = 0; i < step.matrices.size(); ++i) {
      const std::size_t m = step.matrices[i];
      const MatrixPlace& place = plan.place(m);
      for (Sums* sums : {&roles[plan.roles.matrices[m].role], &all}) {
        ++sums->matrices;
        sums->weights += double(place.out) * double(place.in);
        sums->bits += double(plan.storage(step, step.choice, i));
        if (const auto found = errors.find(names[m]); found != errors.end()) {
          sums->error += found->second.error;
          sums->norm += found->second.norm;
        }
        if (const auto found = pair_errors.find(names[step.matrices[0]]);
            step.pair && found != pair_errors.end()) {
          sums->pair_error += found->second;
          ++sums->pairs;
        }
      }
    }
  Table table({{"role", Align::left},
               {"matrices"},
               {"weights"},
               {"bits a weight"},
               {"error"},
               {"error of products"}});
  const auto row = [&](std::string name, const Sums& sums) {
    table.row({std::move(name), message(sums.matrices), fixed(sums.weights / 1e6, 2) + " M",
               fixed(sums.bits / sums.weights, 3),
               sums.norm > 0 ? fixed(sums.error / sums.norm, 5) : "",
               sums.pairs > 0 ? fixed(sums.pair_error / double(sums.pairs), 5) : ""});
  };
  for (const auto& [role, sums] : roles) row(std::string(name_of(role)), sums);
  if (roles.size() > 1) {
    table.rule();
    row("all", all);
  }
  table.print(to);
}

}  // namespace cafeq::example
