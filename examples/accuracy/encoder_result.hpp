/// What is measured of the sentence encoder, as it is printed and as it is written to encoder.json.
#pragma once

#include <sys/resource.h>

#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cafeq/core/numeric.hpp"

namespace cafeq::example {

/// One matrix by one recipe.
struct MatrixResult {
  std::string name;
  Index rows = 0, cols = 0;
  std::string recipe;  ///< rtn, mse, hadamard, fast, learned, paper
  std::string grid;    ///< affine, midrise
  Index group = 0;     ///< 0: one scale a row
  int bits = 0;
  double bits_per_weight = 0;
  double relative_error = 0;
  double rtn_error = 0;  ///< of rounding to nearest (affine, min/max) at the same bits and group
  double seconds = 0;
};

/// One pair of matrices that meet in the graph.
struct PairResult {
  std::string name, kind;
  int bits = 0;
  double product_error = 0;       ///< learned M and alternating rounding
  double mse_rtn_error = 0;       ///< plain matrices, MSE scales, nearest
  double learned_only_error = 0;  ///< learned M, MSE scales, nearest
  double seconds = 0;
};

/// The whole encoder with every matrix quantized by one recipe: cosines between its embeddings and
/// those of fp32.
struct EmbeddingResult {
  std::string recipe;
  int bits = 0;
  double bits_per_weight = 0;
  double mean_cosine = 0;
  double min_cosine = 0;
};

struct Results {
  std::string model;
  std::vector<MatrixResult> matrices;
  std::vector<PairResult> pairs;
  std::vector<EmbeddingResult> embedding;
  Index threads = 1;
  double seconds = 0;  ///< of all quantization

  /// The geometric mean of the relative errors over the matrices that the targets name: all but the
  /// residual's `dense`.
  std::optional<double> mean_error(const std::string& recipe, const std::string& grid, Index group,
                                   int bits) const {
    double sum = 0;
    int count = 0;
    for (const auto& m : matrices)
      if (m.recipe == recipe && m.grid == grid && m.group == group && m.bits == bits &&
          m.name != "dense") {
        sum += std::log(m.relative_error);
        ++count;
      }
    if (count == 0) return std::nullopt;
    return std::exp(sum / count);
  }
};

/// The most memory that the process has held, in bytes.
inline std::int64_t peak_rss_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return std::int64_t(usage.ru_maxrss) * 1024;
}

inline nlohmann::ordered_json to_json(const Results& results) {
  using Json = nlohmann::ordered_json;
  Json matrices = Json::array();
  for (const auto& m : results.matrices)
    matrices.push_back({{"name", m.name},
                        {"rows", m.rows},
                        {"cols", m.cols},
                        {"recipe", m.recipe},
                        {"grid", m.grid},
                        {"group", m.group == 0 ? Json("row") : Json(m.group)},
                        {"bits", m.bits},
                        {"bits_per_weight", m.bits_per_weight},
                        {"relative_error", m.relative_error},
                        {"rtn_error", m.rtn_error},
                        {"seconds", m.seconds}});
  Json pairs = Json::array();
  for (const auto& p : results.pairs)
    pairs.push_back({{"name", p.name},
                     {"kind", p.kind},
                     {"bits", p.bits},
                     {"product_error", p.product_error},
                     {"mse_rtn_error", p.mse_rtn_error},
                     {"learned_only_error", p.learned_only_error},
                     {"seconds", p.seconds}});
  Json embedding = Json::array();
  for (const auto& e : results.embedding)
    embedding.push_back({{"recipe", e.recipe},
                         {"bits", e.bits},
                         {"bits_per_weight", e.bits_per_weight},
                         {"mean_cosine", e.mean_cosine},
                         {"min_cosine", e.min_cosine}});
  return {{"model", results.model},
          {"matrices", matrices},
          {"pairs", pairs},
          {"embedding", embedding},
          {"threads", results.threads},
          {"quantization_seconds", results.seconds},
          {"peak_rss_bytes", peak_rss_bytes()}};
}

}  // namespace cafeq::example
