/// Tokens that end a text by what they are called. Files name one or two of them; models of
/// conversations have more, and llama.cpp knows them by name.
#pragma once

#include <algorithm>
#include <array>
#include <string_view>

#include "cafeq/io/vocabulary.hpp"

namespace cafeq::detail {

/// Whether a token of that name ends a text or a turn, in llama.cpp too.
inline bool is_end_name(std::string_view token) noexcept {
  constexpr std::array<std::string_view, 33> names{"</s>",
                                                   "<eos>",
                                                   "[EOS]",
                                                   "<|endoftext|>",
                                                   "<|end_of_text|>",
                                                   "<\uff5cend\u2581of\u2581sentence\uff5c>",
                                                   "<|im_end|>",
                                                   "<|eot_id|>",
                                                   "<|eom_id|>",
                                                   "<end_of_turn>",
                                                   "<turn|>",
                                                   "<|end|>",
                                                   "<|return|>",
                                                   "<|call|>",
                                                   "<|calls|>",
                                                   "<|flush|>",
                                                   "<EOT>",
                                                   "_<EOT>",
                                                   "[EOT]",
                                                   "<end_of_utterance>",
                                                   "<|tool_response>",
                                                   "<|fim_pad|>",
                                                   "<fim-pad>",
                                                   "<fim_pad>",
                                                   "<PAD>",
                                                   "[PAD]",
                                                   "<|fim_repo|>",
                                                   "<|repo_name|>",
                                                   "<fim-repo>",
                                                   "<REPO>",
                                                   "<reponame>",
                                                   "[e~[",
                                                   "<|file_sep|>"};
  return std::find(names.begin(), names.end(), token) != names.end();
}

inline void add_end(Vocabulary& vocabulary, Index id) {
  auto& ends = vocabulary.ends;
  if (id < Index(vocabulary.tokens.size()) && std::find(ends.begin(), ends.end(), id) == ends.end())
    ends.push_back(id);
}

/// Adds `end` and the tokens that are called so, unless they are parts of a text. What ends a text
/// is not found in one, so that they become control tokens. Where there is no `end`, the first one
/// is.
inline void add_named_ends(Vocabulary& vocabulary) {
  if (vocabulary.end) add_end(vocabulary, *vocabulary.end);
  // A model of "harmony" ends messages with <|end|>, and turns with <|return|> and <|call|>.
  const auto& tokens = vocabulary.tokens;
  const bool harmony = std::find(tokens.begin(), tokens.end(), "<|return|>") != tokens.end();
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    TokenType& type = vocabulary.types[id];
    if (type != TokenType::control && type != TokenType::user_defined) continue;
    if (!is_end_name(tokens[id]) || (harmony && tokens[id] == "<|end|>")) continue;
    type = TokenType::control;
    add_end(vocabulary, Index(id));
  }
  if (!vocabulary.end && !vocabulary.ends.empty()) vocabulary.end = vocabulary.ends.front();
}

}  // namespace cafeq::detail
