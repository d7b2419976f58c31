/// What a comparison has found, for people and for programs.
#pragma once

#include <cstdio>
#include <nlohmann/json.hpp>
#include <vector>

#include "evaluate.hpp"

namespace engine {

/// Tokens that are predicted: all but the first of each text.
inline Index predicted_tokens(const std::vector<Tokens>& texts) {
  Index count = 0;
  for (const Tokens& text : texts) count += std::max<Index>(0, Index(text.size()) - 1);
  return count;
}

inline nlohmann::ordered_json to_json(const Comparison& found) {
  const auto before = perplexity_of(found.reference_surprises),
             after = perplexity_of(found.surprises);
  const auto kl = mean_of(found.divergences), same = mean_of(found.same_top);
  return {{"predicted_tokens", found.surprises.size()},
          {"reference_perplexity", before.value},
          {"reference_perplexity_error", before.error},
          {"perplexity", after.value},
          {"perplexity_error", after.error},
          {"kl", kl.value},
          {"kl_error", kl.error},
          {"kl99", quantile(found.divergences, .99)},
          {"same_top", same.value},
          {"same_top_error", same.error}};
}

inline void print(const Comparison& found, std::FILE* to) {
  const auto before = perplexity_of(found.reference_surprises),
             after = perplexity_of(found.surprises);
  const auto kl = mean_of(found.divergences), same = mean_of(found.same_top);
  std::fprintf(to, "perplexity     %.4f ± %.4f, of the reference %.4f ± %.4f\n", after.value,
               after.error, before.value, before.error);
  std::fprintf(to, "KL divergence  %.5f ± %.5f nats, 99 %% below %.4f\n", kl.value, kl.error,
               quantile(found.divergences, .99));
  std::fprintf(to, "same top token %.2f ± %.2f %%\n", 100 * same.value, 100 * same.error);
}

}  // namespace engine
