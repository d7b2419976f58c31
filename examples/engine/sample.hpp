/// The choice of the next token.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <span>
#include <vector>

#include "model.hpp"

namespace engine {

class Sampler {
 public:
  /// Temperature 0 takes the most likely token. Otherwise one is drawn from the fewest tokens that
  /// together have probability top_p.
  Sampler(float temperature, float top_p, std::uint64_t seed)
      : temperature_(temperature), top_p_(top_p), random_(seed) {}

  Token operator()(std::span<const float> logits) {
    if (!std::ranges::all_of(logits, [](float logit) { return std::isfinite(logit); }))
      fail("the logits of the model are not finite");
    std::vector<Token> order(logits.size());
    std::iota(order.begin(), order.end(), Token(0));
    const auto likelier = [&](Token a, Token b) {
      return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
    };
    if (temperature_ == 0) return *std::min_element(order.begin(), order.end(), likelier);
    std::sort(order.begin(), order.end(), likelier);

    std::vector<double> cumulative;
    double sum = 0;
    for (const Token token : order)
      cumulative.push_back(sum += std::exp((double(logits[token]) - double(logits[order[0]])) /
                                           double(temperature_)));
    const auto first_above = [&](double level) {
      const auto found = std::lower_bound(cumulative.begin(), cumulative.end() - 1, level);
      return std::size_t(found - cumulative.begin());
    };
    const double kept = cumulative[first_above(double(top_p_) * sum)];
    const double uniform = double(random_() >> 11) * 0x1p-53;
    return order[first_above(uniform * kept)];
  }

 private:
  float temperature_;
  float top_p_;
  std::mt19937_64 random_;
};

}  // namespace engine
