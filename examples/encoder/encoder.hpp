/// The forward pass of the sentence encoder in fp32: tokens in, a vector of unit length out.
///
///   x = 2 E[token] + [sin(p t), cos(p t)]        for position p and inverse timescales t
///   for each layer:  [q | k | v] = Wqkv LN(x) + b,  a = softmax(q kᵀ / √head_dim) v for each head
///                    y = residual(x) + Wo a + b
///                    x = y + W2 relu(W1 LN(y) + b1) + b2
///                    residual: W x + b in layer 0, which changes the width, x in the next
///   result = normalise(tanh(W mean(x) + b))
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <numeric>
#include <span>
#include <vector>

#include "cafeq/core/executor.hpp"
#include "cafeq/kernel/dense_product.hpp"
#include "weights.hpp"

namespace cafeq::example {

using Token = std::int32_t;
using Tokens = std::vector<Token>;

/// Positions from here on are cut off, as in the published model.
inline constexpr std::size_t max_tokens = 128;

namespace detail {

/// y [n, out] = x [n, in] · Wᵀ + b.
inline Matrix<float> apply(const Dense& layer, const Matrix<float>& x) {
  Matrix<float> y(x.rows(), layer.weight.rows());
  kernel::multiply<float>(x.view(), layer.weight.view().transposed(), y.view());
  for (Index i = 0; i < y.rows(); ++i)
    for (Index j = 0; j < y.cols(); ++j) y(i, j) += layer.bias[std::size_t(j)];
  return y;
}

/// Each row to mean 0 and variance 1, then scaled and shifted. Moments in double.
inline Matrix<float> apply(const LayerNorm& norm, const Matrix<float>& x) {
  constexpr double epsilon = 1e-6;
  Matrix<float> y(x.rows(), x.cols());
  for (Index i = 0; i < x.rows(); ++i) {
    const auto row = x.row(i);
    const double mean = std::accumulate(row.begin(), row.end(), 0.0) / double(x.cols());
    double variance = 0;
    for (const float value : row) variance += (value - mean) * (value - mean);
    const double scale = 1 / std::sqrt(variance / double(x.cols()) + epsilon);
    for (Index j = 0; j < x.cols(); ++j)
      y(i, j) =
          float((x(i, j) - mean) * scale) * norm.scale[std::size_t(j)] + norm.bias[std::size_t(j)];
  }
  return y;
}

inline void add(const Matrix<float>& x, Matrix<float>& to) {
  for (Index i = 0; i < x.size(); ++i) to.data()[i] += x.data()[i];
}

inline void softmax(std::span<float> row) {
  const float highest = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (float& value : row) sum += value = std::exp(value - highest);
  for (float& value : row) value = float(value / sum);
}

/// Attention among the rows of one sentence: qkv [n, 3 · width] to [n, width].
inline void attend(const EncoderLayer& layer, View<float> qkv, View<float> result) {
  const Index width = layer.width();
  const Index dim = layer.head_dim();
  const float scale = 1 / std::sqrt(float(dim));
  Matrix<float> scores(qkv.rows, qkv.rows);
  for (Index h = 0; h < layer.heads; ++h) {
    const auto query = qkv.col_block(h * dim, dim);
    const auto key = qkv.col_block(width + h * dim, dim);
    const auto value = qkv.col_block(2 * width + h * dim, dim);
    kernel::multiply<float>(query, key.transposed(), scores.view());  // [n, dim] · [dim, n]
    for (Index i = 0; i < scores.rows(); ++i) {
      for (float& score : scores.row(i)) score *= scale;
      softmax(scores.row(i));
    }
    kernel::multiply<float>(scores.view(), value,
                            result.col_block(h * dim, dim));  // [n, n] · [n, dim]
  }
}

/// Where each sentence of a batch begins among its rows; the last entry is the number of rows.
using Offsets = std::vector<Index>;

inline Matrix<float> embed(const EncoderWeights& weights, std::span<const Tokens> sentences,
                           const Offsets& offsets) {
  const Index half = weights.embeddings.cols() / 2;
  Matrix<float> x(offsets.back(), weights.embeddings.cols());
  for (std::size_t s = 0; s < sentences.size(); ++s)
    for (Index position = 0; position < offsets[s + 1] - offsets[s]; ++position) {
      const Token token = sentences[s][std::size_t(position)];
      if (token < 0 || token >= weights.embeddings.rows())
        raise(ErrorCode::invalid_argument,
              message("tokens: ", token, " at ", position, " is not among the ",
                      weights.embeddings.rows(), " embeddings"));
      const Index row = offsets[s] + position;
      for (Index j = 0; j < half; ++j) {
        const float angle = float(position) * weights.inverse_timescales[std::size_t(j)];
        x(row, j) = 2 * weights.embeddings(token, j) + std::sin(angle);
        x(row, half + j) = 2 * weights.embeddings(token, half + j) + std::cos(angle);
      }
    }
  return x;
}

inline Matrix<float> transform(const EncoderWeights& weights, Matrix<float> x,
                               const Offsets& offsets) {
  for (std::size_t l = 0; l < weights.layers.size(); ++l) {
    const EncoderLayer& layer = weights.layers[l];
    Matrix<float> qkv = apply(layer.qkv, apply(layer.attention_norm, x));
    Matrix<float> attention(x.rows(), layer.width());
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
      const Index count = offsets[s + 1] - offsets[s];
      if (count > 0)
        attend(layer, qkv.view().row_block(offsets[s], count),
               attention.view().row_block(offsets[s], count));
    }
    Matrix<float> y = apply(layer.o, attention);
    add(l == 0 ? apply(weights.dense, x) : x, y);
    Matrix<float> hidden = apply(layer.ffn1, apply(layer.ffn_norm, y));
    for (Index i = 0; i < hidden.size(); ++i) hidden.data()[i] = std::max(hidden.data()[i], 0.0f);
    x = apply(layer.ffn2, hidden);
    add(y, x);
  }
  return x;
}

/// The mean over each sentence's rows; zero for a sentence without tokens.
inline Matrix<float> pool(const Matrix<float>& x, const Offsets& offsets) {
  Matrix<float> mean(Index(offsets.size()) - 1, x.cols());
  for (Index s = 0; s < mean.rows(); ++s) {
    const Index begin = offsets[std::size_t(s)];
    const Index end = offsets[std::size_t(s) + 1];
    for (Index j = 0; j < x.cols() && end > begin; ++j) {
      double sum = 0;
      for (Index i = begin; i < end; ++i) sum += x(i, j);
      mean(s, j) = float(sum / double(end - begin));
    }
  }
  return mean;
}

}  // namespace detail

/// What the head sees before its tanh, [sentences, out]; sentences are run through the layers as
/// one batch. Every row is the same, bit for bit, whichever sentences share its batch.
inline Matrix<float> encode_logits(const EncoderWeights& weights,
                                   std::span<const Tokens> sentences) {
  detail::Offsets offsets{0};
  for (const Tokens& tokens : sentences)
    offsets.push_back(offsets.back() + Index(std::min(tokens.size(), max_tokens)));
  Matrix<float> x = detail::transform(weights, detail::embed(weights, sentences, offsets), offsets);
  return detail::apply(weights.tanh, detail::pool(x, offsets));
}

/// One vector of unit length for each sentence, as rows. Batches of a fixed size run in parallel;
/// results do not depend on the executor.
inline Matrix<float> encode_all(const EncoderWeights& weights, std::span<const Tokens> sentences,
                                ExecutorRef executor = {}) {
  constexpr Index batch = 16;
  Matrix<float> result(Index(sentences.size()), weights.tanh.weight.rows());
  executor.parallel_for(result.rows(), batch, [&](Index begin, Index end, Index) {
    const Matrix<float> logits =
        encode_logits(weights, sentences.subspan(std::size_t(begin), std::size_t(end - begin)));
    for (Index i = begin; i < end; ++i) {
      double squares = 0;
      for (Index j = 0; j < result.cols(); ++j) {
        result(i, j) = std::tanh(logits(i - begin, j));
        squares += double(result(i, j)) * double(result(i, j));
      }
      const double scale = 1 / std::sqrt(std::max(squares, 1e-12));
      for (float& value : result.row(i)) value = float(value * scale);
    }
  });
  return result;
}

inline std::vector<float> encode(const EncoderWeights& weights, const Tokens& tokens) {
  const Matrix<float> result = encode_all(weights, std::span(&tokens, 1));
  return {result.data(), result.data() + result.size()};
}

/// The cosine of two vectors, in double; 0 where one of them is zero.
inline double cosine(std::span<const float> a, std::span<const float> b) {
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ab += double(a[i]) * double(b[i]);
    aa += double(a[i]) * double(a[i]);
    bb += double(b[i]) * double(b[i]);
  }
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0;
}

/// 1 - angle / π: what the encoder's authors compare with human judgement, since it tells near
/// sentences apart better than the cosine.
inline double angular_similarity(std::span<const float> a, std::span<const float> b) {
  return 1 - std::acos(std::clamp(cosine(a, b), -1.0, 1.0)) / std::numbers::pi;
}

}  // namespace cafeq::example
