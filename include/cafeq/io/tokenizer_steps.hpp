/// What a tokenizer.json does to a text ahead of its model: steps that are named and configured one
/// by one, where a Vocabulary has a few properties. Steps that are not known are refused, since
/// they would change the tokens.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "cafeq/io/json.hpp"
#include "cafeq/io/tokenizer_file.hpp"
#include "cafeq/io/vocabulary.hpp"

namespace cafeq::detail {

/// Reads the kind of vocabulary and how texts are prepared for it. Tokens and merges are complete.
inline void read_steps(const TokenizerFile& file, Vocabulary& vocabulary);

/// A way to cut texts, and llama.cpp's name for it.
struct NamedPattern {
  std::string_view name, pattern;
};

/// The patterns of Split steps.
inline constexpr std::array named_patterns{
    NamedPattern{"llama-bpe", R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
                              R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    NamedPattern{"qwen2", R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
                          R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    NamedPattern{"tekken",
                 R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
                 R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
                 R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    NamedPattern{"gpt-4o",
                 R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
                 R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
                 R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
                 R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
                 R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}};

/// What one step of a byte-level tokenizer cuts by: a name of llama.cpp's or "digits"; empty for
/// what is not known.
inline std::string_view cut_of(const Json& part) {
  if (type_of_part(part) == "Digits" && flag_of(part, "individual_digits", false)) return "digits";
  if (type_of_part(part) == "ByteLevel" && !flag_of(part, "add_prefix_space", true))
    return flag_of(part, "use_regex", true) ? "gpt-2" : "bytes";

  const Json* pattern = find_member(part, "pattern");
  const std::string* regex = pattern == nullptr ? nullptr : find_string(*pattern, "Regex");
  const std::string* behavior = find_string(part, "behavior");
  if (regex == nullptr || behavior == nullptr || *behavior != "Isolated" ||
      flag_of(part, "invert", false))
    return {};
  for (const auto& [name, known] : named_patterns)
    if (*regex == known) return name;
  return {};
}

/// The name for all that cuts a text. Raises unsupported where there is none.
inline std::string name_of_cutting(const TokenizerFile& file) {
  std::vector<std::string_view> cuts;
  const auto parts = file.parts("pre_tokenizer", "pretokenizers");
  for (const Json* part : parts) cuts.push_back(cut_of(*part));

  if (cuts == std::vector<std::string_view>{"gpt-2"}) return "gpt-2";
  if (cuts == std::vector<std::string_view>{"digits", "gpt-2"}) return "smollm";
  if (cuts.size() == 2 && !cuts[0].empty() && cuts[0] != "digits" && cuts[1] == "bytes")
    return std::string(cuts[0]);

  std::string texts, known;
  for (const Json* part : parts) texts += printable(*part);
  for (const auto& [name, pattern] : named_patterns) known += message(", ", name);
  file.refuse(
      message("how it cuts texts has no name: ", texts, "; known are gpt-2, smollm", known));
}

inline void read_byte_level_steps(const TokenizerFile& file, Vocabulary& vocabulary) {
  vocabulary.kind = VocabularyKind::byte_level;
  for (const Json* part : file.parts("normalizer", "normalizers")) {
    if (type_of_part(*part) != "NFC")
      file.refuse(message("normalizer ", printable(*part), " is not known; what is: NFC"));
    vocabulary.nfc = true;
  }
  vocabulary.pre = name_of_cutting(file);
  // llama.cpp has a name of its own for the pattern of Llama 3 without this.
  if (vocabulary.pre == "llama-bpe" && !vocabulary.ignore_merges) vocabulary.pre = "dbrx";
}

/// Whether a step cuts at spaces, which are visible by then.
inline bool cuts_at_invisible_spaces(const Json& part) {
  const Json* pattern = find_member(part, "pattern");
  const std::string* text = pattern == nullptr ? nullptr : find_string(*pattern, "String");
  return type_of_part(part) == "Split" && text != nullptr && *text == " ";
}

/// Whether a merge joins pieces across the beginning of a word, so that cutting there matters.
inline bool merges_words(const Vocabulary& vocabulary) {
  for (const std::string& merge : vocabulary.merges)
    if (std::string_view(merge).substr(merge.find(' ') + 1).starts_with(visible_space)) return true;
  return false;
}

/// Reads how spaces become visible. Raises unsupported where they do not, or where anything else is
/// done to a text.
inline void read_piece_steps(const TokenizerFile& file, Vocabulary& vocabulary) {
  vocabulary.kind = VocabularyKind::pieces;
  vocabulary.pre = "default";
  bool visible = false;
  for (const Json* part : file.parts("normalizer", "normalizers")) {
    const std::string *prepended = find_string(*part, "prepend"),
                      *content = find_string(*part, "content");
    const Json* pattern = find_member(*part, "pattern");
    const std::string* replaced = pattern == nullptr ? nullptr : find_string(*pattern, "String");
    if (type_of_part(*part) == "Prepend" && prepended != nullptr && *prepended == visible_space)
      vocabulary.space_prefix = SpacePrefix::all;
    else if (type_of_part(*part) == "Replace" && replaced != nullptr && *replaced == " " &&
             content != nullptr && *content == visible_space)
      visible = true;
    else file.refuse(message("normalizer ", printable(*part), " is not known"));
  }

  for (const Json* part : file.parts("pre_tokenizer", "pretokenizers")) {
    if (visible && cuts_at_invisible_spaces(*part)) continue;
    if (type_of_part(*part) != "Metaspace")
      file.refuse(message("pre-tokenizer ", printable(*part), " is not known"));
    if (flag_of(*part, "split", true) && merges_words(vocabulary))
      file.refuse(message("pre-tokenizer ", printable(*part),
                          " cuts texts at spaces, which merges of the model reach across"));
    const std::string* scheme = find_string(*part, "prepend_scheme");
    std::string_view prefix = flag_of(*part, "add_prefix_space", true) ? "always" : "never";
    if (scheme != nullptr) prefix = *scheme;
    vocabulary.space_prefix = prefix == "always"  ? SpacePrefix::all
                              : prefix == "first" ? SpacePrefix::first
                                                  : SpacePrefix::none;
    vocabulary.prefix_spaces = false;
    visible = true;
  }
  if (!visible) file.refuse("is neither byte-level nor made of pieces with visible spaces");
}

inline void read_steps(const TokenizerFile& file, Vocabulary& vocabulary) {
  bool byte_level = false;
  for (const Json* part : file.parts("pre_tokenizer", "pretokenizers"))
    byte_level |= type_of_part(*part) == "ByteLevel";
  if (byte_level) read_byte_level_steps(file, vocabulary);
  else read_piece_steps(file, vocabulary);
}

}  // namespace cafeq::detail
