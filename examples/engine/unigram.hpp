/// The most probable tokens of a text (Kudo: "Subword Regularization", ACL 2018): scores are
/// logarithms of probabilities, and the tokens with the highest sum are taken.
#pragma once

#include <algorithm>
#include <limits>
#include <string_view>
#include <vector>

#include "cafeq/io/vocabulary.hpp"
#include "token_texts.hpp"

namespace engine {

class Unigram {
 public:
  explicit Unigram(const cafeq::Vocabulary& vocabulary) : scores_(vocabulary.scores) {
    float lowest = 0;
    for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
      if (vocabulary.types[id] != cafeq::TokenType::normal) continue;
      lowest = std::min(lowest, scores_[id]);
      longest_ = std::max(longest_, vocabulary.tokens[id].size());
    }
    unknown_score_ = lowest - 10;  // as SentencePiece
  }

  /// Appends the tokens of a piece of text. Dynamic programming over the places where a token can
  /// end; the longest one is taken among equals.
  void encode(const TokenTexts& texts, std::string_view piece, std::vector<Token>& to) const {
    struct Best {  // of the ways to reach a place
      double score = -std::numeric_limits<double>::infinity();
      std::size_t begin = 0;
      Token token = no_token;
    };
    std::vector<Best> best(piece.size() + 1);
    best[0].score = 0;
    for (std::size_t begin = 0; begin < piece.size();) {
      const std::size_t next = begin + character_length(piece.substr(begin));
      const auto improve = [&](std::size_t end, double score, Token token) {
        if (best[begin].score + score > best[end].score)
          best[end] = {best[begin].score + score, begin, token};
      };
      bool known = false;  // the character by itself
      for (std::size_t end = next; end <= std::min(piece.size(), begin + longest_); ++end) {
        const Token token = texts.find(piece.substr(begin, end - begin));
        if (token == no_token) continue;
        improve(end, scores_[token], token);
        known |= end == next;
      }
      if (!known) improve(next, unknown_score_, no_token);
      begin = next;
    }

    std::vector<std::size_t> ends;
    for (std::size_t end = piece.size(); end > 0; end = best[end].begin) ends.push_back(end);
    std::reverse(ends.begin(), ends.end());
    for (const std::size_t end : ends) {
      const Best& last = best[end];
      if (last.token != no_token) to.push_back(last.token);
      else texts.append_unknown(piece.substr(last.begin, end - last.begin), to);
    }
  }

 private:
  std::vector<float> scores_;
  std::size_t longest_ = 0;
  double unknown_score_ = 0;
};

}  // namespace engine
