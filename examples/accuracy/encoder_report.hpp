/// The results as tables for a terminal.
#pragma once

#include <cstdio>
#include <set>
#include <string>
#include <tuple>

#include "accuracy/encoder_result.hpp"
#include "support/format.hpp"
#include "support/table.hpp"

namespace cafeq::example {

inline void print_report(const Results& results) {
  const auto group_text = [](Index group) {
    return group == 0 ? std::string("row") : std::to_string(group);
  };

  Table matrices({{"matrix", Align::left},
                  {"shape"},
                  {"recipe", Align::left},
                  {"grid", Align::left},
                  {"group"},
                  {"bits"},
                  {"bits/weight"},
                  {"error"},
                  {"RTN error"},
                  {"seconds"}});
  std::string name;
  for (const auto& m : results.matrices) {
    if (!name.empty() && m.name != name) matrices.rule();
    name = m.name;
    matrices.row({m.name, message(m.rows, " x ", m.cols), m.recipe, m.grid, group_text(m.group),
                  std::to_string(m.bits), fixed(m.bits_per_weight, 3), fixed(m.relative_error, 5),
                  fixed(m.rtn_error, 5), fixed(m.seconds, 2)});
  }
  std::printf(
      "\nRelative error |W - W^|^2 / |W|^2 of every matrix; RTN rounds to nearest (affine, "
      "min/max) at the same bits and group\n\n");
  matrices.print();

  std::set<std::tuple<std::string, std::string, Index>> kinds;
  std::set<int> bits;
  for (const auto& m : results.matrices) {
    kinds.emplace(m.recipe, m.grid, m.group);
    bits.insert(m.bits);
  }
  std::vector<Table::Column> columns{{"recipe", Align::left}, {"grid", Align::left}, {"group"}};
  for (const int b : bits) columns.push_back({message(b, " bits")});
  Table means(columns);
  for (const auto& [recipe, grid, group] : kinds) {
    std::vector<std::string> cells{recipe, grid, group_text(group)};
    for (const int b : bits) {
      const auto mean = results.mean_error(recipe, grid, group, b);
      cells.push_back(mean ? fixed(*mean, 5) : "");
    }
    means.row(cells);
  }
  std::printf("\nGeometric mean of the error over the matrices (without `dense`)\n\n");
  means.print();

  if (!results.pairs.empty()) {
    Table pairs({{"pair", Align::left},
                 {"bits"},
                 {"MSE rounding"},
                 {"learned M"},
                 {"+ alternating"},
                 {"seconds"}});
    for (const auto& p : results.pairs)
      pairs.row({p.name, std::to_string(p.bits), fixed(p.mse_rtn_error, 5),
                 fixed(p.learned_only_error, 5), fixed(p.product_error, 5), fixed(p.seconds, 2)});
    std::printf(
        "\nRelative error of the product of each pair, one scale a channel, no extra bits\n\n");
    pairs.print();
  }
  if (!results.embedding.empty()) {
    Table embedding(
        {{"recipe", Align::left}, {"bits"}, {"bits/weight"}, {"mean cosine"}, {"min cosine"}});
    for (const auto& e : results.embedding)
      embedding.row({e.recipe, std::to_string(e.bits), fixed(e.bits_per_weight, 3),
                     fixed(e.mean_cosine, 4), fixed(e.min_cosine, 4)});
    std::printf(
        "\nEmbeddings of the sentences with every matrix quantized, against those of fp32\n\n");
    embedding.print();
  }
  std::printf("\nQuantization took %s on %lld threads; peak memory %s\n",
              duration_text(results.seconds).c_str(), static_cast<long long>(results.threads),
              byte_text(double(peak_rss_bytes())).c_str());
}

/// What the embeddings keep, in Markdown.
inline std::string embedding_table(const Results& results) {
  std::string text = "| encoder | bits | mean cosine | least cosine |\n|---|--:|--:|--:|\n";
  for (const EmbeddingResult& e : results.embedding)
    text += message("| `", e.recipe, "` | ", fixed(e.bits_per_weight, 2), " | ",
                    fixed(e.mean_cosine, 3), " | ", fixed(e.min_cosine, 3), " |\n");
  return text;
}

}  // namespace cafeq::example
