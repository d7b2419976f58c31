/// Byte-pair encoding (Sennrich, Haddow, Birch: "Neural Machine Translation of Rare Words with
/// Subword Units", ACL 2016): neighbours are merged for as long as any can be.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <queue>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cafeq/core/error.hpp"
#include "cafeq/io/vocabulary.hpp"
#include "token_texts.hpp"

namespace engine {

class BytePairs {
 public:
  /// Raises corrupt where a merge is not one of two tokens into a third.
  explicit BytePairs(const cafeq::Vocabulary& vocabulary);

  /// Appends the tokens of a piece of text, whose characters are those of `texts`.
  void encode(const TokenTexts& texts, std::string_view piece, std::vector<Token>& to) const;

 private:
  /// A part of the piece, linked with its neighbours; of no bytes once it is merged away.
  struct Symbol {
    std::size_t begin, size;
    Token token;
    std::size_t previous, next;
  };
  /// What two neighbours become. The lowest rank is merged first, the leftmost among equals.
  struct Merge {
    double rank;
    Token result;
  };
  struct Candidate {
    Merge merge;
    std::size_t left, size;  // of both together
    bool operator>(const Candidate& other) const {
      return std::tie(merge.rank, left) > std::tie(other.merge.rank, other.left);
    }
  };

  static std::uint64_t key(Token left, Token right) { return std::uint64_t(left) << 32 | right; }
  std::vector<Symbol> symbols(const TokenTexts& texts, std::string_view piece) const;
  /// Its result is no token where they are not merged.
  Merge merge_of(const TokenTexts& texts, std::string_view piece, const Symbol& left,
                 const Symbol& right) const;

  bool bytes_ = false;  // symbols start as bytes, otherwise as characters
  std::vector<float> scores_;
  std::unordered_map<std::uint64_t, Merge> merges_;  // without scores
};

inline BytePairs::BytePairs(const cafeq::Vocabulary& vocabulary)
    : bytes_(vocabulary.kind == cafeq::VocabularyKind::byte_level), scores_(vocabulary.scores) {
  if (!scores_.empty()) return;
  const cafeq::detail::TokenIds ids(vocabulary);
  const auto token = [&](std::string_view text, std::string_view merge) {
    if (const auto id = ids.find(text)) return Token(*id);
    cafeq::raise(cafeq::ErrorCode::corrupt,
                 cafeq::message("merge ", merge, ": ", text, " is not in the vocabulary"));
  };
  merges_.reserve(vocabulary.merges.size());
  for (const std::string& merge : vocabulary.merges) {
    const std::size_t space = merge.find(' ');
    const std::string left = merge.substr(0, space),
                      right = merge.substr(std::min(space, merge.size() - 1) + 1);
    merges_.emplace(key(token(left, merge), token(right, merge)),
                    Merge{double(merges_.size()), token(left + right, merge)});
  }
}

inline std::vector<BytePairs::Symbol> BytePairs::symbols(const TokenTexts& texts,
                                                         std::string_view piece) const {
  std::vector<Symbol> all;
  all.reserve(piece.size());
  for (std::size_t at = 0; at < piece.size();) {
    const std::size_t size = bytes_ ? 1 : character_length(piece.substr(at));
    const std::string_view text = piece.substr(at, size);
    const Token token = bytes_ ? texts.byte(text[0]) : texts.find(text);
    all.push_back({at, size, token, all.size() - 1, all.size() + 1});
    at += size;
  }
  return all;
}

inline BytePairs::Merge BytePairs::merge_of(const TokenTexts& texts, std::string_view piece,
                                            const Symbol& left, const Symbol& right) const {
  if (!scores_.empty()) {
    const Token result = texts.find(piece.substr(left.begin, left.size + right.size));
    return {result == no_token ? 0 : -double(scores_[result]), result};
  }
  const auto found = merges_.find(key(left.token, right.token));
  return found == merges_.end() ? Merge{0, no_token} : found->second;
}

/// Time O(n log n): pairs wait in a queue, and those that a merge has broken are skipped.
inline void BytePairs::encode(const TokenTexts& texts, std::string_view piece,
                              std::vector<Token>& to) const {
  std::vector<Symbol> all = symbols(texts, piece);
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto consider = [&](std::size_t left, std::size_t right) {
    if (left >= all.size() || right >= all.size()) return;
    const Merge merge = merge_of(texts, piece, all[left], all[right]);
    if (merge.result != no_token) queue.push({merge, left, all[left].size + all[right].size});
  };
  for (std::size_t i = 1; i < all.size(); ++i) consider(i - 1, i);

  while (!queue.empty()) {
    const Candidate candidate = queue.top();
    queue.pop();
    Symbol& left = all[candidate.left];
    if (left.size == 0 || left.next >= all.size()) continue;
    Symbol& right = all[left.next];
    if (left.size + right.size != candidate.size) continue;
    left.size += right.size;
    left.token = candidate.merge.result;
    left.next = right.next;
    right.size = 0;
    if (left.next < all.size()) all[left.next].previous = candidate.left;
    consider(left.previous, candidate.left);
    consider(candidate.left, left.next);
  }

  for (std::size_t i = 0; i < all.size(); i = all[i].next) {
    if (all[i].token != no_token) to.push_back(all[i].token);
    else texts.append_unknown(piece.substr(all[i].begin, all[i].size), to);
  }
}

}  // namespace engine
