/// The tokenizer files of llama2.c.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include "cafeq/io/byte_cursor.hpp"
#include "cafeq/io/end_tokens.hpp"
#include "cafeq/io/vocabulary.hpp"

namespace cafeq::detail {

/// i32 length of the longest piece, then f32 score, i32 length and characters of each token:
/// unknown, begin, end, bytes, pieces. Raises corrupt, naming `file`.
inline Vocabulary vocabulary_from_llama2c(std::string_view content, std::string_view file) {
  ByteCursor cursor(file, std::as_bytes(std::span(content)));
  cursor.number<std::int32_t>("the length of the longest token");
  Vocabulary vocabulary{.kind = VocabularyKind::pieces,
                        .space_prefix = SpacePrefix::all,
                        .begin = 1,
                        .end = 2,
                        .unknown = 0,
                        .add_begin = true};
  while (cursor.remaining() > 0) {
    vocabulary.scores.push_back(cursor.number<float>("a score"));
    const auto piece =
        as_text(cursor.take(cursor.number<std::uint32_t>("the length of a token"), "a token"));
    vocabulary.types.push_back(byte_of_piece(piece) ? TokenType::byte : TokenType::normal);
    vocabulary.tokens.push_back(replaced(piece, " ", visible_space));
  }

  // The file spells these with the line breaks that llama2.c prints around them.
  constexpr std::array<std::pair<const char*, TokenType>, 3> specials{
      {{"<unk>", TokenType::unknown}, {"<s>", TokenType::control}, {"</s>", TokenType::control}}};
  if (vocabulary.tokens.size() < specials.size())
    cursor.fail(message("has ", vocabulary.tokens.size(), " tokens, fewer than the first ",
                        specials.size(), " that every vocabulary has"));
  for (std::size_t id = 0; id < specials.size(); ++id) {
    vocabulary.tokens[id] = specials[id].first;
    vocabulary.types[id] = specials[id].second;
  }
  add_named_ends(vocabulary);
  return vocabulary;
}

}  // namespace cafeq::detail
