/// The vocabulary of a language model as llama.cpp finds it in a file's metadata.
///
/// Here is its content, and the reader of llama2.c's tokenizer files; cafeq/io/tokenizer_json.hpp
/// reads those of transformers.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/byte_cursor.hpp"
#include "cafeq/io/file.hpp"
#include "cafeq/io/gguf_metadata.hpp"

namespace cafeq::detail {

/// What a token is, in GGUF's numbers.
enum class TokenType : std::int32_t { normal = 1, unknown, control, user_defined, unused, byte };

/// The tokens of a model and how a text becomes a sequence of them.
struct GgufVocabulary {
  /// "llama": pieces of text with visible spaces (U+2581), merged by score. "gpt2": bytes as
  /// visible characters, merged by rank.
  std::string model{};
  std::string pre{};  ///< llama.cpp's name for how a text is cut ahead of merging
  std::vector<std::string> tokens{};
  std::vector<TokenType> types{};
  std::vector<float> scores{};        ///< of each token, in "llama"; higher ones are merged first
  std::vector<std::string> merges{};  ///< in "gpt2": "left right", in the order of their ranks
  std::optional<Index> begin{};       ///< ids of the tokens that have a role of their own
  std::optional<Index> end{};
  std::optional<Index> unknown{};
  std::optional<Index> padding{};
  bool add_begin = true;         ///< every text starts with `begin`
  bool add_space_prefix = true;  ///< in "llama": a space goes ahead of a text
  std::string chat_template{};
};

/// Adds the fields tokenizer.ggml.* and the chat template. Raises corrupt, naming `file`, where a
/// token appears twice: llama.cpp finds tokens by their text.
inline void add_vocabulary(GgufMetadata& metadata, const GgufVocabulary& vocabulary,
                           std::string_view file);

/// A tokenizer file of llama2.c: i32 length of the longest piece, then f32 score, i32 length and
/// characters of each token: unknown, begin, end, bytes, pieces. Raises io, corrupt, and
/// invalid_argument unless it has `size` tokens.
inline GgufVocabulary read_llama2c_vocabulary(const std::string& path, Index size);

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

/// Whether a piece like "<0x0A>" stands for a byte.
inline bool is_byte_piece(std::string_view piece) noexcept {
  constexpr std::string_view digits = "0123456789ABCDEF";
  return piece.size() == 6 && piece.starts_with("<0x") && piece[5] == '>' &&
         digits.find(piece[3]) != digits.npos && digits.find(piece[4]) != digits.npos;
}

inline void add_vocabulary(GgufMetadata& metadata, const GgufVocabulary& vocabulary,
                           std::string_view file) {
  std::map<std::string_view, std::size_t> ids;
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id)
    if (const auto [first, is_new] = ids.emplace(vocabulary.tokens[id], id); !is_new)
      raise(ErrorCode::corrupt, message(file, ": tokens ", first->second, " and ", id,
                                        " have the same text, which GGUF does not allow"));

  const auto add = [&](std::string_view name, const auto& value) {
    metadata.add(message("tokenizer.ggml.", name), GgufValue(value));
  };
  add("model", vocabulary.model);
  add("pre", vocabulary.pre);
  add("tokens", vocabulary.tokens);
  std::vector<std::int32_t> types;
  for (const TokenType type : vocabulary.types) types.push_back(std::int32_t(type));
  add("token_type", types);
  if (!vocabulary.scores.empty()) add("scores", vocabulary.scores);
  if (!vocabulary.merges.empty()) add("merges", vocabulary.merges);

  const std::array<std::pair<std::string_view, std::optional<Index>>, 4> ids_by_name{
      {{"bos_token_id", vocabulary.begin},
       {"eos_token_id", vocabulary.end},
       {"unknown_token_id", vocabulary.unknown},
       {"padding_token_id", vocabulary.padding}}};
  for (const auto& [name, id] : ids_by_name)
    if (id) add(name, std::uint32_t(*id));

  add("add_bos_token", vocabulary.add_begin);
  if (vocabulary.model == "llama") add("add_space_prefix", vocabulary.add_space_prefix);
  if (!vocabulary.chat_template.empty())
    metadata.add("tokenizer.chat_template", GgufValue(vocabulary.chat_template));
}

inline GgufVocabulary read_llama2c_vocabulary(const std::string& path, Index size) {
  const auto bytes = read_file(path);
  ByteCursor cursor(path, bytes);
  cursor.number<std::int32_t>("the length of the longest token");
  GgufVocabulary vocabulary{.model = "llama", .pre = "default", .begin = 1, .end = 2, .unknown = 0};
  while (cursor.remaining() > 0) {
    vocabulary.scores.push_back(cursor.number<float>("a score"));
    const auto piece =
        as_text(cursor.take(cursor.number<std::uint32_t>("the length of a token"), "a token"));
    vocabulary.types.push_back(is_byte_piece(piece) ? TokenType::byte : TokenType::normal);
    vocabulary.tokens.push_back(replaced(piece, " ", visible_space));
  }
  if (Index(vocabulary.tokens.size()) != size)
    raise(ErrorCode::invalid_argument,
          message(path, ": has ", vocabulary.tokens.size(), " tokens, the model ", size));

  // The file spells these with the line breaks that llama2.c prints around them.
  constexpr std::array<std::pair<const char*, TokenType>, 3> specials{
      {{"<unk>", TokenType::unknown}, {"<s>", TokenType::control}, {"</s>", TokenType::control}}};
  for (std::size_t id = 0; id < std::min(specials.size(), vocabulary.tokens.size()); ++id) {
    vocabulary.tokens[id] = specials[id].first;
    vocabulary.types[id] = specials[id].second;
  }
  return vocabulary;
}

}  // namespace cafeq::detail
