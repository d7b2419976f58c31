/// How well a model predicts texts, and how far what it predicts is from what another one does.
///
///   perplexity      exp(mean surprise), surprise = − log p(token | those before it)
///   KL divergence   Σ p (log p − log q) over all tokens that may follow, nats
///   same top        how often both take the same token for the most likely
///
/// All tokens but the first of each text are predicted. Standard errors take them for independent.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <span>
#include <vector>

#include "forward.hpp"
#include "generate.hpp"

namespace engine {

/// A mean and its standard error.
struct Estimate {
  double value = 0, error = 0;
};

inline Estimate mean_of(std::span<const double> x) {
  double sum = 0, squares = 0;
  for (const double value : x) sum += value;
  const double n = double(x.size()), mean = sum / n;
  for (const double value : x) squares += (value - mean) * (value - mean);
  return {mean, x.size() > 1 ? std::sqrt(squares / (n - 1) / n) : 0};
}

/// What is below a share of the values.
inline double quantile(std::vector<double> x, double share) {
  const auto at =
      x.begin() + std::min(std::ptrdiff_t(x.size()) - 1, std::ptrdiff_t(share * double(x.size())));
  std::nth_element(x.begin(), at, x.end());
  return *at;
}

inline Estimate perplexity_of(std::span<const double> surprises) {
  const auto [mean, error] = mean_of(surprises);
  return {std::exp(mean), std::exp(mean) * error};
}

/// What two models predict, token by token.
struct Comparison {
  std::vector<double> surprises;            ///< of the model
  std::vector<double> reference_surprises;  ///< of the one that it is compared with
  std::vector<double> divergences;          ///< of the model from that one
  std::vector<double> same_top;             ///< 1 or 0
};

/// Called with the number of tokens that have been predicted since the last call.
using Progress = std::function<void(Index tokens)>;

namespace detail {

/// Logits for some states at a time, in memory that serves for all.
class Logits {
 public:
  static constexpr Index rows = 128;  // states at a time, at most

  View<const float> operator()(const Transformer& transformer, View<const float> states) {
    const Index vocabulary = transformer.model().config.vocabulary;
    if (values_.empty()) values_ = Matrix<float>(rows, vocabulary);
    const auto logits = values_.view().row_block(0, states.rows);
    transformer.logits(states, logits);
    return logits;
  }

 private:
  Matrix<float> values_;
};

inline Matrix<float> states_of(const Transformer& transformer, std::span<const Token> text) {
  transformer.check(text.back());
  Text fresh;
  return transformer.forward(fresh, text.first(text.size() - 1));
}

/// Texts of one token predict nothing.
inline std::vector<Tokens> long_enough(std::vector<Tokens> texts) {
  std::erase_if(texts, [](const Tokens& text) { return text.size() < 2; });
  if (texts.empty())
    raise(cafeq::ErrorCode::invalid_argument, "no token to predict: every text has fewer than two");
  return texts;
}

/// A model's numbers that are none are not to pass for a result.
inline double finite(double x) {
  if (!std::isfinite(x))
    raise(cafeq::ErrorCode::invalid_argument, "the logits of the model are not finite");
  return x;
}

}  // namespace detail

/// The surprise of every token but the first of each text.
inline std::vector<double> surprises(const Transformer& transformer, std::vector<Tokens> texts,
                                     const Progress& progress = {}) {
  std::vector<double> result;
  detail::Logits logits;
  for (const Tokens& text : detail::long_enough(std::move(texts))) {
    const Matrix<float> states = detail::states_of(transformer, text);
    for (Index begin = 0; begin < states.rows(); begin += detail::Logits::rows) {
      const Index count = std::min(detail::Logits::rows, states.rows() - begin);
      const auto rows = logits(transformer, states.view().row_block(begin, count));
      for (Index i = 0; i < count; ++i) {
        const auto row = rows.row(i);
        result.push_back(detail::finite(kernels().log_sum_exp(row) -
                                        double(row[text[std::size_t(begin + i + 1)]])));
      }
      if (progress) progress(count);
    }
  }
  return result;
}

/// What others are compared with: a model and texts, on which it is run once.
class Reference {
 public:
  /// Keeps a reference to the transformer. Memory: a state [hidden] for each token.
  Reference(const Transformer& transformer, std::vector<Tokens> texts,
            const Progress& progress = {})
      : transformer_(transformer), texts_(detail::long_enough(std::move(texts))) {
    for (const Tokens& text : texts_) {
      states_.push_back(detail::states_of(transformer, text));
      if (progress) progress(states_.back().rows());
    }
  }

  const std::vector<Tokens>& texts() const { return texts_; }
  /// Tokens that are predicted.
  Index size() const {
    Index count = 0;
    for (const auto& states : states_) count += states.rows();
    return count;
  }

  /// Raises unless the other model has the same tokens.
  Comparison compare(const Transformer& other, cafeq::ExecutorRef threads,
                     const Progress& progress = {}) const;

 private:
  const Transformer& transformer_;
  std::vector<Tokens> texts_;
  std::vector<Matrix<float>> states_;
};

inline Comparison Reference::compare(const Transformer& other, cafeq::ExecutorRef threads,
                                     const Progress& progress) const {
  const Index vocabulary = transformer_.model().config.vocabulary;
  if (other.model().config.vocabulary != vocabulary)
    raise(cafeq::ErrorCode::invalid_argument,
          cafeq::message("the models cannot be compared: one has ", vocabulary,
                         " tokens, the other ", other.model().config.vocabulary));
  Comparison all;
  for (auto* values : {&all.surprises, &all.reference_surprises, &all.divergences, &all.same_top})
    values->resize(std::size_t(size()));
  detail::Logits expected_logits, logits;
  Index done = 0;
  for (std::size_t t = 0; t < texts_.size(); ++t) {
    const Matrix<float> states = detail::states_of(other, texts_[t]);
    for (Index begin = 0; begin < states.rows(); begin += detail::Logits::rows) {
      const Index count = std::min(detail::Logits::rows, states.rows() - begin);
      const auto expected =
          expected_logits(transformer_, states_[t].view().row_block(begin, count));
      const auto found = logits(other, states.view().row_block(begin, count));
      threads.parallel_for(count, 4, [&](Index first, Index end, Index) {
        for (Index i = first; i < end; ++i) {
          const auto p = expected.row(i), q = found.row(i);
          const double p_sum = kernels().log_sum_exp(p), q_sum = kernels().log_sum_exp(q);
          const std::size_t at = std::size_t(done + i);
          const Token next = texts_[t][std::size_t(begin + i + 1)];
          all.surprises[at] = q_sum - double(q[next]);
          all.reference_surprises[at] = p_sum - double(p[next]);
          all.divergences[at] = kernels().divergence(p, p_sum, q, q_sum);
          all.same_top[at] = most_likely(p) == most_likely(q);
        }
      });
      done += count;
      if (progress) progress(count);
    }
  }
  for (const double surprise : all.surprises) detail::finite(surprise);
  return all;
}

}  // namespace engine
