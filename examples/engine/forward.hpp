/// The forward pass: tokens in, for each of them the logits of the one that follows.
///
///   x = E[token]
///   for each layer:  [q | k | v] = Wqkv norm(x),  q and k rotated by their position
///                    x += Wo softmax(q kᵀ / √head_dim) v    (heads, positions up to their own)
///                    x += Wdown (silu(g) ⊙ u),  [g | u] = Wgate_up norm(x)
///   logits = Whead norm(x),  norm(x) = x / √(mean x² + ε) ⊙ weights
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>
#include <string>
#include <vector>

#include "model.hpp"

namespace engine {

/// A text on its way through a model. Remembers the keys and values of what it has seen, so that a
/// text can be given in parts.
class Transformer {
 public:
  /// Keeps references to both.
  Transformer(const Model& model, cafeq::ExecutorRef threads);

  /// Takes the next tokens of the text to their states [n, dim]. Throws for more than the context
  /// holds and for unknown tokens.
  Matrix forward(std::span<const Token> tokens);
  /// [n, vocabulary] for states [n, dim].
  Matrix logits(const Matrix& states) const { return model_.head(states, threads_); }
  /// Begins a new text.
  void clear();

  std::size_t position() const { return position_; }

 private:
  struct Cache {
    std::vector<float> keys, values;  // [position, kv_heads · head_dim]
  };

  Matrix embed(std::span<const Token> tokens) const;
  void rotate(Matrix& query_key_value) const;
  Matrix attend(const Matrix& query_key_value, Cache& cache) const;

  const Model& model_;
  cafeq::ExecutorRef threads_;
  std::vector<double> frequencies_;  // radians a position, for each pair of coordinates
  std::vector<Cache> caches_;        // one a layer
  std::size_t position_ = 0;
};

namespace detail {

inline std::vector<double> rope_frequencies(const Config& config) {
  std::vector<double> result;
  for (std::size_t i = 0; i < config.head_dim / 2; ++i) {
    double frequency = std::pow(config.rope_base, -2.0 * double(i) / double(config.head_dim));
    if (const auto& scaling = config.rope_scaling) {
      // All of it where the original context holds few turns, nothing where it holds many.
      const double turns = scaling->original_context * frequency / (2 * std::numbers::pi);
      const double kept = (turns - scaling->low_frequency_factor) /
                          (scaling->high_frequency_factor - scaling->low_frequency_factor);
      frequency *= std::lerp(1 / scaling->factor, 1.0, std::clamp(kept, 0.0, 1.0));
    }
    result.push_back(frequency);
  }
  return result;
}

inline Matrix normalise(const Matrix& x, const std::vector<float>& weights, float epsilon) {
  Matrix y(x.rows, x.cols);
  for (std::size_t n = 0; n < x.rows; ++n) {
    const float* from = x.row(n).data();
    const float scale = 1 / std::sqrt(dot(from, from, x.cols) / float(x.cols) + epsilon);
    for (std::size_t j = 0; j < x.cols; ++j) y.row(n)[j] = from[j] * scale * weights[j];
  }
  return y;
}

inline void add(const Matrix& x, Matrix& to) {
  for (std::size_t i = 0; i < x.values.size(); ++i) to.values[i] += x.values[i];
}

/// silu(gate) ⊙ up of the two halves of each row.
inline Matrix gated(const Matrix& gate_up) {
  Matrix result(gate_up.rows, gate_up.cols / 2);
  for (std::size_t n = 0; n < result.rows; ++n)
    for (std::size_t j = 0; j < result.cols; ++j) {
      const float gate = gate_up.row(n)[j];
      result.row(n)[j] = gate / (1 + std::exp(-gate)) * gate_up.row(n)[result.cols + j];
    }
  return result;
}

inline void softmax(std::span<float> x) {
  const float highest = *std::max_element(x.begin(), x.end());
  float sum = 0;
  for (float& value : x) sum += value = std::exp(value - highest);
  for (float& value : x) value /= sum;
}

}  // namespace detail

inline Transformer::Transformer(const Model& model, cafeq::ExecutorRef threads)
    : model_(model),
      threads_(threads),
      frequencies_(detail::rope_frequencies(model.config)),
      caches_(model.config.layers) {}

inline void Transformer::clear() {
  caches_.assign(caches_.size(), {});
  position_ = 0;
}

inline Matrix Transformer::forward(std::span<const Token> tokens) {
  const float epsilon = model_.config.norm_epsilon;
  Matrix x = embed(tokens);
  for (std::size_t l = 0; l < model_.layers.size(); ++l) {
    const Layer& layer = model_.layers[l];
    Matrix query_key_value =
        layer.query_key_value(detail::normalise(x, layer.attention_norm, epsilon), threads_);
    rotate(query_key_value);
    detail::add(layer.output(attend(query_key_value, caches_[l]), threads_), x);
    const Matrix gate_up = layer.gate_up(detail::normalise(x, layer.mlp_norm, epsilon), threads_);
    detail::add(layer.down(detail::gated(gate_up), threads_), x);
  }
  position_ += tokens.size();
  return detail::normalise(x, model_.norm, epsilon);
}

inline Matrix Transformer::embed(std::span<const Token> tokens) const {
  const Config& c = model_.config;
  if (tokens.size() > c.context - position_)
    fail("a text of " + std::to_string(position_ + tokens.size()) +
         " tokens is longer than the model's context of " + std::to_string(c.context));
  Matrix x(tokens.size(), c.dim);
  for (std::size_t n = 0; n < tokens.size(); ++n) {
    if (tokens[n] >= c.vocabulary)
      fail("token " + std::to_string(tokens[n]) + " is not among the " +
           std::to_string(c.vocabulary) + " of the model");
    std::ranges::copy(model_.embeddings->row(tokens[n]), x.row(n).begin());
  }
  return x;
}

/// Turns each pair of coordinates of the queries and keys, which stand before the values.
inline void Transformer::rotate(Matrix& query_key_value) const {
  const Config& c = model_.config;
  const std::size_t half = c.head_dim / 2, step = c.rope_interleaved ? 2 : 1,
                    apart = c.rope_interleaved ? 1 : half;
  for (std::size_t n = 0; n < query_key_value.rows; ++n)
    for (std::size_t i = 0; i < half; ++i) {
      const double angle = double(position_ + n) * frequencies_[i];
      const float cosine = float(std::cos(angle)), sine = float(std::sin(angle));
      for (std::size_t head = 0; head < c.heads + c.kv_heads; ++head) {
        float* a = &query_key_value.row(n)[head * c.head_dim + i * step];
        float* b = a + apart;
        const float turned = *a * cosine - *b * sine;
        *b = *a * sine + *b * cosine;
        *a = turned;
      }
    }
}

/// [n, (heads + 2 · kv_heads) · head_dim] to [n, heads · head_dim]. Keys and values go to the
/// cache.
inline Matrix Transformer::attend(const Matrix& query_key_value, Cache& cache) const {
  const Config& c = model_.config;
  const std::size_t dim = c.head_dim, queries = c.heads * dim, keys = c.kv_heads * dim;
  for (std::size_t n = 0; n < query_key_value.rows; ++n) {
    const auto row = query_key_value.row(n);
    cache.keys.insert(cache.keys.end(), row.begin() + std::ptrdiff_t(queries),
                      row.begin() + std::ptrdiff_t(queries + keys));
    cache.values.insert(cache.values.end(), row.begin() + std::ptrdiff_t(queries + keys),
                        row.end());
  }
  Matrix result(query_key_value.rows, queries);
  Matrix scores(std::size_t(threads_.concurrency()), position_ + query_key_value.rows);
  const float scale = 1 / std::sqrt(float(dim));
  threads_.parallel_for(cafeq::Index(c.heads * result.rows), 8,
                        [&](std::size_t begin, std::size_t end, std::size_t worker) {
                          for (std::size_t i = begin; i < end; ++i) {
                            const std::size_t n = i / c.heads, head = i % c.heads,
                                              kv_head = head / (c.heads / c.kv_heads);
                            const auto weights = scores.row(worker).first(position_ + n + 1);
                            for (std::size_t t = 0; t < weights.size(); ++t)
                              weights[t] = scale * dot(&query_key_value.row(n)[head * dim],
                                                       &cache.keys[t * keys + kv_head * dim], dim);
                            detail::softmax(weights);
                            float* sum = &result.row(n)[head * dim];
                            for (std::size_t t = 0; t < weights.size(); ++t) {
                              const float* value = &cache.values[t * keys + kv_head * dim];
                              for (std::size_t j = 0; j < dim; ++j) sum[j] += weights[t] * value[j];
                            }
                          }
                        });
  return result;
}

}  // namespace engine
