/// A model that is ready to run, from one path.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "cafeq/io/read_vocabulary.hpp"
#include "forward.hpp"
#include "load.hpp"
#include "tokenizer.hpp"

namespace engine {

struct Engine {
  /// As load_model().
  Engine(const std::string& path, cafeq::ExecutorRef threads)
      : file(path), model(load_model(file, threads)), transformer(model, threads) {}
  Engine(const std::string& path, std::string_view form, cafeq::ExecutorRef threads)
      : file(path), model(load_model(file, form, threads)), transformer(model, threads) {}

  cafeq::ModelFile file;
  Model model;
  Transformer transformer;
};

/// What texts begin with: the vocabulary's first token, or token 0 where it has none.
inline Token first_token(const cafeq::ModelFile& file, const std::string& tokenizer) {
  const auto vocabulary = cafeq::read_vocabulary(file, tokenizer);
  return vocabulary && vocabulary->begin ? Token(*vocabulary->begin) : Token(0);
}

/// That of the model, or of the file that is named. Raises as read_vocabulary(), and
/// invalid_argument where there is none.
inline Tokenizer load_tokenizer(const cafeq::ModelFile& file, const std::string& path = {}) {
  auto vocabulary = cafeq::read_vocabulary(file, path);
  if (!vocabulary)
    raise(cafeq::ErrorCode::invalid_argument,
          cafeq::message(file.path(), ": has no tokenizer of its own; name one by --tokenizer"));
  return Tokenizer(std::move(*vocabulary));
}

}  // namespace engine
