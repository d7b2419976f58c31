/// Verdicts as JSON and as tables in Markdown.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "accuracy/judge.hpp"
#include "support/format.hpp"

namespace cafeq::accuracy {

using example::fixed;
using example::scientific;

struct Measurement {
  std::string model, recipe, metric = "none";
  std::optional<double> bits_per_weight{};  ///< none: it is not quantized
  double file_bytes = 0;
  std::optional<std::uint64_t> seed{};
  double seconds = 0;
  std::optional<double> expected_kl{};  ///< what its plan has said
  Verdict verdict{};
};

inline nlohmann::ordered_json to_json(const Measurement& m) {
  using Json = nlohmann::ordered_json;
  const auto& [perplexity, kl, same_top, kl99, tasks] = m.verdict;
  Json json{{"model", m.model},
            {"recipe", m.recipe},
            {"metric", m.metric},
            {"bits_per_weight", m.bits_per_weight ? Json(*m.bits_per_weight) : Json()},
            {"file_bytes", m.file_bytes},
            {"perplexity", perplexity.value},
            {"perplexity_error", perplexity.error},
            {"kl", kl.value},
            {"kl_error", kl.error},
            {"kl99", kl99},
            {"same_top", same_top.value},
            {"same_top_error", same_top.error},
            {"seed", m.seed ? Json(*m.seed) : Json()},
            {"seconds", m.seconds}};
  if (m.expected_kl) json["expected_kl"] = *m.expected_kl;
  for (const auto& [name, share] : tasks)
    json["tasks"][name] = {{"accuracy", share.value}, {"error", share.error}};
  return json;
}

/// What to_json() has written.
inline Measurement from_json(const nlohmann::ordered_json& json) {
  Measurement m;
  json.at("model").get_to(m.model);
  json.at("recipe").get_to(m.recipe);
  json.at("metric").get_to(m.metric);
  if (!json.at("bits_per_weight").is_null()) m.bits_per_weight = json["bits_per_weight"];
  json.at("file_bytes").get_to(m.file_bytes);
  if (json.contains("expected_kl")) m.expected_kl = json["expected_kl"];
  if (!json.at("seed").is_null()) m.seed = json["seed"].get<std::uint64_t>();
  json.at("seconds").get_to(m.seconds);
  const auto estimate = [&](const char* value, const char* error) {
    return Estimate{json.at(value), json.at(error)};
  };
  m.verdict = {estimate("perplexity", "perplexity_error"), estimate("kl", "kl_error"),
               estimate("same_top", "same_top_error"), json.at("kl99")};
  if (json.contains("tasks"))
    for (const auto& [name, task] : json["tasks"].items())
      m.verdict.tasks[name] = {task.at("accuracy"), task.at("error")};
  return m;
}

namespace detail {

/// Three digits that count.
inline std::string digits(double value) {
  if (value >= 1e5) return scientific(value, 0);
  return fixed(value, value > 0 ? std::clamp(2 - int(std::floor(std::log10(value))), 0, 4) : 0);
}

/// What differs in its seed only, as one row.
using Seeds = std::vector<const Measurement*>;

inline std::vector<Seeds> by_seeds(std::span<const Measurement> all) {
  std::vector<Seeds> rows;
  for (const Measurement& m : all) {
    const auto same = std::find_if(rows.begin(), rows.end(), [&](const Seeds& row) {
      constexpr double alike = 0.1;  // bits of what differs in its seed only
      return m.seed && row[0]->recipe == m.recipe && row[0]->metric == m.metric &&
             row[0]->bits_per_weight && m.bits_per_weight &&
             std::abs(*row[0]->bits_per_weight - *m.bits_per_weight) < alike;
    });
    if (same == rows.end()) rows.push_back({&m});
    else same->push_back(&m);
  }
  return rows;
}

/// Mean and, of several, standard deviation.
template <class F>
std::string over(const Seeds& row, F&& value) {
  std::vector<double> values;
  for (const Measurement* m : row) values.push_back(value(*m));
  const auto [mean, error] = engine::mean_of(values);
  std::string text = digits(mean);
  if (values.size() > 1) text += " ± " + digits(error * std::sqrt(double(values.size())));
  return text;
}

inline std::string cells(std::initializer_list<std::string> texts) {
  std::string line = "|";
  for (const std::string& text : texts) line += " " + text + " |";
  return line + "\n";
}

inline std::string megabytes(double bytes) { return fixed(bytes / 1e6, 1); }

inline std::string row_of(const Seeds& row) {
  const Measurement& m = *row[0];
  const auto mean = [&](auto&& value) { return over(row, value); };
  return cells({m.recipe + (m.metric == "none" ? "" : message(", ", m.metric)),
                m.bits_per_weight ? fixed(*m.bits_per_weight, 2) : "", megabytes(m.file_bytes),
                mean([](const auto& x) { return x.verdict.perplexity.value; }),
                mean([](const auto& x) { return x.verdict.kl.value; }),
                mean([](const auto& x) { return x.verdict.kl99; }),
                mean([](const auto& x) { return x.verdict.same_top.value; }),
                m.bits_per_weight ? digits(m.seconds) : ""});
}

}  // namespace detail

/// A table for each size, the smallest KL first.
inline std::string size_tables(std::span<const Measurement> all) {
  auto rows = detail::by_seeds(all);
  std::stable_sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) {
    return a[0]->verdict.kl.value < b[0]->verdict.kl.value;
  });
  struct Size {
    const char* name;
    double from, to;
  };
  constexpr Size sizes[]{{"about 2 bits", 0, 2.75},
                         {"about 3 bits", 2.75, 3.75},
                         {"about 4 bits", 3.75, 4.75},
                         {"more", 4.75, 1e9}};
  std::string text;
  for (const auto& [name, from, to] : sizes) {
    std::string table;
    for (const auto& row : rows) {
      const double bits = row[0]->bits_per_weight.value_or(0);
      if (bits > from && bits <= to) table += detail::row_of(row);
    }
    if (!table.empty())
      text += detail::cells({name, "bits", "MB", "perplexity", "KL", "99 %", "same top", "s"}) +
              "|---|--:|--:|--:|--:|--:|--:|--:|\n" + table + "\n";
  }
  return text;
}

/// What plans have said of KL, beside what came of it on the texts that are judged.
inline std::string expected_table(std::span<const Measurement> all) {
  std::string table;
  for (const auto& row : detail::by_seeds(all)) {
    if (!row[0]->expected_kl) continue;
    const auto mean = [&](auto&& value) { return detail::over(row, value); };
    table += detail::cells(
        {message(row[0]->recipe, ", ", row[0]->metric), fixed(*row[0]->bits_per_weight, 2),
         mean([](const auto& m) { return *m.expected_kl; }),
         mean([](const auto& m) { return m.verdict.kl.value; }),
         mean([](const auto& m) { return *m.expected_kl / m.verdict.kl.value; })});
  }
  if (table.empty()) return "";
  return detail::cells({"expected", "bits", "expected KL", "KL", "ratio"}) +
         "|---|--:|--:|--:|--:|\n" + table + "\n";
}

/// Shares of right answers in per cent, and their standard errors.
inline std::string task_table(std::span<const Measurement> all, std::span<const Task> tasks) {
  if (tasks.empty()) return "";
  std::string head = "| right answers, % | bits |", rule = "|---|--:|", text;
  for (const Task& task : tasks) {
    head += " " + task.name + " |";
    rule += "--:|";
  }
  for (const Measurement& m : all) {
    if (m.verdict.tasks.empty()) continue;
    double sum = 0;
    text +=
        message("| ", m.recipe, " | ", m.bits_per_weight ? fixed(*m.bits_per_weight, 2) : "", " |");
    for (const Task& task : tasks) {
      const auto& [share, error] = m.verdict.tasks.at(task.name);
      text += message(" ", fixed(100 * share, 1), " ± ", fixed(100 * error, 1), " |");
      sum += share;
    }
    text += message(" ", fixed(100 * sum / double(tasks.size()), 1), " |\n");
  }
  return head + " mean |\n" + rule + "--:|\n" + text + "\n";
}

}  // namespace cafeq::accuracy
