/// How tokenizers cut a text into pieces before they look for tokens: patterns that are regular
/// expressions elsewhere, by the names that llama.cpp gives them.
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/core/error.hpp"
#include "unicode.hpp"

namespace engine {

/// How many characters of a text that is not empty its first piece has.
using Splitter = std::size_t (*)(std::u32string_view text);

namespace detail {

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

/// [^\r\n\p{L}\p{N}]?
inline std::size_t begin_of_word(std::u32string_view text) {
  return is_newline(text[0]) || is_letter(text[0]) || is_number(text[0]) ? 0 : 1;
}

///  ?[^\s\p{L}\p{N}]+; 0 where none is at the front.
inline std::size_t marks(std::u32string_view text) {
  const std::size_t begin = text[0] == ' ' ? 1 : 0, end = end_of(text, begin, is_other);
  return end > begin ? end : 0;
}

/// \s*[\r\n]+|\s+(?!\S)|\s+
inline std::size_t lines_and_spaces(std::u32string_view text) {
  for (std::size_t end = end_of(text, 0, is_space); end > 0; --end)
    if (is_newline(text[end - 1])) return end;
  return spaces(text);
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

/// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}|
/// ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
template <std::size_t digits>
std::size_t split_llama3(std::u32string_view text) {
  using namespace detail;
  if (const std::size_t length = contraction(text, true)) return length;
  const std::size_t word = begin_of_word(text);
  if (const std::size_t end = end_of(text, word, is_letter); end > word) return end;
  if (const std::size_t end = end_of(text, 0, is_number, digits); end > 0) return end;
  if (const std::size_t end = marks(text); end > 0) return end_of(text, end, is_newline);
  return lines_and_spaces(text);
}

/// [^\r\n\p{L}\p{N}]?UPPER*LOWER+|[^\r\n\p{L}\p{N}]?UPPER+LOWER*|\p{N}{1,digits}|
/// ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+, with contractions behind words or
/// without. As in llama.cpp letters beyond ASCII are of both cases, and marks are no letters.
template <std::size_t digits, bool contractions>
std::size_t split_cases(std::u32string_view text) {
  using namespace detail;
  const auto upper = [](char32_t c) { return is_letter(c) && !(c >= 'a' && c <= 'z'); };
  const auto lower = [](char32_t c) { return is_letter(c) && !(c >= 'A' && c <= 'Z'); };
  const std::size_t word = begin_of_word(text);
  const std::size_t capitals = end_of(text, word, upper);
  std::size_t end = end_of(text, capitals, lower);
  if (end == capitals) {
    // The last of them that may be a small letter ends the word, if there is one.
    while (end > word && !lower(text[end - 1])) --end;
    if (end == word) end = capitals;
  }
  if (end > word)
    return end + (contractions && end < text.size() ? contraction(text.substr(end), true) : 0);
  if (const std::size_t number = end_of(text, 0, is_number, digits); number > 0) return number;
  if (const std::size_t mark = marks(text); mark > 0)
    return end_of(text, mark, [](char32_t c) { return is_newline(c) || c == '/'; });
  return lines_and_spaces(text);
}

/// Lines and the breaks between them.
inline std::size_t split_lines(std::u32string_view text) {
  const bool breaks = text[0] == '\n';
  return detail::end_of(text, 0, [&](char32_t c) { return (c == '\n') == breaks; });
}

/// Each number by itself.
inline std::size_t split_digits(std::u32string_view text) {
  return is_number(text[0]) ? 1 : detail::end_of(text, 0, [](char32_t c) { return !is_number(c); });
}

/// Calls f with the pieces of a text that each splitter in turn leaves: together they are the text.
template <class F>
void for_pieces(std::string_view text, const std::vector<Splitter>& splitters, F&& f) {
  if (splitters.empty()) {
    if (!text.empty()) f(text);
    return;
  }
  std::u32string codes;
  std::vector<std::size_t> bytes{0};  // where each character begins
  while (bytes.back() < text.size()) {
    const std::string_view rest = text.substr(bytes.back());
    const std::size_t length = character_length(rest);
    codes.push_back(code_point(rest.substr(0, length)));
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
  for (std::size_t i = 1; i < bounds.size(); ++i)
    f(text.substr(bytes[bounds[i - 1]], bytes[bounds[i]] - bytes[bounds[i - 1]]));
}

/// Calls f with the words of a text: spaces and what follows them, up to the next spaces that are
/// not `joined` to the byte ahead of them.
template <class F>
void for_words(std::string_view text, const std::array<bool, 256>& joined, F&& f) {
  std::size_t begin = 0;
  for (std::size_t at = 1; at < text.size(); ++at)
    if (text[at] == ' ' && text[at - 1] != ' ' &&
        !joined[static_cast<unsigned char>(text[at - 1])]) {
      f(text.substr(begin, at - begin));
      begin = at;
    }
  if (begin < text.size()) f(text.substr(begin));
}

struct NamedSplitters {
  std::string_view name;
  std::vector<Splitter> splitters;
};

/// Raises unsupported for a name that is not in the list.
inline std::vector<Splitter> splitters_called(std::string_view name,
                                              const std::vector<NamedSplitters>& all) {
  std::string known;
  for (const auto& [one, splitters] : all) {
    if (one == name) return splitters;
    known += (known.empty() ? "" : ", ") + std::string(one);
  }
  cafeq::raise(cafeq::ErrorCode::unsupported,
               cafeq::message("texts are cut by the pre-tokenizer '", name,
                              "', which is not known; known are ", known));
}

/// Of byte-level vocabularies.
inline std::vector<Splitter> splitters_of_bytes(std::string_view name) {
  const std::vector<Splitter> gpt2{split_gpt2}, smollm{split_digits, split_gpt2},
      llama3{split_llama3<3>}, qwen2{split_llama3<1>}, tekken{split_cases<1, false>},
      gpt4o{split_cases<3, true>};
  return splitters_called(name, {{"gpt-2", gpt2},
                                 {"smollm", smollm},
                                 {"llama-bpe", llama3},
                                 {"qwen2", qwen2},
                                 {"tekken", tekken},
                                 {"gpt-4o", gpt4o},
                                 {"dbrx", llama3},
                                 {"smaug-bpe", llama3},
                                 {"llama3", llama3},
                                 {"llama-v3", llama3},
                                 {"falcon3", llama3},
                                 {"pixtral", llama3},
                                 {"lfm2", llama3},
                                 {"glm4", llama3},
                                 {"chatglm-bpe", llama3},
                                 {"stablelm2", qwen2},
                                 {"deepseek-r1-qwen", qwen2},
                                 {"megrez", qwen2},
                                 {"hunyuan", qwen2},
                                 {"llama4", gpt4o},
                                 {"phi-2", gpt2},
                                 {"mpt", gpt2},
                                 {"olmo", gpt2},
                                 {"jais", gpt2},
                                 {"exaone4", gpt2},
                                 {"trillion", gpt2},
                                 {"starcoder", smollm},
                                 {"refact", smollm},
                                 {"command-r", smollm},
                                 {"codeshell", smollm},
                                 {"exaone", smollm},
                                 {"minerva-7b", smollm}});
}

/// Of vocabularies with visible spaces.
inline std::vector<Splitter> splitters_of_pieces(std::string_view name) {
  return splitters_called(name, {{"default", {}}, {"gemma4", {split_lines}}});
}

}  // namespace engine
