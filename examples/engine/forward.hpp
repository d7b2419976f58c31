/// The forward pass: tokens in, for each of them the logits of the one that follows.
///
///   x = E[token]
///   for each layer:  [q | k | v] = Wqkv norm(x),  q and k rotated by their position
///                    x += Wo softmax(q kᵀ / √head_dim) v    (heads, positions up to their own)
///                    x += Wdown (act(g) ⊙ u),  [g | u] = Wgate_up norm(x)
///   logits = Whead norm(x),  norm(x) = x / √(mean x² + ε) ⊙ gains
///
/// Qwen2 adds biases, Qwen3 and Gemma 3 normalise queries and keys, Gemma 2 and 3 what a layer adds
/// too; Gemma 2 caps scores and logits; Mistral, Gemma and Phi-3 have windows. All of that is in
/// Layer and ModelConfig, and each stands here in a line.
#pragma once

#include <cmath>
#include <functional>
#include <span>
#include <vector>

#include "cafeq/model/roles.hpp"
#include "model.hpp"
#include "rope.hpp"

namespace engine {

/// A text on its way through a model: the keys and values of its tokens, layer by layer.
class Text {
 public:
  Index length() const { return length_; }

 private:
  friend class Transformer;
  struct Cache {
    std::vector<float> keys, values;  // [length, kv_heads · head_dim]
  };

  std::vector<Cache> layers_;
  Index length_ = 0;
  bool long_ = false;  // as it begins, it is longer than what the model was first trained for
};

/// The next tokens of a text.
struct Part {
  Text* text;
  std::span<const Token> tokens;
};

/// Told what a layer takes in: states [n, hidden].
using Keep = std::function<void(Index layer, const Matrix<float>& states)>;

/// Told what each stack of a layer takes in, which it names by the first of its matrices.
using Watch = std::function<void(cafeq::Role reader, View<const float> inputs)>;

class Transformer {
 public:
  /// Keeps references to both.
  Transformer(const Model& model, cafeq::ExecutorRef threads)
      : model_(model),
        threads_(threads),
        rope_(model.config),
        long_rope_(model.config, true),
        window_rope_(Rope::of_window(model.config)) {}

  const Model& model() const { return model_; }
  cafeq::ExecutorRef threads() const { return threads_; }

  /// Takes parts of different texts to the states [n, hidden] of all their tokens, text after text.
  /// Raises for texts that are longer than the model's context and for unknown tokens.
  Matrix<float> forward(std::span<const Part> parts, const Keep& keep = {}) const {
    return forward_from(0, embed(parts), parts, keep);
  }
  Matrix<float> forward(Text& text, std::span<const Token> tokens) const {
    const Part part{&text, tokens};
    return forward(std::span(&part, 1));
  }
  /// The same from what layer `first` takes in, which earlier ones have made of these tokens.
  Matrix<float> forward_from(Index first, Matrix<float> x, std::span<const Part> parts,
                             const Keep& keep = {}) const;
  /// Texts as a whole, layer after layer, for what each of them takes in: watch(layer) is asked for
  /// before a layer and done(layer) told behind it. Memory: a state [hidden] for each token, and
  /// what one layer makes of some of the texts.
  void observe(std::span<const Tokens> texts, const std::function<Watch(Index layer)>& watch,
               const std::function<void(Index layer)>& done) const;
  /// Raises for a token that the model does not have.
  void check(Token token) const {
    if (Index(token) >= model_.config.vocabulary)
      raise(cafeq::ErrorCode::invalid_argument,
            cafeq::message("token ", token, " is not among the ", model_.config.vocabulary,
                           " of the model"));
  }
  /// logits [n, vocabulary] for states [n, hidden].
  void logits(View<const float> states, View<float> logits) const;

 private:
  /// Raises for texts that become longer than the model's context.
  void open(std::span<const Part> parts) const;
  Matrix<float> embed(std::span<const Part> parts) const;
  /// x [n, hidden] becomes what a layer makes of it.
  void layer(Index number, std::span<const Part> parts, Matrix<float>& x, const Watch& watch) const;
  Matrix<float> apply(const Stack& stack, View<const float> x) const;
  void normalise(const Norm& norm, View<const float> x, View<float> y) const;
  /// The same for each head of rows.
  void normalise_heads(const Norm& norm, View<float> heads) const;
  void add(Matrix<float> change, const Norm& norm, Matrix<float>& to) const;
  Matrix<float> attend(Index layer, Matrix<float> query_key_value,
                       std::span<const Part> parts) const;

  const Model& model_;
  cafeq::ExecutorRef threads_;
  Rope rope_, long_rope_, window_rope_;
};

inline Matrix<float> Transformer::forward_from(Index first, Matrix<float> x,
                                               std::span<const Part> parts,
                                               const Keep& keep) const {
  open(parts);
  for (Index l = first; l < model_.config.layers; ++l) {
    if (keep) keep(l, x);
    layer(l, parts, x, {});
  }
  for (const Part& part : parts) part.text->length_ += Index(part.tokens.size());
  Matrix<float> h(x.rows(), x.cols());
  normalise(model_.norm, x.view(), h.view());
  return h;
}

inline void Transformer::layer(Index number, std::span<const Part> parts, Matrix<float>& x,
                               const Watch& watch) const {
  using cafeq::Role;
  const Layer& layer = model_.layers[std::size_t(number)];
  const auto observe = [&](Role reader, const Matrix<float>& inputs) {
    if (watch) watch(reader, inputs.view());
  };
  Matrix<float> h(x.rows(), x.cols());
  normalise(layer.attention_norm, x.view(), h.view());
  observe(Role::query, h);
  const Matrix<float> heads = attend(number, apply(layer.query_key_value, h.view()), parts);
  observe(Role::output, heads);
  add(apply(layer.output, heads.view()), layer.post_attention_norm, x);

  normalise(layer.mlp_norm, x.view(), h.view());
  observe(Role::gate, h);
  const Matrix<float> gate_up = apply(layer.gate_up, h.view());
  Matrix<float> gated(x.rows(), model_.config.intermediate);
  kernels().gate(model_.config.mlp.activation, gate_up.view(), gated.view(), threads_);
  observe(Role::down, gated);
  add(apply(layer.down, gated.view()), layer.post_mlp_norm, x);
}

inline void Transformer::observe(std::span<const Tokens> texts,
                                 const std::function<Watch(Index layer)>& watch,
                                 const std::function<void(Index layer)>& done) const {
  constexpr Index tokens_at_once = 2048;
  struct Some {
    std::vector<Text> texts;
    std::vector<Part> parts;
    Matrix<float> x;
  };
  std::vector<Some> all;
  for (std::size_t at = 0; at < texts.size();) {
    std::size_t end = at;
    for (Index tokens = 0; end < texts.size() && tokens < tokens_at_once; ++end)
      tokens += Index(texts[end].size());
    Some some;
    some.texts.resize(end - at);
    for (std::size_t i = at; i < end; ++i) some.parts.push_back({&some.texts[i - at], texts[i]});
    open(some.parts);
    some.x = embed(some.parts);
    all.push_back(std::move(some));
    at = end;
  }
  for (Index l = 0; l < model_.config.layers; ++l) {
    const Watch watching = watch(l);
    for (Some& some : all) {
      layer(l, some.parts, some.x, watching);
      for (Text& text : some.texts) text.layers_[std::size_t(l)] = {};
    }
    done(l);
  }
}

inline void Transformer::logits(View<const float> states, View<float> logits) const {
  model_.head.multiply(states, logits, threads_);
  if (const double cap = model_.config.logit_softcap; cap > 0)
    for (Index i = 0; i < logits.rows; ++i)
      for (float& x : logits.row(i)) x = float(cap * std::tanh(double(x) / cap));
}

inline void Transformer::open(std::span<const Part> parts) const {
  const cafeq::ModelConfig& c = model_.config;
  for (const auto& [text, tokens] : parts) {
    const Index length = text->length_ + Index(tokens.size());
    if (c.context > 0 && length > c.context)
      raise(cafeq::ErrorCode::invalid_argument,
            cafeq::message("a text of ", length, " tokens is longer than the model's context of ",
                           c.context));
    text->layers_.resize(model_.layers.size());
    if (text->length_ == 0)
      text->long_ = c.rope_scaling.original_context > 0 && length > c.rope_scaling.original_context;
  }
}

inline Matrix<float> Transformer::embed(std::span<const Part> parts) const {
  const cafeq::ModelConfig& c = model_.config;
  Index n = 0;
  for (const Part& part : parts) n += Index(part.tokens.size());

  Matrix<float> x(n, c.hidden);
  Index i = 0;
  for (const Part& part : parts)
    for (const Token token : part.tokens) {
      check(token);
      const auto panels = model_.embedding->panels();
      for (Index j = 0; j < c.hidden; ++j)
        x(i, j) = *panels.at(j, Index(token)) * float(c.embedding_scale);
      ++i;
    }
  return x;
}

inline Matrix<float> Transformer::apply(const Stack& stack, View<const float> x) const {
  Index out = 0;
  for (const Linear& linear : stack) out += linear.out;
  Matrix<float> y(x.rows, out);
  Index begin = 0;
  for (const Linear& linear : stack) {
    const View<float> part = y.view().col_block(begin, linear.out);
    linear.multiply(x, part, threads_);
    if (!linear.bias.empty())
      for (Index i = 0; i < part.rows; ++i)
        for (Index j = 0; j < part.cols; ++j) part(i, j) += linear.bias[std::size_t(j)];
    begin += linear.out;
  }
  return y;
}

inline void Transformer::normalise(const Norm& norm, View<const float> x, View<float> y) const {
  threads_.parallel_for(x.rows, 16, [&](Index begin, Index end, Index) {
    for (Index i = begin; i < end; ++i) {
      const auto from = x.row(i);
      const auto to = y.row(i);
      double sum = 0;
      for (const float value : from) sum += double(value) * double(value);
      const float scale =
          float(1 / std::sqrt(sum / double(from.size()) + model_.config.norm_epsilon));
      for (std::size_t j = 0; j < from.size(); ++j) to[j] = from[j] * scale * norm[j];
    }
  });
}

inline void Transformer::normalise_heads(const Norm& norm, View<float> heads) const {
  if (norm.empty()) return;
  const Index dim = model_.config.head_dim;
  for (Index begin = 0; begin < heads.cols; begin += dim) {
    const View<float> head = heads.col_block(begin, dim);
    normalise(norm, head, head);
  }
}

inline void Transformer::add(Matrix<float> change, const Norm& norm, Matrix<float>& to) const {
  if (!norm.empty()) normalise(norm, change.view(), change.view());
  for (Index i = 0; i < to.size(); ++i) to.data()[i] += change.data()[i];
}

/// [n, (heads + 2 · kv_heads) · head_dim] to [n, heads · head_dim]. Keys and values join those of
/// their texts.
inline Matrix<float> Transformer::attend(Index layer, Matrix<float> query_key_value,
                                         std::span<const Part> parts) const {
  const cafeq::ModelConfig& c = model_.config;
  const Layer& weights = model_.layers[std::size_t(layer)];
  const bool windowed = c.is_windowed(layer);
  const AttentionShape shape{
      .heads = c.heads,
      .kv_heads = c.kv_heads,
      .head_dim = c.head_dim,
      .scale = float(c.attention_scale > 0 ? c.attention_scale : 1 / std::sqrt(double(c.head_dim))),
      .softcap = float(c.attention_softcap),
      .window = windowed ? c.window : 0};
  const Index queries = c.heads * c.head_dim, keys = c.kv_heads * c.head_dim;

  const View<float> all = query_key_value.view();
  normalise_heads(weights.query_norm, all.col_block(0, queries));
  normalise_heads(weights.key_norm, all.col_block(queries, keys));
  Matrix<float> result(all.rows, queries);
  std::vector<Index> begins{0};
  for (const Part& part : parts) begins.push_back(begins.back() + Index(part.tokens.size()));
  const auto attend_in = [&](std::size_t p, cafeq::ExecutorRef threads) {
    Text& text = *parts[p].text;
    const Rope& rope = windowed && c.window_rope_base > 0 ? window_rope_
                       : text.long_                       ? long_rope_
                                                          : rope_;
    const View<float> rows = all.row_block(begins[p], Index(parts[p].tokens.size()));
    Text::Cache& cache = text.layers_[std::size_t(layer)];
    for (Index i = 0; i < rows.rows; ++i) {
      const auto row = rows.row(i);
      rope(row.first(std::size_t(queries + keys)), c.head_dim, text.length_ + i);
      const auto key = row.begin() + queries, value = key + keys;
      cache.keys.insert(cache.keys.end(), key, value);
      cache.values.insert(cache.values.end(), value, row.end());
    }
    const Index length = text.length_ + rows.rows;
    kernels().attend(shape, rows.col_block(0, queries), {cache.keys.data(), length, keys, keys, 1},
                     {cache.values.data(), length, keys, keys, 1},
                     result.view().row_block(begins[p], rows.rows), threads);
  };
  // Many texts go to the threads text by text, few by heads and rows.
  if (Index(parts.size()) < 2 * threads_.concurrency()) {
    for (std::size_t p = 0; p < parts.size(); ++p) attend_in(p, threads_);
  } else {
    threads_.parallel_for(Index(parts.size()), 1, [&](Index begin, Index end, Index) {
      for (; begin < end; ++begin) attend_in(std::size_t(begin), {});
    });
  }
  return result;
}

}  // namespace engine
