/// Vocabularies small enough to work tokens out by hand.
#pragma once

#include <array>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "cafeq/io/vocabulary.hpp"

namespace engine::test {

using cafeq::TokenType;
using cafeq::Vocabulary;
using cafeq::VocabularyKind;

inline void add(Vocabulary& vocabulary, const std::string& token,
                TokenType type = TokenType::normal) {
  vocabulary.tokens.push_back(token);
  vocabulary.types.push_back(type);
}

inline std::string byte_name(unsigned byte) {
  char name[8];
  std::snprintf(name, sizeof name, "<0x%02X>", byte);
  return name;
}

/// Three tokens that control, and 256 bytes.
inline Vocabulary no_pieces(VocabularyKind kind) {
  Vocabulary vocabulary{.kind = kind, .begin = 1, .end = 2, .unknown = 0, .add_begin = true};
  add(vocabulary, "<unk>", TokenType::unknown);
  add(vocabulary, "<s>", TokenType::control);
  add(vocabulary, "</s>", TokenType::control);
  for (unsigned byte = 0; byte < 256; ++byte) add(vocabulary, byte_name(byte), TokenType::byte);
  return vocabulary;
}
inline unsigned of_byte(unsigned byte) { return 3 + byte; }

using Scored = std::vector<std::pair<std::string, float>>;

inline Vocabulary with_scores(VocabularyKind kind, const Scored& pieces) {
  Vocabulary vocabulary = no_pieces(kind);
  vocabulary.scores.resize(vocabulary.tokens.size());
  for (const auto& [piece, score] : pieces) {
    add(vocabulary, piece);
    vocabulary.scores.push_back(score);
  }
  return vocabulary;
}

/// As bytes are spelled by byte-level vocabularies.
inline std::string visible(unsigned byte) {
  unsigned next = 256;
  for (unsigned b = 0;; ++b) {
    const bool itself = (b >= 33 && b <= 126) || (b >= 161 && b != 173);
    const unsigned code = itself ? b : next++;
    if (b == byte)
      return code < 128 ? std::string(1, char(code))
                        : std::string{char(0xc0 | code >> 6), char(0x80 | (code & 0x3f))};
  }
}

/// 256 bytes, whose tokens are their numbers, and pieces of them.
inline Vocabulary byte_level() {
  Vocabulary vocabulary{.pre = "gpt-2",
                        .merges = {"l l", "h e", "he ll", "\u0120 w", "e l", "hell o",
                                   "\u00c3 \u00a9", "\u0120 \u0120", "i n", "g s", "in gs"},
                        .begin = 268,
                        .add_begin = true};
  for (unsigned byte = 0; byte < 256; ++byte) add(vocabulary, visible(byte));
  for (const char* piece : {"ll", "he", "hell", "\u0120w", "el", "hello", "\u00c3\u00a9",
                            "\u0120\u0120", "\u0120hi", "in", "gs", "ings"})
    add(vocabulary, piece);
  add(vocabulary, "<|begin|>", TokenType::control);
  add(vocabulary, "<|be", TokenType::control);
  add(vocabulary, "<|note|>", TokenType::user_defined);
  return vocabulary;
}

}  // namespace engine::test
