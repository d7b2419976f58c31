/// The two files that tokenizers come in: llama2.c's tokenizer.bin, and tokenizer.json with
/// byte-pair encoding.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "file.hpp"
#include "tokenizer.hpp"

namespace engine {

namespace detail {

/// The byte that "<0x0A>" stands for.
inline std::optional<unsigned char> fallback_byte(std::string_view piece) {
  constexpr std::string_view digits = "0123456789ABCDEF";
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return std::nullopt;
  const std::size_t high = digits.find(piece[3]), low = digits.find(piece[4]);
  if (high == digits.npos || low == digits.npos) return std::nullopt;
  return static_cast<unsigned char>(16 * high + low);
}

/// Takes pieces like "<0x0A>" for bytes. They stand for text, but no text is one.
inline void add_fallback_bytes(Tokenizer& tokenizer) {
  std::size_t count = 0;
  for (Token token = 0; token < tokenizer.pieces.size(); ++token) {
    std::string& piece = tokenizer.pieces[token];
    const auto byte = fallback_byte(piece);
    if (!byte) continue;
    tokenizer.tokens.erase(piece);
    piece = std::string(1, char(*byte));
    tokenizer.bytes[*byte] = token;
    ++count;
  }
  if (count != 256) fail("has tokens for " + std::to_string(count) + " of the 256 bytes");
}

/// The length of the longest piece, then a score and a piece for each token; of two pieces that can
/// be merged, those go first that make the piece of the highest score.
inline Tokenizer parse_llama2c_tokenizer(const std::string& content, std::size_t vocabulary) {
  constexpr Token controls = 3;  // unknown, start, end
  std::size_t offset = sizeof(std::int32_t);
  const auto take = [&](void* to, std::size_t bytes) {
    if (offset > content.size() || bytes > content.size() - offset)
      fail("ends before the " + std::to_string(vocabulary) + " tokens of the model");
    std::memcpy(to, content.data() + offset, bytes);
    offset += bytes;
  };

  Tokenizer tokenizer;
  std::vector<float> scores(vocabulary);
  for (Token token = 0; token < vocabulary; ++token) {
    std::uint32_t length = 0;
    take(&scores[token], sizeof(float));
    take(&length, sizeof length);
    if (length > content.size())
      fail("token " + std::to_string(token) + " is said to have " + std::to_string(length) +
           " bytes");
    std::string piece(length, '\0');
    take(piece.data(), length);
    if (token >= controls) tokenizer.tokens.emplace(piece, token);
    tokenizer.pieces.push_back(token < controls ? "" : piece);
  }
  if (offset != content.size())
    fail("has more than the " + std::to_string(vocabulary) + " tokens of the model");

  add_fallback_bytes(tokenizer);
  for (const auto& [piece, token] : tokenizer.tokens)
    for (std::size_t cut = 1; cut < piece.size(); ++cut) {
      const auto left = tokenizer.tokens.find(piece.substr(0, cut)),
                 right = tokenizer.tokens.find(piece.substr(cut));
      if (left == tokenizer.tokens.end() || right == tokenizer.tokens.end()) continue;
      tokenizer.merges[Tokenizer::key(left->second, right->second)] = {-double(scores[token]),
                                                                       token};
    }
  tokenizer.prefix = Tokenizer::Prefix::all;
  tokenizer.start = {1};
  return tokenizer;
}

/// Byte-level vocabularies write each byte as a character that can be seen: itself, or one from 256
/// on.
inline std::array<std::string, 256> visible_bytes() {
  std::array<std::string, 256> result;
  unsigned next = 256;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool visible = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
    const unsigned code = visible ? byte : next++;
    result[byte] = code < 128 ? std::string(1, char(code))
                              : std::string{char(0xc0 | code >> 6), char(0x80 | (code & 0x3f))};
  }
  return result;
}

/// Undoes that; a piece with other characters stays as it is.
inline std::string from_visible(const std::string& piece,
                                const std::unordered_map<std::string, char>& bytes) {
  std::string result;
  for (std::string_view rest = piece; !rest.empty(); rest.remove_prefix(character_length(rest))) {
    const auto found = bytes.find(std::string(rest.substr(0, character_length(rest))));
    if (found == bytes.end()) return piece;
    result.push_back(found->second);
  }
  return result;
}

/// The parts of something that may be a sequence of them.
inline std::vector<Json> parts(const Json& json, const char* list) {
  if (json.is_null()) return {};
  if (json.at("type") != "Sequence") return {json};
  return json.at(list).get<std::vector<Json>>();
}

/// How a text is changed and cut before merging. Whatever is not known is refused, since it would
/// change the tokens.
inline void parse_preparation(const Json& root, Tokenizer& tokenizer) {
  constexpr std::string_view llama3 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
      R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  bool spaces = false;  // whether they become visible
  for (const Json& part : parts(root.value("normalizer", Json()), "normalizers")) {
    const std::string type = part.at("type");
    if (type == "Prepend" && part.at("prepend") == visible_space)
      tokenizer.prefix = Tokenizer::Prefix::all;
    else if (type == "Replace" && part.at("pattern").value("String", "") == " " &&
             part.at("content") == visible_space)
      spaces = true;
    else fail("normalizer " + part.dump() + " is not known");
  }
  for (const Json& part : parts(root.value("pre_tokenizer", Json()), "pretokenizers")) {
    const std::string type = part.at("type");
    if (type == "ByteLevel" && !part.value("add_prefix_space", true)) {
      tokenizer.bytes_only = true;
      if (part.value("use_regex", true)) tokenizer.splitters.push_back(split_gpt2);
    } else if (type == "Split" && part.at("pattern").value("Regex", "") == llama3 &&
               part.at("behavior") == "Isolated" && !part.value("invert", false)) {
      tokenizer.splitters.push_back(split_llama3);
    } else if (type == "Digits" && part.value("individual_digits", false)) {
      tokenizer.splitters.push_back(split_digits);
    } else if (type == "Metaspace" && part.value("replacement", "") == visible_space &&
               !part.value("split", true)) {
      const std::string scheme = part.value("prepend_scheme", "always");
      tokenizer.prefix = scheme == "always"  ? Tokenizer::Prefix::all
                         : scheme == "first" ? Tokenizer::Prefix::first
                                             : Tokenizer::Prefix::none;
      tokenizer.prefix_twice = false;
      spaces = true;
    } else {
      fail("pre-tokenizer " + part.dump() + " is not known");
    }
  }
  const bool sound = tokenizer.bytes_only ? !spaces && tokenizer.prefix == Tokenizer::Prefix::none
                                          : spaces && tokenizer.splitters.empty();
  if (!sound) fail("is neither byte-level nor made of pieces with visible spaces");
}

/// The two of "left right" or ["left", "right"].
inline std::pair<std::string, std::string> halves(const Json& merge) {
  if (!merge.is_string()) return {merge.at(0).get<std::string>(), merge.at(1).get<std::string>()};
  const std::string both = merge.get<std::string>();
  const std::size_t space = both.find(' ');
  if (space == both.npos) fail("merge '" + both + "' is not one of two pieces");
  return {both.substr(0, space), both.substr(space + 1)};
}

using Vocabulary = std::unordered_map<std::string, Token>;

inline Token token_of(const Vocabulary& vocabulary, const std::string& piece) {
  const auto found = vocabulary.find(piece);
  if (found == vocabulary.end()) fail("'" + piece + "' is not in the vocabulary");
  return found->second;
}

inline void set_piece(Tokenizer& tokenizer, Token token, const std::string& piece) {
  if (token > 1 << 24) fail("token " + std::to_string(token) + " is out of range");
  if (token >= tokenizer.pieces.size()) tokenizer.pieces.resize(token + 1);
  tokenizer.pieces[token] = piece;
}

inline void parse_vocabulary(const Json& model, Tokenizer& tokenizer) {
  const auto vocabulary = model.at("vocab").get<Vocabulary>();
  for (std::size_t rank = 0; const Json& merge : model.at("merges")) {
    const auto [left, right] = halves(merge);
    const auto key = Tokenizer::key(token_of(vocabulary, left), token_of(vocabulary, right));
    tokenizer.merges.emplace(key, Merge{double(rank++), token_of(vocabulary, left + right)});
  }

  const std::array<std::string, 256> visible = visible_bytes();
  std::unordered_map<std::string, char> bytes;
  for (std::size_t byte = 0; byte < 256; ++byte) bytes.emplace(visible[byte], char(byte));
  for (const auto& [name, token] : vocabulary) {
    const std::string piece = tokenizer.bytes_only ? from_visible(name, bytes) : with_spaces(name);
    tokenizer.tokens.emplace(piece, token);
    set_piece(tokenizer, token, piece);
  }
  if (!tokenizer.bytes_only) return add_fallback_bytes(tokenizer);
  for (std::size_t byte = 0; byte < 256; ++byte)
    tokenizer.bytes[byte] = token_of(vocabulary, visible[byte]);
}

inline void parse_added_tokens(const Json& entries, Tokenizer& tokenizer) {
  for (const Json& entry : entries) {
    const std::string content = entry.at("content");
    const Token token = entry.at("id");
    if (content.empty()) fail("added token " + std::to_string(token) + " is empty");
    tokenizer.added.emplace_back(content, token);
    set_piece(tokenizer, token, entry.value("special", false) ? "" : content);
  }
  std::stable_sort(tokenizer.added.begin(), tokenizer.added.end(),
                   [](const auto& a, const auto& b) { return a.first.size() > b.first.size(); });
}

/// The tokens that a template puts before a text.
inline void parse_start(const Json& processor, Tokenizer& tokenizer) {
  for (const Json& part : parts(processor, "processors")) {
    if (part.at("type") != "TemplateProcessing") continue;
    for (const Json& item : part.at("single")) {
      if (!item.contains("SpecialToken")) break;
      const std::string name = item["SpecialToken"].at("id");
      for (const Json& token : part.at("special_tokens").at(name).at("ids"))
        tokenizer.start.push_back(token);
    }
  }
}

inline Tokenizer parse_tokenizer_json(const Json& root) {
  const Json& model = root.at("model");
  if (model.value("type", "BPE") != "BPE")
    fail("model " + model["type"].dump() + " is not known, only BPE is");
  Tokenizer tokenizer;
  tokenizer.whole_pieces = model.value("ignore_merges", false);
  parse_preparation(root, tokenizer);
  parse_vocabulary(model, tokenizer);
  parse_added_tokens(root.value("added_tokens", Json::array()), tokenizer);
  parse_start(root.value("post_processor", Json()), tokenizer);
  return tokenizer;
}

}  // namespace detail

/// Throws unless the file has as many tokens as the model.
inline Tokenizer load_llama2c_tokenizer(const std::string& path, std::size_t vocabulary) {
  const std::string content = read_text(path);
  return in_file(path, [&] { return detail::parse_llama2c_tokenizer(content, vocabulary); });
}

inline Tokenizer load_tokenizer_json(const std::string& path) {
  return read_json(path, detail::parse_tokenizer_json);
}

}  // namespace engine
