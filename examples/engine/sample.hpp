/// The choice of the next token.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "model.hpp"

namespace engine {

/// The most likely token; the first of equals.
inline Token most_likely(std::span<const float> logits) {
  return Token(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

class Sampler {
 public:
  /// Temperature 0 takes the most likely token. Otherwise one is drawn from the fewest tokens that
  /// together have probability top_p.
  Sampler(double temperature, double top_p, std::uint64_t seed)
      : temperature_(temperature), top_p_(top_p), random_(seed) {}

  Token operator()(std::span<const float> logits) {
    const double most = double(logits[most_likely(logits)]);
    if (!std::isfinite(most) ||
        std::ranges::any_of(logits, [](float logit) { return std::isnan(logit); }))
      raise(cafeq::ErrorCode::invalid_argument, "the logits of the model are not finite");
    if (temperature_ == 0) return most_likely(logits);

    double sum = 0;
    weights_.clear();
    for (std::size_t i = 0; i < logits.size(); ++i) {
      weights_.emplace_back(std::exp((double(logits[i]) - most) / temperature_), Token(i));
      sum += weights_.back().first;
    }
    if (top_p_ < 1) sum = keep_likely(sum);

    double left = double(random_() >> 11) * 0x1p-53 * sum;
    for (const auto& [weight, token] : weights_)
      if ((left -= weight) < 0) return token;
    return weights_.back().second;
  }

 private:
  /// Leaves the likeliest tokens, which have top_p of the sum, and returns what they have.
  double keep_likely(double sum) {
    // Tokens below this have less than 1 - top_p together, so that none of them is kept.
    const double least = (1 - top_p_) * sum / double(weights_.size());
    std::erase_if(weights_, [&](const auto& entry) { return entry.first < least; });
    std::ranges::sort(weights_, [](const auto& a, const auto& b) {
      return a.first > b.first || (a.first == b.first && a.second < b.second);
    });
    double kept = 0;
    std::size_t count = 0;
    while (count < weights_.size() && (count == 0 || kept < top_p_ * sum))
      kept += weights_[count++].first;
    weights_.resize(count);
    return kept;
  }

  double temperature_, top_p_;
  std::mt19937_64 random_;
  std::vector<std::pair<double, Token>> weights_;
};

}  // namespace engine
