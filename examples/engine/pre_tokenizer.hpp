/// How tokenizers cut a text into pieces before they look for tokens: the patterns of GPT-2 and
/// Llama 3 without a regular-expression engine.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "unicode.hpp"

namespace engine {

/// How many characters of a text that is not empty its first piece has.
using Splitter = std::size_t (*)(std::u32string_view text);

/// The bytes of the character at the front: a byte and those that continue it.
inline std::size_t character_length(std::string_view text) {
  std::size_t length = 1;
  while (length < 4 && length < text.size() &&
         (static_cast<unsigned char>(text[length]) & 0xc0) == 0x80)
    ++length;
  return length;
}

namespace detail {

/// The code point of one character's bytes; a replacement character for bytes that are not UTF-8.
inline char32_t code_point(std::string_view character) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(character[i]); };
  if (byte(0) < 0x80 && character.size() == 1) return byte(0);
  const std::size_t length = byte(0) >= 0xf0 ? 4 : byte(0) >= 0xe0 ? 3 : 2;
  if (byte(0) < 0xc0 || character.size() != length) return 0xfffd;
  char32_t code = byte(0) & (0x7fu >> length);
  for (std::size_t i = 1; i < length; ++i) code = code << 6 | (byte(i) & 0x3fu);
  return code;
}

inline bool is_newline(char32_t c) { return c == '\r' || c == '\n'; }
inline bool is_other(char32_t c) { return !is_space(c) && !is_letter(c) && !is_number(c); }

/// Where characters of a kind that start at `begin` end.
template <class Kind>
std::size_t end_of(std::u32string_view text, std::size_t begin, Kind&& kind,
                   std::size_t limit = std::u32string_view::npos) {
  std::size_t end = begin;
  while (end < text.size() && end - begin < limit && kind(text[end])) ++end;
  return end;
}

/// 's|'t|'re|'ve|'m|'ll|'d; 0 where none is at the front.
inline std::size_t contraction(std::u32string_view text, bool any_case) {
  if (text[0] != '\'') return 0;
  std::u32string start(text.substr(1, 2));
  for (char32_t& c : start)
    if (any_case && c >= 'A' && c <= 'Z') c += 'a' - 'A';
  for (const std::u32string_view ending : {U"s", U"t", U"re", U"ve", U"m", U"ll", U"d"})
    if (start.substr(0, ending.size()) == ending) return 1 + ending.size();
  return 0;
}

/// \s+(?!\S)|\s+: spaces, without the last one where something follows that it belongs to.
inline std::size_t spaces(std::u32string_view text) {
  const std::size_t end = end_of(text, 0, is_space);
  return end < text.size() && end > 1 ? end - 1 : end;
}

}  // namespace detail

/// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
inline std::size_t split_gpt2(std::u32string_view text) {
  using namespace detail;
  if (const std::size_t length = contraction(text, false)) return length;
  const std::size_t begin = text[0] == ' ' ? 1 : 0;
  for (const auto kind : {is_letter, is_number, is_other})
    if (const std::size_t end = end_of(text, begin, kind); end > begin) return end;
  return spaces(text);
}

/// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
/// ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
inline std::size_t split_llama3(std::u32string_view text) {
  using namespace detail;
  if (const std::size_t length = contraction(text, true)) return length;
  const std::size_t word = is_newline(text[0]) || is_letter(text[0]) || is_number(text[0]) ? 0 : 1;
  if (const std::size_t end = end_of(text, word, is_letter); end > word) return end;
  if (const std::size_t end = end_of(text, 0, is_number, 3); end > 0) return end;
  const std::size_t mark = text[0] == ' ' ? 1 : 0;
  if (const std::size_t end = end_of(text, mark, is_other); end > mark)
    return end_of(text, end, is_newline);
  for (std::size_t end = end_of(text, 0, is_space); end > 0; --end)
    if (is_newline(text[end - 1])) return end;
  return spaces(text);
}

/// Each number by itself.
inline std::size_t split_digits(std::u32string_view text) {
  return is_number(text[0]) ? 1 : detail::end_of(text, 0, [](char32_t c) { return !is_number(c); });
}

/// The pieces of a text that each splitter in turn leaves: together they are the text.
inline std::vector<std::string_view> split(std::string_view text,
                                           const std::vector<Splitter>& splitters) {
  std::u32string codes;
  std::vector<std::size_t> bytes{0};  // where each character begins
  while (bytes.back() < text.size()) {
    const std::string_view rest = text.substr(bytes.back());
    const std::size_t length = character_length(rest);
    codes.push_back(detail::code_point(rest.substr(0, length)));
    bytes.push_back(bytes.back() + length);
  }
  std::vector<std::size_t> bounds{0, codes.size()};
  for (const Splitter splitter : splitters) {
    std::vector<std::size_t> finer{0};
    for (std::size_t i = 1; i < bounds.size(); ++i)
      while (finer.back() < bounds[i])
        finer.push_back(finer.back() + splitter(std::u32string_view(codes).substr(
                                           finer.back(), bounds[i] - finer.back())));
    bounds = std::move(finer);
  }
  std::vector<std::string_view> pieces;
  for (std::size_t i = 1; i < bounds.size(); ++i)
    pieces.push_back(text.substr(bytes[bounds[i - 1]], bytes[bounds[i]] - bytes[bounds[i - 1]]));
  return pieces;
}

}  // namespace engine
