/// How well a model predicts texts: exp(− mean log p(token | those before it)) over all tokens but
/// the first of each text.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "forward.hpp"

namespace engine {

struct Perplexity {
  double negative_log_likelihood = 0;  ///< summed, in nats
  std::size_t predicted = 0;           ///< tokens

  double value() const { return std::exp(negative_log_likelihood / double(predicted)); }
};

/// − log softmax(logits)[token], summed in double.
inline double surprise(std::span<const float> logits, Token token) {
  const double highest = double(*std::max_element(logits.begin(), logits.end()));
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double(logit) - highest);
  return std::log(sum) + highest - double(logits[token]);
}

inline Perplexity measure_perplexity(const Model& model,
                                     const std::vector<std::vector<Token>>& texts,
                                     cafeq::ExecutorRef threads) {
  Perplexity result;
  Transformer transformer(model, threads);
  for (const std::vector<Token>& text : texts) {
    if (text.size() < 2) continue;
    transformer.clear();
    const Matrix logits =
        transformer.logits(transformer.forward(std::span(text).first(text.size() - 1)));
    for (std::size_t n = 1; n < text.size(); ++n) {
      if (text[n] >= logits.cols)
        fail("token " + std::to_string(text[n]) + " is not among the " +
             std::to_string(logits.cols) + " of the model");
      result.negative_log_likelihood += surprise(logits.row(n - 1), text[n]);
    }
    result.predicted += text.size() - 1;
  }
  if (!std::isfinite(result.negative_log_likelihood))
    fail("the logits of the model are not finite");
  return result;
}

}  // namespace engine
