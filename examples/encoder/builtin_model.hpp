/// A generated sentence encoder of the published model's architecture and shapes, for machines that
/// cannot fetch it.
///
/// Weights have heavy tails (a normal with log-normal scale, kurtosis 5.7), a few residual channels
/// that are written four times as strongly and a few that are read so. Deviations are chosen, and
/// the head is centred, so that activations are as large as in the published model. It has learned
/// nothing: its vectors tell sentences apart by the words they share.
#pragma once

#include <cmath>
#include <string_view>

#include "cafeq/core/rng.hpp"
#include "encoder.hpp"

namespace cafeq::example {

inline constexpr Index builtin_tokens = 8002;

/// One token for each word, a run of letters, digits and bytes beyond ASCII, by its hash; case is
/// ignored.
inline Tokens builtin_tokenize(std::string_view sentence) {
  const auto is_upper = [](char c) { return c >= 'A' && c <= 'Z'; };
  const auto is_word = [&](char c) {
    return is_upper(c) || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
           static_cast<unsigned char>(c) >= 0x80;
  };
  Tokens tokens;
  std::string word;
  const auto finish = [&] {
    if (!word.empty()) tokens.push_back(Token(stream_of(word) % std::uint64_t(builtin_tokens)));
    word.clear();
  };
  for (const char c : sentence) {
    if (!is_word(c)) finish();
    else word.push_back(is_upper(c) ? char(c - 'A' + 'a') : c);
  }
  finish();
  return tokens;
}

namespace detail {

inline Matrix<float> generate(std::string_view name, Index rows, Index cols, double deviation) {
  constexpr double spread = 0.4;
  const CounterRng rng(2024, stream_of(name));
  Matrix<float> m(rows, cols);
  for (Index i = 0; i < m.size(); ++i) {
    // The two normals of a Box-Muller pair: radius and angle from one position each.
    const double radius = std::sqrt(-2 * std::log(rng.uniform(2 * std::uint64_t(i))));
    const double angle = 2 * std::numbers::pi * rng.uniform(2 * std::uint64_t(i) + 1);
    m.data()[i] = float(deviation * radius * std::cos(angle) *
                        std::exp(spread * radius * std::sin(angle) - spread * spread));
  }
  return m;
}

inline Dense generate_dense(std::string_view name, Index out, Index in, double deviation,
                            double bias_deviation) {
  const Matrix<float> bias = generate(message(name, ".bias"), 1, out, bias_deviation);
  return {generate(name, out, in, deviation), {bias.data(), bias.data() + out}};
}

inline LayerNorm generate_norm(std::string_view name, Index size, float scale,
                               double bias_deviation) {
  const Matrix<float> bias = generate(message(name, ".bias"), 1, size, bias_deviation);
  return {std::vector<float>(std::size_t(size), scale), {bias.data(), bias.data() + size}};
}

/// Shifts and scales the head so that its logits have mean 0 and deviation 1 over random sentences;
/// without that, what is common to all sentences would drown what is not.
inline void centre_head(EncoderWeights& weights) {
  constexpr std::uint64_t count = 64, length = 12;
  const CounterRng rng(2024, stream_of("sentences"));
  std::vector<Tokens> sentences(count);
  for (std::uint64_t i = 0; i < count * length; ++i)
    sentences[i / length].push_back(Token(rng.below(i, builtin_tokens)));
  const Matrix<float> logits = encode_logits(weights, sentences);
  std::vector<double> mean(weights.tanh.bias.size());
  for (Index i = 0; i < logits.rows(); ++i)
    for (std::size_t j = 0; j < mean.size(); ++j) mean[j] += logits(i, Index(j)) / double(count);
  double variance = 0;
  for (Index i = 0; i < logits.rows(); ++i)
    for (std::size_t j = 0; j < mean.size(); ++j)
      variance += std::pow(logits(i, Index(j)) - mean[j], 2) / double(logits.size());
  const double scale = 1 / std::sqrt(variance);
  for (Index i = 0; i < weights.tanh.weight.size(); ++i)
    weights.tanh.weight.data()[i] *= float(scale);
  for (std::size_t j = 0; j < mean.size(); ++j)
    weights.tanh.bias[j] = float(scale * (weights.tanh.bias[j] - mean[j]));
}

/// Makes a few rows, or columns, stand out.
inline void amplify(View<float> m, std::string_view stream) {
  const CounterRng rng(2024, stream_of(stream));
  for (std::uint64_t outlier = 0; outlier < 4; ++outlier) {
    const Index row = Index(rng.below(outlier, std::uint64_t(m.rows)));
    for (Index j = 0; j < m.cols; ++j) m(row, j) *= 4;
  }
}

}  // namespace detail

/// The same on every call.
inline EncoderWeights builtin_weights() {
  constexpr Index in = 256, out = 512, hidden = 1536;
  EncoderWeights weights;
  weights.embeddings = detail::generate("embeddings", builtin_tokens, in, 0.2);
  for (Index i = 0; i < in / 2; ++i)  // wavelengths from 2 π to 20000 π, geometrically
    weights.inverse_timescales.push_back(float(std::pow(1e-4, double(i) / double(in / 2 - 1))));
  weights.dense = detail::generate_dense("dense", out, in, 0.19, 0.08);
  detail::amplify(weights.dense.weight.view(), "residual");
  weights.layers.push_back({detail::generate_norm("layer0.attention_norm", in, 0.65f, 0.5),
                            detail::generate_dense("layer0.qkv", 3 * in, in, 0.08, 0.2),
                            detail::generate_dense("layer0.o", out, in, 0.12, 0.08),
                            detail::generate_norm("layer0.ffn_norm", out, 0.84f, 0.27),
                            detail::generate_dense("layer0.ffn1", hidden, out, 0.116, 0.05),
                            detail::generate_dense("layer0.ffn2", out, hidden, 0.03, 0.17)});
  weights.layers.push_back({detail::generate_norm("layer1.attention_norm", out, 0.55f, 0.23),
                            detail::generate_dense("layer1.qkv", 3 * out, out, 0.093, 0.16),
                            detail::generate_dense("layer1.o", out, out, 0.08, 0.22),
                            detail::generate_norm("layer1.ffn_norm", out, 1.84f, 0.5),
                            detail::generate_dense("layer1.ffn1", hidden, out, 0.108, 0.06),
                            detail::generate_dense("layer1.ffn2", out, hidden, 0.02, 0.18)});
  for (EncoderLayer& layer : weights.layers) {
    detail::amplify(layer.o.weight.view(), "residual");
    detail::amplify(layer.ffn2.weight.view(), "residual");
    detail::amplify(layer.ffn1.weight.view().transposed(), "read");
    detail::amplify(layer.qkv.weight.view().transposed(), "read");
  }
  weights.tanh = detail::generate_dense("tanh", out, out, 0.036, 0.32);
  detail::centre_head(weights);
  check_weights(weights);
  return weights;
}

}  // namespace cafeq::example
