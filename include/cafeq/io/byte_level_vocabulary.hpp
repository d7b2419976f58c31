/// Byte-level tokenizers, whose tokens spell bytes as visible characters and are merged by rank.
///
/// GGUF takes their merges as they are. How a text is cut ahead of merging is not written into the
/// file: llama.cpp has a name for each way that it knows, and only these can be written.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cafeq/io/gguf_vocabulary.hpp"
#include "cafeq/io/json.hpp"
#include "cafeq/io/tokenizer_file.hpp"

namespace cafeq::detail {

inline bool is_byte_level(const TokenizerFile& file) {
  bool byte_level = false;
  for (const Json* part : file.parts("pre_tokenizer", "pretokenizers"))
    byte_level |= type_of_part(*part) == "ByteLevel";
  return byte_level;
}

/// The ways in which a tokenizer cuts texts, one after the other: a pattern, or one of the words
/// "gpt-2" and "digits"; an empty one for what is not known.
inline std::vector<std::string_view> cuts_of(const TokenizerFile& file) {
  std::vector<std::string_view> cuts;
  for (const Json* part : file.parts("pre_tokenizer", "pretokenizers")) {
    const Json* pattern = find_member(*part, "pattern");
    const std::string* regex = pattern == nullptr ? nullptr : find_string(*pattern, "Regex");
    const std::string* behavior = find_string(*part, "behavior");
    if (type_of_part(*part) == "ByteLevel" && !flag_of(*part, "add_prefix_space", true)) {
      if (flag_of(*part, "use_regex", true)) cuts.push_back("gpt-2");
    } else if (type_of_part(*part) == "Digits" && flag_of(*part, "individual_digits", false)) {
      cuts.push_back("digits");
    } else if (regex != nullptr && behavior != nullptr && *behavior == "Isolated" &&
               !flag_of(*part, "invert", false)) {
      cuts.push_back(*regex);
    } else {
      cuts.push_back({});
    }
  }
  return cuts;
}

/// llama.cpp's name for the way in which texts are cut. Raises unsupported where it has none.
inline std::string name_of_cutting(const TokenizerFile& file) {
  constexpr std::string_view llama3 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
      R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  constexpr std::string_view qwen2 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
      R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const auto cuts = cuts_of(file);

  // Whether a piece that is a token as a whole is taken without merging.
  const bool whole = flag_of(file.model(), "ignore_merges", false);
  if (cuts == std::vector<std::string_view>{llama3}) return whole ? "llama-bpe" : "dbrx";
  if (!whole && cuts == std::vector<std::string_view>{qwen2}) return "qwen2";
  if (!whole && cuts == std::vector<std::string_view>{"gpt-2"}) return "gpt-2";
  if (!whole && cuts == std::vector<std::string_view>{"digits", "gpt-2"}) return "smollm";

  std::string parts;
  for (const Json* part : file.parts("pre_tokenizer", "pretokenizers")) parts += printable(*part);
  file.refuse(
      message("how it cuts texts is none of the ways that are known as llama.cpp's: ", parts));
}

/// Fills in all that is particular to byte-level tokenizers.
inline void make_byte_level(const TokenizerFile& file, GgufVocabulary& vocabulary) {
  for (const Json* part : file.parts("normalizer", "normalizers"))
    if (type_of_part(*part) != "NFC")
      file.refuse(message("normalizer ", printable(*part), " is none that llama.cpp has"));

  vocabulary.model = "gpt2";
  vocabulary.pre = name_of_cutting(file);
  for (const auto& [left, right] : file.merges())
    vocabulary.merges.push_back(message(left, " ", right));
  vocabulary.add_begin = false;
}

}  // namespace cafeq::detail
