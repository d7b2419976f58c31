/// The vocabulary of a model, wherever it is.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>

#include "cafeq/io/file.hpp"
#include "cafeq/io/gguf_vocabulary.hpp"
#include "cafeq/io/llama2c_vocabulary.hpp"
#include "cafeq/io/model_file.hpp"
#include "cafeq/io/path.hpp"
#include "cafeq/io/sentencepiece_vocabulary.hpp"
#include "cafeq/io/tokenizer_json.hpp"
#include "cafeq/io/vocabulary.hpp"

namespace cafeq {

/// From the file at `path`: a tokenizer.json, a model file of SentencePiece (tokenizer.model) or a
/// tokenizer file of llama2.c; the content decides which. Without one from what belongs to the
/// model: a GGUF file's metadata, or else tokenizer.json, tokenizer.model, or vocab.json and
/// merges.txt, with what the other companions say. Nothing where there is none.
///
/// Tokens that were added to a vocabulary and that the model has no embedding for are left out.
/// Raises io; corrupt; unsupported for what is not known, which it names; and invalid_argument
/// where the vocabulary is not the model's.
inline std::optional<Vocabulary> read_vocabulary(const ModelFile& model,
                                                 const std::string& path = {});

namespace detail {

/// From one file's content, and what belongs to it.
inline Vocabulary vocabulary_from_file(std::string_view content, std::string_view file,
                                       const TokenizerCompanions& companions) {
  const std::size_t first = content.find_first_not_of(" \t\r\n\xef\xbb\xbf");
  if (first != content.npos && content[first] == '{')
    return vocabulary_from_tokenizer_json(content, file, companions);

  // Either a message that begins with its first piece, which is longer than its one byte of length
  // and is a message itself, or a number below 2^16.
  if (content.size() < 3 || content[0] != '\n' || content[2] == 0)
    return vocabulary_from_llama2c(content, file);
  Vocabulary vocabulary = vocabulary_from_sentencepiece(content, file);
  read_added_tokens(companions, file, vocabulary);
  vocabulary.scores.resize(vocabulary.tokens.size());
  complete_vocabulary(vocabulary, companions);
  return vocabulary;
}

inline Vocabulary vocabulary_at(const ModelFile& model, const std::string& path) {
  const auto bytes = read_file(path);
  const auto find = [&](std::string_view name) -> std::optional<std::string> {
    const std::string beside = message(directory_of(path), "/", name);
    if (kind_of(beside) != S_IFREG) return model.companion(name);
    const auto content = read_file(beside);
    return std::string(as_text(content));
  };
  return vocabulary_from_file(as_text(bytes), path, TokenizerCompanions(find, path));
}

inline std::optional<Vocabulary> vocabulary_of_companions(const ModelFile& model) {
  const auto find = [&](std::string_view name) { return model.companion(name); };
  for (const char* name : {"tokenizer.json", "tokenizer.model"})
    if (const auto content = find(name))
      return vocabulary_from_file(*content, message(name, " of ", model.path()),
                                  TokenizerCompanions(find, model.path()));
  const auto tokens = find("vocab.json"), merges = find("merges.txt");
  if (!tokens || !merges) return std::nullopt;
  return vocabulary_from_pair(*tokens, *merges, model.path(),
                              TokenizerCompanions(find, model.path()));
}

/// Leaves out the tokens beyond those that the model has embeddings for.
inline void fit_vocabulary(Vocabulary& vocabulary, const ModelFile& model, std::string_view file) {
  const Index size = model.config().vocabulary, tokens = Index(vocabulary.tokens.size());
  const bool fits = model.format() == ModelFormat::llama2c ? tokens == size : tokens <= size;
  if (size == 0 || fits) return;
  for (Index id = std::min(size, tokens); id < tokens || tokens < size; ++id)
    if (const TokenType type = id < tokens ? vocabulary.types[std::size_t(id)] : TokenType::normal;
        type == TokenType::normal || type == TokenType::byte)
      raise(ErrorCode::invalid_argument,
            message(file, ": has ", tokens, " tokens, the model ", size));

  vocabulary.tokens.resize(std::size_t(size));
  vocabulary.types.resize(std::size_t(size));
  if (!vocabulary.scores.empty()) vocabulary.scores.resize(std::size_t(size));
  const auto beyond = [&](Index id) { return id >= size; };
  for (auto* role : {&vocabulary.begin, &vocabulary.end, &vocabulary.unknown, &vocabulary.padding})
    if (*role && beyond(**role)) role->reset();
  for (auto* ids : {&vocabulary.ends, &vocabulary.strip_left, &vocabulary.strip_right})
    std::erase_if(*ids, beyond);
}

}  // namespace detail

inline std::optional<Vocabulary> read_vocabulary(const ModelFile& model, const std::string& path) {
  std::optional<Vocabulary> vocabulary;
  if (!path.empty()) vocabulary = detail::vocabulary_at(model, path);
  else if (const GgufMetadata* metadata = model.metadata(); metadata != nullptr)
    vocabulary = detail::vocabulary_from_gguf(*metadata, model.path());
  else vocabulary = detail::vocabulary_of_companions(model);

  if (vocabulary) detail::fit_vocabulary(*vocabulary, model, path.empty() ? model.path() : path);
  return vocabulary;
}

}  // namespace cafeq
