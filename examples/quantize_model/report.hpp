/// A plan and its results as tables and as JSON.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cafeq/io/plan_json.hpp"
#include "cafeq/run/run_options.hpp"
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
      const double bits = double(plan.storage_bits_each(step, step.recipe)[i]) /
                          (double(place.out) * double(place.in));
      table.row({names[m], std::string(name_of(plan.roles.matrices[m].role)), shape_text(place),
                 plan.transform(step), plan.grid(step, i), fixed(bits, 3), step.why});
    }
  for (const KeptTensor& kept : plan.kept)
    table.row({kept.tensor, std::string(name_of(kept.role)), "", "", "as it is", "", kept.why});
  table.print(to);
}

/// The plan with what has come of it: the relative error of each matrix, or of the product where
/// two are rounded together.
inline nlohmann::ordered_json to_json(const Plan& plan, const RunSummary& summary) {
  auto json = cafeq::to_json(plan);
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
inline void print_summary(const Plan& plan, const RunSummary& summary, std::FILE* to) {
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
        sums->bits += double(plan.storage_bits_each(step, step.recipe)[i]);
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
