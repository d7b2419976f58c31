/// Sentences to tokens by a unigram vocabulary (Kudo: "Subword regularization", ACL 2018): the
/// split into known pieces whose scores, log probabilities, add up highest.
#pragma once

#include <algorithm>
#include <limits>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cafeq/io/file.hpp"
#include "cafeq/io/json.hpp"
#include "encoder.hpp"

namespace cafeq::example {

class UnigramTokenizer {
 public:
  /// A piece and its score; the position in the list is the token.
  using Vocabulary = std::vector<std::pair<std::string, double>>;

  /// The first `reserved` entries (unknown, sentence marks, …) never match text; entry 0 stands for
  /// what nothing else matches.
  explicit UnigramTokenizer(Vocabulary vocabulary, std::size_t reserved = 6);
  // A copy's map would point into the vocabulary of the original; moving keeps the strings where
  // they are.
  UnigramTokenizer(const UnigramTokenizer&) = delete;
  UnigramTokenizer& operator=(const UnigramTokenizer&) = delete;
  UnigramTokenizer(UnigramTokenizer&&) = default;
  UnigramTokenizer& operator=(UnigramTokenizer&&) = default;

  /// Spaces are matched as U+2581, and one is put before the sentence. Text should be in Unicode
  /// normal form NFKC, as all ASCII is. Runs of unknown characters become one token 0. Of equally
  /// good splits, the one with the shorter last piece is taken.
  Tokens operator()(std::string_view sentence) const;

  Index size() const noexcept { return Index(vocabulary_.size()); }

 private:
  struct Best {
    double score = -std::numeric_limits<double>::infinity();
    std::size_t begin = 0;
    Token token = 0;
  };

  Vocabulary vocabulary_;
  std::unordered_map<std::string_view, Token> pieces_;  // into vocabulary_
  std::size_t longest_ = 0;
  double unknown_score_ = 0;
};

namespace detail {

/// The bytes of the UTF-8 character that starts with `lead`; 1 for bytes that start none.
inline std::size_t character_length(char lead) noexcept {
  const auto byte = static_cast<unsigned char>(lead);
  return byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
}

}  // namespace detail

inline UnigramTokenizer::UnigramTokenizer(Vocabulary vocabulary, std::size_t reserved)
    : vocabulary_(std::move(vocabulary)) {
  if (vocabulary_.empty() || reserved == 0)
    raise(ErrorCode::invalid_argument,
          "UnigramTokenizer: vocabulary needs an entry for what is unknown");
  for (std::size_t i = reserved; i < vocabulary_.size(); ++i) {
    const auto& [piece, score] = vocabulary_[i];
    if (piece.empty() || !std::isfinite(score))
      raise(ErrorCode::invalid_argument,
            message("UnigramTokenizer: vocabulary entry ", i, " has no text or no finite score"));
    pieces_.insert_or_assign(piece, Token(i));
    longest_ = std::max(longest_, piece.size());
    unknown_score_ = std::min(unknown_score_, score);
  }
  unknown_score_ -= 10;  // worse than any piece, so that it is the last resort
}

inline Tokens UnigramTokenizer::operator()(std::string_view sentence) const {
  if (sentence.empty()) return {};
  constexpr std::string_view separator = "\u2581";
  std::string text(separator);
  for (const char c : sentence) c == ' ' ? text.append(separator) : text.append(1, c);

  std::vector<Best> best(text.size() + 1);  // best[i]: the best split of the first i bytes
  best[0].score = 0;
  const auto improve = [&](std::size_t begin, std::size_t end, double score, Token token) {
    if (best[begin].score + score >= best[end].score)
      best[end] = {best[begin].score + score, begin, token};
  };
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t next = std::min(begin + detail::character_length(text[begin]), text.size());
    improve(begin, next, unknown_score_, 0);
    for (std::size_t end = next; end <= std::min(text.size(), begin + longest_); ++end)
      if (const auto found = pieces_.find(std::string_view(text).substr(begin, end - begin));
          found != pieces_.end())
        improve(begin, end, vocabulary_[std::size_t(found->second)].second, found->second);
    begin = next;
  }

  Tokens tokens;
  for (std::size_t end = text.size(); end > 0; end = best[end].begin)
    if (tokens.empty() || best[end].token != 0 || tokens.back() != 0)
      tokens.push_back(best[end].token);
  std::reverse(tokens.begin(), tokens.end());
  return tokens;
}

/// The tokenizer of a vocab.json: an array of [piece, score]. The published one has null scores,
/// which its own tokenizer adds as 0; so does this one.
inline UnigramTokenizer load_tokenizer(const std::string& path) {
  const auto bytes = read_file(path);
  const auto entries =
      cafeq::detail::parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path);
  UnigramTokenizer::Vocabulary vocabulary;
  for (const auto& entry : entries) {
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() ||
        !(entry[1].is_number() || entry[1].is_null()))
      raise(ErrorCode::corrupt,
            message(path, ": entry ", vocabulary.size(), " is not [piece, score]"));
    vocabulary.emplace_back(entry[0].get<std::string>(),
                            entry[1].is_null() ? 0.0 : entry[1].get<double>());
  }
  if (!entries.is_array() || vocabulary.empty())
    raise(ErrorCode::corrupt, message(path, ": is not an array of [piece, score]"));
  return UnigramTokenizer(std::move(vocabulary));
}

}  // namespace cafeq::example
