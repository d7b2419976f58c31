/// Texts as token lists, to judge a model by.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "cafeq/io/file.hpp"
#include "cafeq/io/json.hpp"
#include "generate.hpp"
#include "tokenizer.hpp"

namespace engine {

/// As many texts as there are, of so many tokens at most.
struct TextLimits {
  Index count = 0;  ///< 0: all
  Index length = 1024;
};

namespace detail {

/// A text without the tokens that the vocabulary puts around it.
inline Tokens bare(const Tokenizer& tokenizer, std::string_view text) {
  Tokens tokens = tokenizer.encode(text, false);
  const auto& vocabulary = tokenizer.vocabulary();
  if (vocabulary.add_begin && vocabulary.begin && !tokens.empty() &&
      Index(tokens.front()) == *vocabulary.begin)
    tokens.erase(tokens.begin());
  return tokens;
}

/// Pieces of one text, one behind the other. Each begins with the vocabulary's first token, where
/// it has one. What is left over at the end is left out, unless it is all there is.
inline std::vector<Tokens> windows(const Tokenizer& tokenizer, std::string_view text,
                                   const TextLimits& limits) {
  Tokens start;
  if (const auto begin = tokenizer.vocabulary().begin) start.push_back(Token(*begin));
  const Tokens tokens = bare(tokenizer, text);
  const std::size_t step = std::size_t(limits.length) - start.size();

  std::vector<Tokens> result;
  for (std::size_t at = 0; at < tokens.size() && (at == 0 || at + step <= tokens.size()) &&
                           (limits.count == 0 || Index(result.size()) < limits.count);
       at += step) {
    result.push_back(start);
    result.back().insert(result.back().end(), tokens.begin() + std::ptrdiff_t(at),
                         tokens.begin() + std::ptrdiff_t(std::min(tokens.size(), at + step)));
  }
  return result;
}

/// Each line is a JSON string, a text of its own.
inline std::vector<Tokens> lines(const Tokenizer& tokenizer, std::string_view content,
                                 const std::string& path, const TextLimits& limits) {
  std::vector<Tokens> result;
  while (!content.empty() && (limits.count == 0 || Index(result.size()) < limits.count)) {
    const std::string_view line = content.substr(0, content.find('\n'));
    content.remove_prefix(std::min(content.size(), line.size() + 1));
    const auto json =
        cafeq::detail::parse_json(line, cafeq::message(path, ", line ", result.size() + 1));
    if (!json.is_string())
      raise(cafeq::ErrorCode::invalid_argument,
            cafeq::message(path, ": line ", result.size() + 1, " is not a JSON string"));
    result.push_back(tokenizer.encode(json.get<std::string>()));
  }
  return result;
}

}  // namespace detail

/// Texts from a file: plain text, which is cut into windows of `length` tokens, its lines ended by
/// \n however they end in the file; or, where its name
/// ends in .jsonl, lines of JSON strings, each a text that is cut to that length. Raises io for
/// files that cannot be read, invalid_argument for lines that are no strings.
inline std::vector<Tokens> read_texts(const std::string& path, const Tokenizer& tokenizer,
                                      const TextLimits& limits) {
  const auto bytes = cafeq::read_file(path);
  const std::string_view content(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (!path.ends_with(".jsonl"))
    return detail::windows(tokenizer, cafeq::detail::replaced(content, "\r\n", "\n"), limits);
  std::vector<Tokens> texts = detail::lines(tokenizer, content, path, limits);
  for (Tokens& text : texts) text.resize(std::min(text.size(), std::size_t(limits.length)));
  return texts;
}

/// Lists of tokens from a JSON file.
inline std::vector<Tokens> read_tokens(const std::string& path) {
  const auto json = cafeq::detail::read_json(path);
  try {
    return json.get<std::vector<Tokens>>();
  } catch (const cafeq::detail::Json::exception& error) {
    raise(cafeq::ErrorCode::invalid_argument,
          cafeq::message(path, ": is no list of lists of tokens: ", error.what()));
  }
}

}  // namespace engine
