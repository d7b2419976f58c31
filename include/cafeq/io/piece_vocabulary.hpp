/// Tokenizers whose tokens are pieces of text with visible spaces (U+2581). They come from
/// SentencePiece, which merges by score.
///
/// transformers lists merges instead, in the order in which they are tried, and llama.cpp wants the
/// scores back. A piece scores by the first merge that makes it. That says all that the merges do
/// where the merges into a piece follow each other and are all the ways in which two tokens make
/// it; tokenizers for which it does not are refused.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cafeq/io/gguf_vocabulary.hpp"
#include "cafeq/io/json.hpp"
#include "cafeq/io/tokenizer_file.hpp"

namespace cafeq::detail {

/// In how many ways a piece is made of two tokens. With scores each of them is a merge.
inline Index ways_to_cut(const TokenizerFile& file, std::string_view piece) {
  Index ways = 0;
  for (std::size_t cut = 1; cut < piece.size(); ++cut)
    ways += file.id_of(piece.substr(0, cut)) && file.id_of(piece.substr(cut));
  return ways;
}

[[noreturn]] inline void refuse_scores(const TokenizerFile& file, std::string_view reason) {
  file.refuse(
      message("llama.cpp merges pieces by score, and no scores do what its merges do: ", reason));
}

/// Sets scores with which the same pieces are merged in the same order.
inline void set_scores(const TokenizerFile& file, GgufVocabulary& vocabulary) {
  const auto all = file.merges();
  vocabulary.scores.assign(vocabulary.tokens.size(), -float(all.size()));
  std::vector<Index> merged(vocabulary.tokens.size());  // how many merges make a piece
  Index pieces = 0;
  std::optional<Index> last;
  for (const auto& [left, right] : all) {
    const auto piece = file.id_of(message(left, right));
    if (!piece) file.fail(message("merge ", left, " ", right, " makes no token"));
    if (piece != last) {
      if (merged[std::size_t(*piece)] > 0)
        refuse_scores(file, message("others stand between those into ", left, right));
      vocabulary.scores[std::size_t(*piece)] = -float(pieces++);
    }
    ++merged[std::size_t(*piece)];
    last = piece;
  }

  for (std::size_t id = 0; id < merged.size(); ++id)
    if (const Index ways = ways_to_cut(file, vocabulary.tokens[id]);
        vocabulary.types[id] == TokenType::normal && ways != merged[id])
      refuse_scores(file, message(vocabulary.tokens[id], " is two tokens in ", ways,
                                  " ways, and merged in ", merged[id]));
}

/// Reads how spaces become visible. Raises unsupported where they do not, or where anything else is
/// done to a text.
inline void read_spaces(const TokenizerFile& file, GgufVocabulary& vocabulary) {
  bool visible = false;
  vocabulary.add_space_prefix = false;
  for (const Json* part : file.parts("normalizer", "normalizers")) {
    const std::string* prepended = find_string(*part, "prepend");
    const std::string* content = find_string(*part, "content");
    if (type_of_part(*part) == "Prepend" && prepended != nullptr && *prepended == visible_space)
      vocabulary.add_space_prefix = true;
    else if (type_of_part(*part) == "Replace" && content != nullptr && *content == visible_space)
      visible = true;
    else file.refuse(message("normalizer ", printable(*part), " is none that llama.cpp has"));
  }

  for (const Json* part : file.parts("pre_tokenizer", "pretokenizers")) {
    if (type_of_part(*part) != "Metaspace")
      file.refuse(message("pre-tokenizer ", printable(*part), " is none that llama.cpp has"));
    const std::string* scheme = find_string(*part, "prepend_scheme");
    vocabulary.add_space_prefix =
        scheme != nullptr ? *scheme != "never" : flag_of(*part, "add_prefix_space", true);
    visible = true;
  }
  if (!visible) file.refuse("is neither byte-level nor made of pieces with visible spaces");
}

/// Fills in all that is particular to tokenizers made of pieces.
inline void make_pieces(const TokenizerFile& file, GgufVocabulary& vocabulary) {
  vocabulary.model = "llama";
  vocabulary.pre = "default";
  vocabulary.add_begin = false;
  read_spaces(file, vocabulary);

  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id)
    if (vocabulary.types[id] == TokenType::normal && is_byte_piece(vocabulary.tokens[id]))
      vocabulary.types[id] = TokenType::byte;
  if (const std::string* token = find_string(file.model(), "unk_token"); token != nullptr) {
    vocabulary.unknown = file.id_of(*token);
    if (vocabulary.unknown) vocabulary.types[std::size_t(*vocabulary.unknown)] = TokenType::unknown;
  }
  set_scores(file, vocabulary);
}

}  // namespace cafeq::detail
