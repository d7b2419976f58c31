/// Scores in place of merges. transformers lists the merges of pieces in the order in which they
/// are tried, where SentencePiece and llama.cpp merge by score.
///
/// A piece scores by the first merge that makes it. That says all that the merges do where the
/// merges into a piece follow each other and are all the ways in which two tokens make it;
/// vocabularies for which it does not are refused.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cafeq/core/error.hpp"
#include "cafeq/io/vocabulary.hpp"

namespace cafeq::detail {

/// In how many ways a piece is made of two tokens. With scores each of them is a merge.
inline Index ways_to_cut(const TokenIds& ids, std::string_view piece) {
  Index ways = 0;
  for (std::size_t cut = 1; cut < piece.size(); ++cut)
    ways += ids.find(piece.substr(0, cut)) && ids.find(piece.substr(cut));
  return ways;
}

[[noreturn]] inline void refuse_scores(std::string_view file, std::string_view reason) {
  raise(ErrorCode::unsupported,
        message(file, ": llama.cpp merges pieces by score, and no scores do what its merges do: ",
                reason));
}

/// Sets scores with which the same pieces are merged in the same order. Errors name `file`: corrupt
/// for a merge that makes no token, unsupported where there are no such scores.
inline void set_scores(Vocabulary& vocabulary, std::string_view file) {
  const TokenIds ids(vocabulary);
  vocabulary.scores.assign(vocabulary.tokens.size(), -float(vocabulary.merges.size()));
  std::vector<Index> merged(vocabulary.tokens.size());  // how many merges make a piece
  Index pieces = 0;
  std::optional<Index> last;
  for (const std::string& merge : vocabulary.merges) {
    std::string text = merge;
    text.erase(merge.find(' '), 1);
    const auto piece = ids.find(text);
    if (!piece) raise(ErrorCode::corrupt, message(file, ": merge ", merge, " makes no token"));
    if (piece != last) {
      if (merged[std::size_t(*piece)] > 0)
        refuse_scores(file, message("others stand between those into ", text));
      vocabulary.scores[std::size_t(*piece)] = -float(pieces++);
    }
    ++merged[std::size_t(*piece)];
    last = piece;
  }

  for (std::size_t id = 0; id < merged.size(); ++id)
    if (const Index ways = ways_to_cut(ids, vocabulary.tokens[id]);
        vocabulary.types[id] == TokenType::normal && ways != merged[id])
      refuse_scores(file, message(vocabulary.tokens[id], " is two tokens in ", ways,
                                  " ways, and merged in ", merged[id]));
}

}  // namespace cafeq::detail
