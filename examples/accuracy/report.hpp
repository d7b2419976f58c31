/// Measurements as JSON and as Markdown.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "accuracy/measure.hpp"
#include "accuracy/peers.hpp"
#include "support/format.hpp"

namespace cafeq::example {

/// All that differ in the seed at most, as one.
struct Row {
  std::string recipe;
  std::string grid;
  Index group;
  int bits;
  bool pairs;

  bool operator==(const Row&) const = default;
};

inline Row row_of(const Measurement& m) { return {m.recipe, m.grid, m.group, m.bits, m.pairs}; }

/// Over the seeds.
struct Mean {
  double bits_per_weight = 0;
  double error = 0;
  double quality = 0;  ///< the mean cosine, or the perplexity over that of fp32
  std::vector<double> value_output_errors{};
};

class Report {
 public:
  void add_fp32(const std::string& model, const Quality& quality) { fp32_[model] = quality; }
  void add(Measurement m) { all_.push_back(std::move(m)); }

  std::optional<Mean> mean(std::string_view model, const Row& row) const;
  /// Every measurement.
  std::string json() const;
  /// The means: a table for each number of bits, peers among its rows, and one of the types of
  /// GGUF.
  std::string tables() const;

 private:
  std::vector<Row> rows() const;

  std::map<std::string, Quality, std::less<>> fp32_;
  std::vector<Measurement> all_;
};

namespace detail {

/// Three significant digits.
inline std::string digits(double value) {
  return fixed(value, value > 0 ? std::max(0, 2 - int(std::floor(std::log10(value)))) : 0);
}

inline std::string cells(double bits, double error, double quality) {
  return message(" | ", fixed(bits, 2), " | ", digits(error), " | ", fixed(quality, 3));
}

inline std::string name_of(const Row& row) {
  return message("**`", row.recipe, "`**, ", row.grid,
                 row.group == per_row ? std::string(" row") : message(" g", row.group),
                 row.pairs ? ", pairs" : "");
}

}  // namespace detail

inline std::optional<Mean> Report::mean(std::string_view model, const Row& row) const {
  Mean mean;
  double count = 0;
  for (const Measurement& m : all_) {
    if (m.model != model || row_of(m) != row) continue;
    ++count;
    mean.bits_per_weight += m.bits_per_weight;
    mean.error += m.relative_error;
    mean.quality += m.quality.perplexity
                        ? *m.quality.perplexity / *fp32_.find(model)->second.perplexity
                        : *m.quality.mean_cosine;
    mean.value_output_errors.resize(m.value_output_errors.size());
    for (std::size_t i = 0; i < m.value_output_errors.size(); ++i)
      mean.value_output_errors[i] += m.value_output_errors[i];
  }
  if (count == 0) return std::nullopt;
  for (double* sum : {&mean.bits_per_weight, &mean.error, &mean.quality}) *sum /= count;
  for (double& sum : mean.value_output_errors) sum /= count;
  return mean;
}

inline std::string Report::json() const {
  using Json = nlohmann::ordered_json;
  const auto number = [](const std::optional<double>& value) {
    return value ? Json(*value) : Json();
  };
  Json list = Json::array();
  for (const Measurement& m : all_) {
    list.push_back({{"model", m.model},
                    {"recipe", m.recipe},
                    {"grid", m.grid},
                    {"group", m.group == per_row ? Json("row") : Json(m.group)},
                    {"bits", m.bits},
                    {"bits_per_weight", m.bits_per_weight},
                    {"pairs", m.pairs},
                    {"seed", m.seed},
                    {"relative_error", m.relative_error},
                    {"perplexity", number(m.quality.perplexity)},
                    {"fp32_perplexity", number(fp32_.find(m.model)->second.perplexity)},
                    {"mean_cosine", number(m.quality.mean_cosine)}});
    if (!m.value_output_errors.empty()) list.back()["value_output_errors"] = m.value_output_errors;
  }
  return list.dump(1) + "\n";
}

/// In the order of the tables.
inline std::vector<Row> Report::rows() const {
  constexpr std::array<std::string_view, 8> order{"rtn",      "fast",
                                                  "learned",  "learned, k = 64",
                                                  "paper",    "smallest, window 10",
                                                  "smallest", "smallest, window 14"};
  std::vector<Row> rows;
  for (const Measurement& m : all_)
    if (std::find(rows.begin(), rows.end(), row_of(m)) == rows.end()) rows.push_back(row_of(m));
  std::stable_sort(rows.begin(), rows.end(), [&](const Row& a, const Row& b) {
    const auto key = [&](const Row& row) {
      return std::pair(std::find(order.begin(), order.end(), row.recipe), row.grid);
    };
    return key(a) < key(b);
  });
  return rows;
}

inline std::string Report::tables() const {
  constexpr const char* head =
      " | encoder: bits | error | cosine | stories: bits | error | perplexity ratio "
      "|\n|---|---|---|---|---|---|---|\n";
  const auto line = [&](const std::string& name, const Row& row) {
    std::string text = "| " + name;
    for (const char* model : {"use", "stories260K"}) {
      const auto m = mean(model, row);
      text += m ? detail::cells(m->bits_per_weight, m->error, m->quality) : " | | | ";
    }
    return text + " |\n";
  };
  std::string text;
  for (const int bits : {2, 3, 4}) {
    text += message("| ", bits, " bits", head);
    for (const Row& row : rows())
      if (row.recipe != "gguf" && row.bits == bits) text += line(detail::name_of(row), row);
    for (const Peer& peer : peers)
      if (peer.bits == bits)
        text += message("| ", peer.method,
                        detail::cells(peer.encoder_bits, peer.encoder_error, peer.cosine),
                        detail::cells(peer.stories_bits, peer.stories_error,
                                      peer.perplexity / peers_fp32_perplexity),
                        " |\n");
    text += "\n";
  }
  text += message("| type of GGUF", head);
  for (const Row& row : rows())
    if (row.recipe == "gguf") text += line(row.grid, row);
  return text;
}

}  // namespace cafeq::example
