/// A plan and its results as tables and as JSON.
#pragma once

#include <algorithm>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cafeq/io/plan_json.hpp"
#include "cafeq/run/forecast.hpp"
#include "cafeq/run/run_options.hpp"
#include "quantize_model/command_line.hpp"
#include "support/format.hpp"
#include "support/table.hpp"

namespace cafeq::example {

inline std::string shape_text(const MatrixPlace& place) {
  return message(place.out, " x ", place.in);
}

inline void print_warnings(const RunForecast& forecast, std::FILE* to) {
  for (const std::string& warning : forecast.warnings)
    std::fprintf(to, "warning: %s\n", warning.c_str());
}

/// In whose metric errors count, and where that is not what one would expect, why.
inline void print_metric(const CommandLine& line, const Plan& plan, const RunForecast& forecast,
                         std::FILE* to) {
  Index known = 0, all = 0;
  for (const Step& step : plan.steps) {
    all += Index(step.matrices.size());
    if (step.in_metric) known += Index(step.matrices.size());
  }
  std::string text;
  if (known > 0) {
    text = line.run.metric.empty()
               ? message(line.run.metric_maker->description, ", ",
                         byte_text(double(forecast.metric_bytes)), " on the disk meanwhile")
               : message("inputs in ", line.run.metric);
    if (known < all) text += message("; of ", known, " of ", all, " matrices");
  } else if (!line.no_metric_because.empty()) {
    text = message("none, weights alone: ", line.no_metric_because,
                   " (--metric FILE takes what another engine has collected)");
  } else if (line.metric_asked_for && line.metric != "none") {
    text = "none: what is asked for rounds in one way, whatever the inputs";
  }
  if (text.empty()) return;
  std::fprintf(to, "metric: %s\n", text.c_str());
  std::fflush(to);  // ahead of what other streams say
}

/// "0-3, 5, 7-29".
inline std::string ranges_text(const std::set<Index>& numbers) {
  std::string text;
  for (auto first = numbers.begin(); first != numbers.end();) {
    auto last = first;
    while (std::next(last) != numbers.end() && *std::next(last) == *last + 1) ++last;
    text += message(text.empty() ? "" : ", ", *first);
    if (last != first) text += message("-", *last);
    first = std::next(last);
  }
  return text;
}

/// A matrix of a plan, in the steps' order.
struct PlannedMatrix {
  const MatrixRole* matrix;
  const Step* step;
  std::size_t i;  ///< in the step
};
inline std::vector<PlannedMatrix> matrices_of(const Plan& plan) {
  std::vector<PlannedMatrix> all;
  for (const Step& step : plan.steps)
    for (std::size_t i = 0; i < step.matrices.size(); ++i)
      all.push_back({&plan.roles.matrices[step.matrices[i]], &step, i});
  return all;
}

/// What the model is expected to lose, where that is known.
inline void print_expected(const Plan& plan, std::FILE* to) {
  if (const auto loss = plan.expected_loss())
    std::fprintf(to, "expected KL divergence, on texts that the model writes: %s nats a token\n",
                 fixed(*loss, 4).c_str());
}

/// By layer: what will be done with each matrix, and why. Matrices that are alike but for their
/// layers share a line.
inline void print_plan(const Plan& plan, const RunForecast& forecast, std::FILE* to) {
  struct Line {
    std::vector<std::string> cells;  // from the role on
    std::set<Index> layers{};
    Index matrices = 0;
    std::string tensor{};
    double loss = 0;  // expected, of all its matrices
  };
  std::vector<Line> lines;
  const auto expected = plan.expected_loss();
  const auto add = [&](std::vector<std::string> cells, const std::string& tensor, Index layer,
                       double loss = 0) {
    auto line = std::find_if(lines.begin(), lines.end(),
                             [&](const Line& other) { return other.cells == cells; });
    if (line == lines.end()) line = lines.insert(lines.end(), {std::move(cells)});
    if (layer >= 0) line->layers.insert(layer);
    ++line->matrices;
    line->loss += loss;
    line->tensor = tensor;
  };

  auto all = matrices_of(plan);
  std::stable_sort(all.begin(), all.end(), [](const PlannedMatrix& a, const PlannedMatrix& b) {
    return std::pair(a.matrix->layer, a.matrix->role) < std::pair(b.matrix->layer, b.matrix->role);
  });
  for (const auto& [matrix, step, i] : all) {
    const MatrixPlace& place = matrix->place;
    const double bits = double(plan.storage_bits_each(*step, step->recipe)[i]) /
                        (double(place.out) * double(place.in));
    add({std::string(name_of(matrix->role)), shape_text(place), plan.transform(*step),
         plan.grid(*step, i), fixed(bits, 3), step->why},
        place.tensor, matrix->layer, expected ? (*step->expected_loss)[i] : 0);
  }
  for (const KeptTensor& kept : plan.kept)
    add({std::string(name_of(kept.role)), "", "", "as it is", "", kept.why}, kept.tensor, -1);

  std::vector<Table::Column> columns{{"layers", Align::left},
                                     {"tensors"},
                                     {"role", Align::left},
                                     {"shape"},
                                     {"transform", Align::left},
                                     {"grid", Align::left},
                                     {"bits"},
                                     {"why", Align::left}};
  if (expected) columns.insert(columns.end() - 1, {"KL"});
  Table table(columns);
  for (const Line& line : lines) {
    std::vector<std::string> row{
        line.layers.empty() && line.matrices == 1 ? line.tensor : ranges_text(line.layers),
        message(line.matrices)};
    row.insert(row.end(), line.cells.begin(), line.cells.end());
    if (expected) row.insert(row.end() - 1, line.loss > 0 ? fixed(line.loss, 5) : "");
    table.row(std::move(row));
  }
  table.print(to);
  const double weights = double(plan.weights());
  if (weights > 0)
    std::fprintf(to, "%s M weights at %s bits; ", fixed(weights / 1e6, 2).c_str(),
                 fixed(double(plan.storage_bits()) / weights, 3).c_str());
  std::fprintf(
      to, "output %s, input %s; memory about %s\n", byte_text(double(forecast.bytes_after)).c_str(),
      byte_text(double(forecast.bytes_before)).c_str(), byte_text(double(forecast.memory)).c_str());
  print_expected(plan, to);
}

/// The plan with what is known ahead.
inline nlohmann::ordered_json to_json(const Plan& plan, const RunForecast& forecast) {
  auto json = cafeq::to_json(plan);
  json["warnings"] = forecast.warnings;
  json["bytes_before"] = forecast.bytes_before;
  json["bytes_after"] = forecast.bytes_after;
  json["memory_bytes"] = forecast.memory;
  return json;
}

/// The plan with what has come of it: the relative error of each matrix, or of the product where
/// two are rounded together.
inline nlohmann::ordered_json to_json(const Plan& plan, const RunForecast& forecast,
                                      const RunSummary& summary) {
  auto json = to_json(plan, forecast);
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

/// How many matrices have each grid, and why some have another one than was asked for.
inline void print_grids(const Plan& plan, std::FILE* to) {
  std::map<std::string, Index> grids;
  std::set<std::string> notes;
  for (const auto& [matrix, step, i] : matrices_of(plan)) {
    ++grids[plan.grid(*step, i)];
    notes.insert(step->recipe->note(matrix->place.out, matrix->place.in));
  }
  std::string text;
  for (const auto& [grid, count] : grids)
    text += message(text.empty() ? "" : ", ", grid, " ", count);
  std::fprintf(to, "grids: %s\n", text.c_str());
  for (const std::string& note : notes)
    if (!note.empty()) std::fprintf(to, "  %s\n", note.c_str());
  if (const std::string kept = cafeq::detail::why_kept(plan); !kept.empty())
    std::fprintf(to, "kept: %s\n", kept.c_str());
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
  print_grids(plan, to);
  print_expected(plan, to);
}

}  // namespace cafeq::example
