/// The vocabulary of a tokenizer.json of transformers with byte-pair encoding, as llama.cpp takes
/// it.
///
/// There are two kinds: byte-level ones (cafeq/io/byte_level_vocabulary.hpp) and those made of
/// pieces with visible spaces (cafeq/io/piece_vocabulary.hpp).
#pragma once

#include <array>
#include <optional>
#include <string>
#include <utility>

#include "cafeq/io/byte_level_vocabulary.hpp"
#include "cafeq/io/gguf_vocabulary.hpp"
#include "cafeq/io/json.hpp"
#include "cafeq/io/path.hpp"
#include "cafeq/io/piece_vocabulary.hpp"
#include "cafeq/io/tokenizer_file.hpp"

namespace cafeq::detail {

/// `size` tokens, those that the file lacks as [PADn]. The tokens that begin and end a text come
/// from the tokenizer_config.json or config.json beside it, where there is one, and so does the
/// chat template. Raises io, corrupt, and unsupported for what llama.cpp cannot do.
inline GgufVocabulary read_tokenizer_json(const std::string& path, Index size);

/// Whether a token is put ahead of every text, and which, by the template of a single text.
inline void read_template(const TokenizerFile& file, GgufVocabulary& vocabulary) {
  for (const Json* part : file.parts("post_processor", "processors")) {
    const Json* single = find_member(*part, "single");
    if (type_of_part(*part) != "TemplateProcessing" || single == nullptr || !single->is_array() ||
        single->empty())
      continue;
    const Json* special = find_member(single->front(), "SpecialToken");
    const std::string* token = special == nullptr ? nullptr : find_string(*special, "id");
    if (token == nullptr) continue;
    vocabulary.add_begin = true;
    vocabulary.begin = file.id_of(*token);
  }
}

/// The text of a token of tokenizer_config.json, which stands there by itself or with its
/// properties; null where there is none.
inline const std::string* token_text(const Json& config, const char* name) {
  const Json* token = find_member(config, name);
  if (token == nullptr) return nullptr;
  return token->is_string() ? token->get_ptr<const std::string*>() : find_string(*token, "content");
}

/// The id of a token of config.json; of several ids that end a text, the first.
inline std::optional<Index> token_id(const Json& config, const char* name) {
  const Json* number = find_member(config, name);
  if (number != nullptr && number->is_array() && !number->empty()) number = &number->front();
  return number == nullptr ? std::nullopt : to_size(*number);
}

/// What the files beside say, where the tokenizer itself has not said it.
inline void read_companions(const TokenizerFile& file, GgufVocabulary& vocabulary) {
  const auto read = [&](const char* name) {
    const std::string path = message(directory_of(file.path()), "/", name);
    return kind_of(path) == S_IFREG ? read_json(path) : Json::object();
  };
  const Json tokenizer = read("tokenizer_config.json"), config = read("config.json");

  const std::array<std::pair<std::string, std::optional<Index>*>, 4> roles{
      {{"bos_token", &vocabulary.begin},
       {"eos_token", &vocabulary.end},
       {"unk_token", &vocabulary.unknown},
       {"pad_token", &vocabulary.padding}}};
  for (const auto& [name, id] : roles) {
    const std::string* text = token_text(tokenizer, name.c_str());
    if (!*id && text != nullptr) *id = file.id_of(*text);
    const auto in_config = token_id(config, (name + "_id").c_str());
    if (!*id && in_config && *in_config < Index(vocabulary.tokens.size())) *id = in_config;
  }

  vocabulary.add_begin = flag_of(tokenizer, "add_bos_token", vocabulary.add_begin);
  if (const std::string* text = find_string(tokenizer, "chat_template"); text != nullptr)
    vocabulary.chat_template = *text;
}

inline GgufVocabulary read_tokenizer_json(const std::string& path, Index size) {
  const TokenizerFile file(path, size);
  GgufVocabulary vocabulary{.tokens = file.tokens(), .types = file.types()};
  if (is_byte_level(file)) make_byte_level(file, vocabulary);
  else make_pieces(file, vocabulary);
  read_template(file, vocabulary);
  read_companions(file, vocabulary);
  return vocabulary;
}

}  // namespace cafeq::detail
