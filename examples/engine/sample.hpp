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

    const double drawn = double(random_() >> 11) * 0x1p-53;
    const auto weight = [&](std::size_t i) {
      return std::exp((double(logits[i]) - most) / temperature_);
    };
    if (top_p_ < 1) {
      weights_.clear();
      for (std::size_t i = 0; i < logits.size(); ++i) weights_.emplace_back(weight(i), Token(i));
      double left = drawn * keep_likely();
      for (const auto& [kept, token] : weights_)
        if ((left -= kept) < 0) return token;
      return weights_.back().second;
    }
    // Where all may be drawn, weights are needed only up to the one that is.
    double left = drawn;
    if (temperature_ == 1) {
      left *= std::exp(kernels().log_sum_exp(logits) - most);
    } else {
      double sum = 0;
      for (std::size_t i = 0; i < logits.size(); ++i) sum += weight(i);
      left *= sum;
    }
    for (std::size_t i = 0; i < logits.size(); ++i)
      if ((left -= weight(i)) < 0) return Token(i);
    return most_likely(logits);  // as good as any where rounding leaves a rest
  }

 private:
  /// Leaves the likeliest tokens, which have top_p of the sum, and returns what they have.
  double keep_likely() {
    double sum = 0;
    for (const auto& [weight, token] : weights_) sum += weight;
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
