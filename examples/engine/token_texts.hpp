/// What each token of a vocabulary stands for, and which token stands for a text.
#pragma once

#include <array>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cafeq/io/vocabulary.hpp"
#include "token.hpp"
#include "unicode.hpp"

namespace engine {

/// In place of a token that there is none of.
inline constexpr Token no_token = std::numeric_limits<Token>::max();

/// `text` with visible spaces as spaces.
inline std::string with_spaces(std::string_view text) {
  return cafeq::detail::replaced(text, cafeq::detail::visible_space, " ");
}

/// Byte-level vocabularies write each byte as a character that can be seen: itself, or one from 256
/// on. By its code, nothing for other characters.
inline std::optional<char> byte_of_visible(char32_t code) {
  constexpr auto visible = [](char32_t c) {
    return (c >= 33 && c <= 126) || (c >= 161 && c <= 255 && c != 173);
  };
  if (code < 256) return visible(code) ? std::optional(char(code)) : std::nullopt;
  for (char32_t byte = 0, next = 256; byte < 256; ++byte)
    if (!visible(byte) && next++ == code) return char(byte);
  return std::nullopt;
}

/// The bytes that a token of a byte-level vocabulary stands for; one with other characters stands
/// for itself.
inline std::string bytes_of_visible(std::string_view token) {
  std::string bytes;
  for (std::string_view rest = token; !rest.empty();) {
    const std::size_t length = character_length(rest);
    const auto byte = byte_of_visible(code_point(rest.substr(0, length)));
    if (!byte) return std::string(token);
    bytes.push_back(*byte);
    rest.remove_prefix(length);
  }
  return bytes;
}

class TokenTexts {
 public:
  explicit TokenTexts(const cafeq::Vocabulary& vocabulary) : bytes_() {
    using cafeq::TokenType;
    const bool byte_level = vocabulary.kind == cafeq::VocabularyKind::byte_level;
    bytes_.fill(no_token);
    if (const auto id = vocabulary.unknown;
        id && vocabulary.types[std::size_t(*id)] == TokenType::unknown)
      unknown_ = Token(*id);
    fuse_unknown_ = !byte_level;

    texts_.reserve(vocabulary.tokens.size());
    tokens_.reserve(vocabulary.tokens.size());
    for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
      const std::string& token = vocabulary.tokens[id];
      const TokenType type = vocabulary.types[id];
      std::string text;
      if (type == TokenType::normal)
        text = byte_level ? bytes_of_visible(token) : with_spaces(token);
      if (type == TokenType::user_defined) text = byte_level ? token : with_spaces(token);
      if (const auto byte = cafeq::detail::byte_of_piece(token); byte && type == TokenType::byte) {
        text = char(*byte);
        bytes_[*byte] = Token(id);
      } else if (byte_level && text.size() == 1) {
        bytes_[static_cast<unsigned char>(text[0])] = Token(id);
      }
      texts_.push_back(std::move(text));
      // No text is a byte token: those stand in where there is no other.
      if (type != TokenType::byte && !texts_[id].empty()) tokens_.emplace(texts_[id], Token(id));
    }
  }
  // The keys of tokens_ are views of texts_.
  TokenTexts(TokenTexts&&) = default;
  TokenTexts& operator=(TokenTexts&&) = default;

  /// Nothing for tokens that only control, and for those beyond the vocabulary.
  std::string_view text(Token token) const {
    return token < texts_.size() ? std::string_view(texts_[token]) : std::string_view();
  }
  Token find(std::string_view text) const {
    const auto found = tokens_.find(text);
    return found == tokens_.end() ? no_token : found->second;
  }
  Token byte(char byte) const { return bytes_[static_cast<unsigned char>(byte)]; }

  /// The bytes that some token has ahead of a space. Behind other bytes no token reaches into the
  /// next word.
  std::array<bool, 256> bytes_ahead_of_spaces() const {
    std::array<bool, 256> ahead{};
    for (const std::string_view text : texts_)
      for (std::size_t i = 1; i < text.size(); ++i)
        if (text[i] == ' ' && text[i - 1] != ' ')
          ahead[static_cast<unsigned char>(text[i - 1])] = true;
    return ahead;
  }

  /// Appends what a character without a token becomes: its bytes, or else the unknown token, or
  /// else nothing.
  void append_unknown(std::string_view character, std::vector<Token>& to) const {
    const std::size_t before = to.size();
    for (const char c : character) {
      if (byte(c) != no_token) {
        to.push_back(byte(c));
        continue;
      }
      to.resize(before);
      const bool again = fuse_unknown_ && before > 0 && to.back() == unknown_;
      if (unknown_ != no_token && !again) to.push_back(unknown_);
      return;
    }
  }

 private:
  std::vector<std::string> texts_;
  std::unordered_map<std::string_view, Token> tokens_;
  std::array<Token, 256> bytes_;  ///< the token of each byte
  Token unknown_ = no_token;
  bool fuse_unknown_ = false;  ///< neighbours become one
};

}  // namespace engine
