/// The vocabulary of a tokenizer.json of transformers with byte-pair encoding, and of the two files
/// that came before it: vocab.json and merges.txt.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "cafeq/io/json.hpp"
#include "cafeq/io/tokenizer_companions.hpp"
#include "cafeq/io/tokenizer_file.hpp"
#include "cafeq/io/tokenizer_steps.hpp"
#include "cafeq/io/vocabulary.hpp"

namespace cafeq::detail {

/// Errors name `file`: corrupt, and unsupported for what is not known.
inline Vocabulary vocabulary_from_tokenizer_json(std::string_view content, std::string_view file,
                                                 const TokenizerCompanions& companions);

/// Of byte-level vocabularies only. What else there is to know is in tokenizer_config.json: the
/// class of the tokenizer, and the tokens that were added.
inline Vocabulary vocabulary_from_pair(std::string_view vocab_json, std::string_view merges_txt,
                                       std::string_view file,
                                       const TokenizerCompanions& companions);

/// What the template for a single text puts around it.
inline void read_template(const TokenizerFile& file, const Json& part, Vocabulary& vocabulary) {
  const Json* single = find_member(part, "single");
  if (single == nullptr || !single->is_array()) file.fail("its template has no array single");
  const TokenIds ids(vocabulary);
  bool behind = false;
  for (const Json& item : *single) {
    const Json* special = find_member(item, "SpecialToken");
    const std::string* name = special == nullptr ? nullptr : find_string(*special, "id");
    if (name == nullptr) {
      behind = true;
      continue;
    }
    const auto id = ids.find(*name);
    if (!id) file.fail(message("its template has the token ", *name, ", which is none"));
    bool& added = behind ? vocabulary.add_end : vocabulary.add_begin;
    if (added) file.refuse("its template puts several tokens at one end of a text");
    added = true;
    (behind ? vocabulary.end : vocabulary.begin) = id;
  }
}

inline Vocabulary vocabulary_from_tokenizer_json(std::string_view content, std::string_view file,
                                                 const TokenizerCompanions& companions) {
  const TokenizerFile json(content, file);
  Vocabulary vocabulary;
  vocabulary.ignore_merges = flag_of(json.model(), "ignore_merges", false);
  json.read_tokens(vocabulary);
  json.read_merges(vocabulary);
  read_steps(json, vocabulary);
  for (const Json* part : json.parts("post_processor", "processors")) {
    if (type_of_part(*part) == "TemplateProcessing") read_template(json, *part, vocabulary);
    else if (type_of_part(*part) != "ByteLevel")
      json.refuse(message("post-processor ", printable(*part), " is not known"));
  }
  complete_vocabulary(vocabulary, companions);
  return vocabulary;
}

/// The tokens of tokenizer_config.json, by id.
inline void read_added_tokens(const TokenizerCompanions& companions, std::string_view file,
                              Vocabulary& vocabulary) {
  const Json* added = find_member(companions.tokenizer, "added_tokens_decoder");
  if (added == nullptr || !added->is_object()) return;
  for (const auto& item : added->items()) {
    const std::string& key = item.key();
    const std::string* content = find_string(item.value(), "content");
    const bool number =
        !key.empty() && key.size() < 9 && key.find_first_not_of("0123456789") == std::string::npos;
    if (!number || std::stoll(key) >= token_limit || content == nullptr || content->empty())
      raise(ErrorCode::corrupt, message("tokenizer_config.json of ", file, ": an added token is ",
                                        key, ": ", printable(item.value())));
    const Index id = std::stoll(key);
    // A vocabulary of its own says what its tokens are.
    if (id < Index(vocabulary.tokens.size()) &&
        vocabulary.types[std::size_t(id)] != TokenType::normal)
      continue;
    set_token(
        vocabulary, id, *content,
        flag_of(item.value(), "special", false) ? TokenType::control : TokenType::user_defined);
    if (flag_of(item.value(), "lstrip", false)) vocabulary.strip_left.push_back(id);
    if (flag_of(item.value(), "rstrip", false)) vocabulary.strip_right.push_back(id);
  }
}

inline Vocabulary vocabulary_from_pair(std::string_view vocab_json, std::string_view merges_txt,
                                       std::string_view file,
                                       const TokenizerCompanions& companions) {
  const std::string* name = find_string(companions.tokenizer, "tokenizer_class");
  const bool gpt2 = name != nullptr && name->starts_with("GPT2Tokenizer");
  if (!gpt2 && (name == nullptr || !name->starts_with("Qwen2Tokenizer")))
    raise(ErrorCode::unsupported,
          message(file,
                  ": vocab.json and merges.txt are known with the tokenizer_class "
                  "GPT2Tokenizer or Qwen2Tokenizer in tokenizer_config.json only, not with ",
                  name == nullptr ? "none" : *name));

  Vocabulary vocabulary{.pre = gpt2 ? "gpt-2" : "qwen2"};
  vocabulary.nfc = !gpt2;
  const Json tokens = parse_json(vocab_json, message("vocab.json of ", file));
  for (const auto& item : tokens.items()) {
    const auto id = to_size(item.value());
    if (!tokens.is_object() || !id || *id >= token_limit)
      raise(ErrorCode::corrupt, message("vocab.json of ", file, ": is no object of ids"));
    set_token(vocabulary, *id, item.key(), TokenType::normal);
  }
  read_added_tokens(companions, file, vocabulary);
  while (!merges_txt.empty()) {
    std::string_view line = merges_txt.substr(0, merges_txt.find('\n'));
    merges_txt.remove_prefix(std::min(line.size() + 1, merges_txt.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    const std::size_t space = std::min(line.find(' '), line.size());
    if (!line.empty() && !line.starts_with("#version"))
      vocabulary.merges.push_back(joined_merge(line.substr(0, space),
                                               line.substr(std::min(space + 1, line.size())),
                                               message("merges.txt of ", file)));
  }
  complete_vocabulary(vocabulary, companions);
  return vocabulary;
}

}  // namespace cafeq::detail
