/// Text to tokens and back.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "added_tokens.hpp"
#include "byte_pairs.hpp"
#include "cafeq/core/error.hpp"
#include "cafeq/io/vocabulary.hpp"
#include "pre_tokenizer.hpp"
#include "token_texts.hpp"
#include "unigram.hpp"

namespace engine {

class Tokenizer {
 public:
  /// Raises unsupported for vocabularies that cut texts in a way that is not known, and corrupt.
  explicit Tokenizer(cafeq::Vocabulary vocabulary);

  /// The tokens of a text, between those that begin and end every text. Control tokens are found in
  /// it where it may be `special`, which text from elsewhere should not be; one that starts with
  /// the token that begins a text gets no second one.
  ///
  /// Bytes that are not UTF-8 are characters of their own. A vocabulary that expects a
  /// normalization form (`nfc`) does not get it here: the text must have it.
  std::vector<Token> encode(std::string_view text, bool special = true) const;
  /// The text of tokens, without those that only control. It may end within a character.
  std::string decode(std::span<const Token> tokens) const;

  const cafeq::Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  std::string prepared(std::string_view text, bool special) const;
  void encode_plain(std::string_view text, std::vector<Token>& to) const;

  cafeq::Vocabulary vocabulary_;
  TokenTexts texts_;
  AddedTokens added_;
  std::vector<Splitter> splitters_;
  std::optional<BytePairs> pairs_;
  std::optional<Unigram> unigram_;
  bool prefixes_whole_;           // the prefix may be a part of user-defined tokens (SentencePiece)
  std::array<bool, 256> joined_;  // bytes behind which words cannot be cut by themselves
};

inline Tokenizer::Tokenizer(cafeq::Vocabulary vocabulary)
    : vocabulary_(std::move(vocabulary)),
      texts_(vocabulary_),
      added_(vocabulary_),
      prefixes_whole_(vocabulary_.space_prefix == cafeq::SpacePrefix::first &&
                      vocabulary_.prefix_spaces),
      joined_(texts_.bytes_ahead_of_spaces()) {
  using cafeq::VocabularyKind;
  if (vocabulary_.kind == VocabularyKind::unigram) unigram_.emplace(vocabulary_);
  else pairs_.emplace(vocabulary_);
  splitters_ = vocabulary_.kind == VocabularyKind::byte_level
                   ? splitters_of_bytes(vocabulary_.pre)
                   : splitters_of_pieces(vocabulary_.pre);
}

/// A text with spaces as the vocabulary expects them. A visible one is a space, too.
inline std::string Tokenizer::prepared(std::string_view text, bool special) const {
  if (vocabulary_.kind == cafeq::VocabularyKind::byte_level) return std::string(text);
  std::string fewer;
  if (vocabulary_.remove_extra_spaces) {
    for (const char c : text)
      if (c != ' ' || (!fewer.empty() && fewer.back() != ' ')) fewer.push_back(c);
    if (fewer.ends_with(' ')) fewer.pop_back();
    text = fewer;
  }
  std::string all = with_spaces(text);
  if (!prefixes_whole_ || all.empty()) return all;
  const auto found = added_.find(all, 0, special);
  return found && found->begin == 0 && found->special ? all : " " + all;
}

inline std::vector<Token> Tokenizer::encode(std::string_view given, bool special) const {
  using cafeq::SpacePrefix;
  const std::string whole = prepared(given, special);
  const std::string_view text = whole;
  const auto is_space = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };

  std::vector<Token> to;
  auto found = added_.find(text, 0, special);
  const bool begun = found && found->begin == 0 && found->token == vocabulary_.begin;
  if (vocabulary_.add_begin && !begun) to.push_back(Token(*vocabulary_.begin));
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = found ? found->begin : text.size();
    if (found && found->strip_left)
      while (end > at && is_space(text[end - 1])) --end;
    if (end > at) {
      const bool prefixed =
          vocabulary_.space_prefix == SpacePrefix::all ||
          (vocabulary_.space_prefix == SpacePrefix::first && at == 0 && !prefixes_whole_);
      const std::string_view plain = text.substr(at, end - at);
      if (prefixed && (vocabulary_.prefix_spaces || plain[0] != ' '))
        encode_plain(" " + std::string(plain), to);
      else encode_plain(plain, to);
    }
    if (!found) break;
    to.push_back(found->token);
    at = found->begin + found->size;
    if (found->strip_right)
      while (at < text.size() && is_space(text[at])) ++at;
    found = added_.find(text, at, special);
  }
  if (vocabulary_.add_end) to.push_back(Token(*vocabulary_.end));
  return to;
}

inline void Tokenizer::encode_plain(std::string_view text, std::vector<Token>& to) const {
  const auto encode_piece = [&](std::string_view piece) {
    const Token whole = vocabulary_.ignore_merges ? texts_.find(piece) : no_token;
    if (whole != no_token) to.push_back(whole);
    else if (unigram_) unigram_->encode(texts_, piece, to);
    else pairs_->encode(texts_, piece, to);
  };
  if (splitters_.empty()) for_words(text, joined_, encode_piece);
  else for_pieces(text, splitters_, encode_piece);
}

inline std::string Tokenizer::decode(std::span<const Token> tokens) const {
  std::string text;
  for (const Token token : tokens) text += texts_.text(token);
  if (vocabulary_.space_prefix != cafeq::SpacePrefix::none && text.starts_with(' '))
    text.erase(0, 1);
  return text;
}

}  // namespace engine
