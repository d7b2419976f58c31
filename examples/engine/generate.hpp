/// Texts that a model writes: many at once, since a product of many rows takes hardly longer than
/// that of one.
#pragma once

#include <algorithm>
#include <functional>
#include <span>
#include <vector>

#include "forward.hpp"
#include "sample.hpp"

namespace engine {

struct GenerateOptions {
  Index tokens = 256;  ///< at most, to each text
  double temperature = 1, top_p = 1;
  std::uint64_t seed = 0;
  Tokens ends{};  ///< any of them ends a text, and is not part of it; none: texts go on
};

/// Appends to each of the texts, none of which is empty, what the model continues them with.
/// `written(text, token)` is called for each token. What becomes of a text does not depend on the
/// others.
inline void generate(const Transformer& transformer, std::vector<Tokens>& texts,
                     const GenerateOptions& options,
                     const std::function<void(std::size_t text, Token token)>& written = {}) {
  struct Writer {
    std::size_t number;
    Text text;
    Sampler sample;
    Index begun;  // tokens that it has been given
  };
  std::vector<Writer> writers;
  const Index context = transformer.model().config.context;
  for (std::size_t i = 0; i < texts.size(); ++i)
    writers.push_back(
        {i, {}, {options.temperature, options.top_p, options.seed + i}, Index(texts[i].size())});
  const auto is_done = [&](const Writer& writer) {
    const Index length = Index(texts[writer.number].size());
    return length - writer.begun >= options.tokens || (context > 0 && length >= context);
  };

  while (std::erase_if(writers, is_done), !writers.empty()) {
    std::vector<Part> parts;
    for (Writer& writer : writers)
      parts.push_back({&writer.text,
                       std::span(texts[writer.number]).subspan(std::size_t(writer.text.length()))});
    const Matrix<float> states = transformer.forward(parts);

    Matrix<float> last(Index(writers.size()), states.cols());
    Index row = -1;
    for (std::size_t i = 0; i < writers.size(); ++i) {
      row += Index(parts[i].tokens.size());
      std::ranges::copy(states.row(row), last.row(Index(i)).begin());
    }
    Matrix<float> logits(last.rows(), transformer.model().config.vocabulary);
    transformer.logits(last.view(), logits.view());
    std::vector<Token> next(writers.size());
    transformer.threads().parallel_for(last.rows(), 1, [&](Index begin, Index end, Index) {
      for (Index i = begin; i < end; ++i)
        next[std::size_t(i)] = writers[std::size_t(i)].sample(logits.row(i));
    });
    std::vector<Writer> going;
    for (std::size_t i = 0; i < writers.size(); ++i) {
      if (std::ranges::find(options.ends, next[i]) != options.ends.end()) continue;
      texts[writers[i].number].push_back(next[i]);
      if (written) written(writers[i].number, next[i]);
      going.push_back(std::move(writers[i]));
    }
    writers = std::move(going);
  }
}

}  // namespace engine
