/// The vocabulary of a language model, whatever file it comes from: cafeq/io/read_vocabulary.hpp
/// reads it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cafeq/core/numeric.hpp"

namespace cafeq {

/// What a token is, in the numbers of GGUF and SentencePiece.
enum class TokenType : std::int32_t {
  normal = 1,
  unknown,       ///< what a character without a token becomes
  control,       ///< no part of a text: it begins one, ends one, says who speaks …
  user_defined,  ///< found in a text before anything is merged
  unused,        ///< of a model that has room for more tokens
  byte           ///< "<0x0A>": one byte of a character without a token
};

/// How tokens spell a text, and which of them it becomes.
enum class VocabularyKind {
  byte_level,  ///< bytes as visible characters, neighbours merged by rank
  pieces,      ///< characters and spaces as U+2581, neighbours merged by rank or by score
  unigram      ///< spelled as pieces: those that have the highest sum of scores
};

/// Ahead of what a space is put, in vocabularies with visible spaces.
enum class SpacePrefix {
  none,
  first,  ///< of what a text begins with
  all     ///< also of what follows a control or user-defined token
};

/// The tokens of a model, and how a text becomes a sequence of them.
struct Vocabulary {
  VocabularyKind kind = VocabularyKind::byte_level;
  /// llama.cpp's name for how a text is cut ahead of merging ("llama-bpe", "qwen2", "smollm",
  /// "gpt-2", "tekken" …); "default" for pieces that are merged wherever they stand.
  std::string pre = "default";

  std::vector<std::string> tokens{};
  std::vector<TokenType> types{};     ///< of each token
  std::vector<float> scores{};        ///< of each token, or none; the highest is merged first
  std::vector<std::string> merges{};  ///< "left right" in the order of their ranks, or none
  bool ignore_merges = false;         ///< a cut piece that is a token is taken as it is

  bool nfc = false;  ///< texts are expected in Unicode's normalization form C
  SpacePrefix space_prefix = SpacePrefix::none;
  bool prefix_spaces = true;         ///< the prefix goes ahead of a space, too
  bool remove_extra_spaces = false;  ///< of several one stays, and none at the ends

  std::optional<Index> begin{};  ///< ids of the tokens that have a role of their own
  std::optional<Index> end{};
  std::optional<Index> unknown{};
  std::optional<Index> padding{};
  std::vector<Index> ends{};  ///< all that end a text or a turn of a conversation, `end` first
  bool add_begin = false;     ///< every text starts with `begin`
  bool add_end = false;

  std::vector<Index> strip_left{};   ///< tokens that take away the spaces ahead of them
  std::vector<Index> strip_right{};  ///< and behind them
  std::string chat_template{};       ///< in Jinja; empty where the model has none
};

namespace detail {

/// How pieces spell a space: U+2581.
inline constexpr std::string_view visible_space = "\xe2\x96\x81";

/// `text` with each `from` replaced by `to`.
inline std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t found = std::min(text.find(from, at), text.size());
    result.append(text.substr(at, found - at));
    if (found < text.size()) result.append(to);
    at = found + from.size();
  }
  return result;
}

/// The byte that a piece like "<0x0A>" stands for.
inline std::optional<std::uint8_t> byte_of_piece(std::string_view piece) noexcept {
  constexpr std::string_view digits = "0123456789ABCDEF";
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return std::nullopt;
  const std::size_t high = digits.find(piece[3]), low = digits.find(piece[4]);
  if (high == digits.npos || low == digits.npos) return std::nullopt;
  return std::uint8_t(16 * high + low);
}

/// Ids by the text of tokens, of several with the same text the first. Views of the vocabulary.
class TokenIds {
 public:
  explicit TokenIds(const Vocabulary& vocabulary) {
    ids_.reserve(vocabulary.tokens.size());
    Index id = 0;
    for (const std::string& token : vocabulary.tokens) ids_.emplace(token, id++);
  }

  std::optional<Index> find(std::string_view token) const {
    const auto found = ids_.find(token);
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }

 private:
  std::unordered_map<std::string_view, Index> ids_;
};

/// The place of a new token, behind room for those between.
inline void set_token(Vocabulary& vocabulary, Index id, std::string_view token, TokenType type) {
  while (Index(vocabulary.tokens.size()) <= id) {
    vocabulary.tokens.push_back("[PAD" + std::to_string(vocabulary.tokens.size()) + "]");
    vocabulary.types.push_back(TokenType::unused);
  }
  vocabulary.tokens[std::size_t(id)] = token;
  vocabulary.types[std::size_t(id)] = type;
}

}  // namespace detail
}  // namespace cafeq
