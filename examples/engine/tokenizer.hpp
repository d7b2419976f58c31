/// Text to tokens and back by byte-pair encoding (Sennrich, Haddow, Birch: "Neural Machine
/// Translation of Rare Words with Subword Units", ACL 2016).
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <limits>
#include <queue>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "model.hpp"
#include "pre_tokenizer.hpp"

namespace engine {

/// What vocabularies that are not byte-level write for a space.
inline constexpr std::string_view visible_space = "\u2581";

inline std::string with_spaces(std::string text) {
  for (std::size_t at = 0; (at = text.find(visible_space, at)) != text.npos;)
    text.replace(at, visible_space.size(), " ");
  return text;
}

/// What two neighbours become; the lowest rank of a piece is merged first, the leftmost among
/// equals.
struct Merge {
  double rank;
  Token result;
};

/// A vocabulary, and how the tokens of a text are found. The loaders fill it.
struct Tokenizer {
  enum class Prefix { none, first, all };

  /// The bytes that each token stands for; nothing for those that only control.
  std::vector<std::string> pieces;
  std::unordered_map<std::string, Token> tokens;
  std::unordered_map<std::uint64_t, Merge> merges;  ///< by key(left, right)
  std::array<Token, 256> bytes{};                   ///< the token of each byte
  bool bytes_only = false;    ///< pieces start as bytes, otherwise as characters and, where one has
                              ///< no token, as its bytes
  bool whole_pieces = false;  ///< a piece that is a token needs no merges
  std::vector<Splitter> splitters;
  Prefix prefix = Prefix::none;  ///< a space goes before a text: before what starts it, or also
                                 ///< before what follows an added token
  bool prefix_twice = true;      ///< even where there is one
  /// Found in a text before anything else, the longest first.
  std::vector<std::pair<std::string, Token>> added;
  std::vector<Token> start;  ///< goes before every text

  static std::uint64_t key(Token left, Token right) { return std::uint64_t(left) << 32 | right; }

  std::vector<Token> encode(std::string_view text) const;
  std::string decode(std::span<const Token> tokens) const;

 private:
  void encode_plain(std::string text, std::vector<Token>& to) const;
  std::vector<Token> symbols(std::string_view piece) const;
  std::vector<Token> merge(std::vector<Token> piece) const;
};

inline std::vector<Token> Tokenizer::encode(std::string_view text) const {
  std::vector<Token> result = start;
  std::size_t begin = 0;
  const auto finish = [&](std::size_t end) {
    if (begin == end) return;
    const bool spaced = (prefix == Prefix::all || (prefix == Prefix::first && begin == 0)) &&
                        (prefix_twice || text[begin] != ' ');
    encode_plain((spaced ? " " : "") + std::string(text.substr(begin, end - begin)), result);
  };
  for (std::size_t at = 0; at < text.size();) {
    const auto found = std::find_if(added.begin(), added.end(), [&](const auto& entry) {
      return text.substr(at, entry.first.size()) == entry.first;
    });
    if (found == added.end()) {
      ++at;
      continue;
    }
    finish(at);
    result.push_back(found->second);
    begin = at += found->first.size();
  }
  finish(text.size());
  return result;
}

inline void Tokenizer::encode_plain(std::string text, std::vector<Token>& to) const {
  if (!bytes_only) text = with_spaces(std::move(text));
  for (const std::string_view piece : split(text, splitters)) {
    const auto known = whole_pieces ? tokens.find(std::string(piece)) : tokens.end();
    if (known != tokens.end()) {
      to.push_back(known->second);
      continue;
    }
    const std::vector<Token> merged = merge(symbols(piece));
    to.insert(to.end(), merged.begin(), merged.end());
  }
}

/// What a piece is before anything is merged.
inline std::vector<Token> Tokenizer::symbols(std::string_view piece) const {
  std::vector<Token> result;
  while (!piece.empty()) {
    const std::string_view character = piece.substr(0, bytes_only ? 1 : character_length(piece));
    const auto known = bytes_only ? tokens.end() : tokens.find(std::string(character));
    if (known != tokens.end()) result.push_back(known->second);
    else
      for (const char byte : character) result.push_back(bytes[static_cast<unsigned char>(byte)]);
    piece.remove_prefix(character.size());
  }
  return result;
}

/// Merges neighbours for as long as any can be. Time O(n log n): pairs wait in a queue, and those
/// that a merge has broken are skipped.
inline std::vector<Token> Tokenizer::merge(std::vector<Token> piece) const {
  constexpr Token gone = std::numeric_limits<Token>::max();
  struct Pair {
    double rank;
    std::size_t left;
    Token left_token, right_token, result;
    bool operator>(const Pair& other) const {
      return std::tie(rank, left) > std::tie(other.rank, other.left);
    }
  };
  std::vector<std::size_t> next(piece.size()), previous(piece.size());
  std::priority_queue<Pair, std::vector<Pair>, std::greater<>> queue;
  const auto consider = [&](std::size_t left, std::size_t right) {
    if (left >= piece.size() || right >= piece.size()) return;
    const auto found = merges.find(key(piece[left], piece[right]));
    if (found != merges.end())
      queue.push({found->second.rank, left, piece[left], piece[right], found->second.result});
  };
  for (std::size_t i = 0; i < piece.size(); ++i) {
    next[i] = i + 1;
    previous[i] = i - 1;
    consider(i, i + 1);
  }
  while (!queue.empty()) {
    const Pair pair = queue.top();
    queue.pop();
    const std::size_t right = next[pair.left];
    if (right >= piece.size() || piece[pair.left] != pair.left_token ||
        piece[right] != pair.right_token)
      continue;
    piece[pair.left] = pair.result;
    piece[right] = gone;
    next[pair.left] = next[right];
    if (next[pair.left] < piece.size()) previous[next[pair.left]] = pair.left;
    consider(previous[pair.left], pair.left);
    consider(pair.left, next[pair.left]);
  }
  std::erase(piece, gone);
  return piece;
}

inline std::string Tokenizer::decode(std::span<const Token> ids) const {
  std::string text;
  for (const Token id : ids)
    if (id < pieces.size()) text += pieces[id];  // a model may know more tokens
  if (prefix != Prefix::none && !text.empty() && text[0] == ' ') text.erase(0, 1);
  return text;
}

}  // namespace engine
