/// What became of a language model: a row of a table, and of a JSON file.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "engine/evaluate.hpp"

namespace cafeq::example {

struct Judgement {
  std::string model;
  std::string recipe;
  std::string metric = "none";  ///< in which errors were measured as the weights were rounded
  double bits_per_weight = 0;   ///< of what is quantized, everything counted
  Index file_bytes = 0;
  std::uint64_t seed = 0;
  double seconds = 0;  ///< of quantizing, from file to file
  engine::Estimate perplexity{};
  engine::Estimate kl{};  ///< divergence from the model before, nats
  double kl99 = 0;        ///< what 99 % of the tokens stay below
  engine::Estimate same_top{};
};

/// Sets what a comparison with the model before has found.
inline void set_comparison(Judgement& row, const engine::Comparison& found) {
  row.perplexity = engine::perplexity_of(found.surprises);
  row.kl = engine::mean_of(found.divergences);
  row.kl99 = engine::quantile(found.divergences, .99);
  row.same_top = engine::mean_of(found.same_top);
}

inline nlohmann::ordered_json to_json(const Judgement& row) {
  return {{"model", row.model},
          {"recipe", row.recipe},
          {"metric", row.metric},
          {"bits_per_weight", row.bits_per_weight},
          {"file_bytes", row.file_bytes},
          {"perplexity", row.perplexity.value},
          {"perplexity_error", row.perplexity.error},
          {"kl", row.kl.value},
          {"kl_error", row.kl.error},
          {"kl99", row.kl99},
          {"same_top", row.same_top.value},
          {"same_top_error", row.same_top.error},
          {"seed", row.seed},
          {"seconds", row.seconds}};
}

}  // namespace cafeq::example
