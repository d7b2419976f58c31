/// A sentence encoder ready to use: weights and the tokenizer that goes with them, fetched or
/// generated.
#pragma once

#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "builtin_model.hpp"
#include "tokenizer.hpp"

namespace cafeq::example {

struct SentenceModel {
  std::string name;
  EncoderWeights weights;
  std::function<Tokens(std::string_view)> tokenize;

  std::vector<Tokens> tokenize_all(std::span<const std::string_view> sentences) const {
    std::vector<Tokens> tokens;
    for (const std::string_view sentence : sentences) tokens.push_back(tokenize(sentence));
    return tokens;
  }
};

/// The published model, as scripts/fetch-model leaves it in `directory`.
inline SentenceModel load_sentence_model(const std::string& directory) {
  const auto tokenizer =
      std::make_shared<UnigramTokenizer>(load_tokenizer(directory + "/vocab.json"));
  SentenceModel model{"Universal Sentence Encoder Lite", load_encoder_weights(directory),
                      [tokenizer](std::string_view sentence) { return (*tokenizer)(sentence); }};
  if (tokenizer->size() > model.weights.embeddings.rows())
    raise(ErrorCode::corrupt, message(directory, ": a vocabulary of ", tokenizer->size(), " for ",
                                      model.weights.embeddings.rows(), " embeddings"));
  return model;
}

inline SentenceModel builtin_sentence_model() {
  return {"generated encoder of the same shapes", builtin_weights(), builtin_tokenize};
}

/// Where scripts/fetch-model puts the model: $CAFEQ_MODEL_DIR, or a directory in the user's cache;
/// empty where neither is known.
inline std::string default_model_directory() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value != nullptr ? value : "");
  };
  if (const std::string chosen = variable("CAFEQ_MODEL_DIR"); !chosen.empty()) return chosen;
  std::string cache = variable("XDG_CACHE_HOME");
  if (!cache.starts_with('/')) cache = variable("HOME").empty() ? "" : variable("HOME") + "/.cache";
  return cache.empty() ? "" : cache + "/cafeq/model-embeddings-en-0.2.0";
}

}  // namespace cafeq::example
