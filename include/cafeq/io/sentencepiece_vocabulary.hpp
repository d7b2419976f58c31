/// The model files of SentencePiece (tokenizer.model): messages of Protocol Buffers, of which this
/// reads what is needed of the wire format.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "cafeq/io/byte_cursor.hpp"
#include "cafeq/io/vocabulary.hpp"

namespace cafeq::detail {

/// The vocabulary of a unigram or BPE model. Errors name `file`: corrupt, and unsupported for
/// models of other kinds and for those that change texts. What ends a text besides is not said
/// there.
inline Vocabulary vocabulary_from_sentencepiece(std::string_view content, std::string_view file);

/// A field of a message: a number, or bytes that may be a message again.
struct WireField {
  std::uint64_t tag;  ///< which field it is
  std::uint64_t number = 0;
  std::span<const std::byte> bytes{};

  /// Numbers below zero are written in 64 bits.
  Index integer() const noexcept { return std::bit_cast<std::int64_t>(number); }
  float real() const noexcept { return std::bit_cast<float>(std::uint32_t(number)); }
};

inline std::uint64_t read_varint(ByteCursor& cursor) {
  std::uint64_t number = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const auto byte = cursor.number<std::uint8_t>("a number");
    number |= std::uint64_t(byte & 0x7f) << shift;
    if (byte < 0x80) return number;
  }
  cursor.fail(message("a number before byte ", cursor.position(), " has more than 64 bits"));
}

inline WireField read_wire_field(ByteCursor& cursor) {
  const std::uint64_t key = read_varint(cursor);
  WireField field{.tag = key >> 3};
  switch (key & 7) {
    case 0: field.number = read_varint(cursor); break;
    case 1: field.number = cursor.number<std::uint64_t>("a number"); break;
    case 2: field.bytes = cursor.take(read_varint(cursor), "a field"); break;
    case 5: field.number = cursor.number<std::uint32_t>("a number"); break;
    default:
      cursor.fail(
          message("a field before byte ", cursor.position(), " is of the unknown type ", key & 7));
  }
  return field;
}

/// Calls f with each field of a message.
template <class F>
void for_wire_fields(std::string_view file, std::span<const std::byte> bytes, F&& f) {
  for (ByteCursor cursor(file, bytes); cursor.remaining() > 0;) f(read_wire_field(cursor));
}

/// One model file as it is read.
class SentencePieceModel {
 public:
  explicit SentencePieceModel(std::string_view file) : file_(file) {}

  Vocabulary read(std::span<const std::byte> bytes) {
    vocabulary_.kind = VocabularyKind::unigram;
    vocabulary_.space_prefix = SpacePrefix::first;
    vocabulary_.remove_extra_spaces = true;
    for_wire_fields(file_, bytes, [&](const WireField& field) {
      if (field.tag == 1) read_piece(field.bytes);
      if (field.tag == 2) read_training(field.bytes);
      if (field.tag == 3) read_normalizer(field.bytes);
    });
    if (vocabulary_.tokens.empty()) raise(ErrorCode::corrupt, message(file_, ": has no pieces"));
    for (auto* role : {&unknown_, &begin_, &end_, &padding_})
      if (*role < 0 || *role >= Index(vocabulary_.tokens.size())) *role = -1;
    const auto id = [](Index role) { return role < 0 ? std::nullopt : std::optional(role); };
    vocabulary_.unknown = id(unknown_);
    vocabulary_.begin = id(begin_);
    vocabulary_.end = id(end_);
    vocabulary_.padding = id(padding_);
    // The file says how texts are cut, not what is put around them.
    vocabulary_.add_begin = vocabulary_.begin.has_value();
    return std::move(vocabulary_);
  }

 private:
  void read_piece(std::span<const std::byte> bytes) {
    std::string_view text;
    float score = 0;
    Index type = 1;
    for_wire_fields(file_, bytes, [&](const WireField& field) {
      if (field.tag == 1) text = as_text(field.bytes);
      if (field.tag == 2) score = field.real();
      if (field.tag == 3) type = field.integer();
    });
    if (type < Index(TokenType::normal) || type > Index(TokenType::byte))
      raise(ErrorCode::corrupt, message(file_, ": piece ", vocabulary_.tokens.size(),
                                        " is of the unknown type ", type));
    vocabulary_.tokens.emplace_back(text);
    vocabulary_.scores.push_back(score);
    vocabulary_.types.push_back(TokenType(type));
  }

  void read_training(std::span<const std::byte> bytes) {
    for_wire_fields(file_, bytes, [&](const WireField& field) {
      if (field.tag == 3 && field.number == 2) vocabulary_.kind = VocabularyKind::pieces;
      if (field.tag == 3 && field.number > 2)
        refuse(field.number == 3 ? "its model is of words" : "its model is of characters",
               "unigram and BPE");
      if (field.tag == 24 && field.number != 0)
        refuse("it puts spaces behind words", "those ahead of words");
      if (field.tag == 40) unknown_ = field.integer();
      if (field.tag == 41) begin_ = field.integer();
      if (field.tag == 42) end_ = field.integer();
      if (field.tag == 43) padding_ = field.integer();
    });
  }

  void read_normalizer(std::span<const std::byte> bytes) {
    std::string_view name;
    bool changes = false;
    for_wire_fields(file_, bytes, [&](const WireField& field) {
      if (field.tag == 1) name = as_text(field.bytes);
      if (field.tag == 2) changes = !field.bytes.empty();
      if (field.tag == 3 && field.number == 0) vocabulary_.space_prefix = SpacePrefix::none;
      if (field.tag == 4) vocabulary_.remove_extra_spaces = field.number != 0;
      if (field.tag == 5 && field.number == 0) refuse("it keeps spaces invisible", "U+2581");
    });
    if (changes) refuse(message("it changes texts by the rule ", name), "identity");
  }

  [[noreturn]] void refuse(std::string_view what, std::string_view known) const {
    raise(ErrorCode::unsupported, message(file_, ": ", what, "; known is ", known));
  }

  std::string_view file_;
  Vocabulary vocabulary_;
  Index unknown_ = 0, begin_ = 1, end_ = 2, padding_ = -1;
};

inline Vocabulary vocabulary_from_sentencepiece(std::string_view content, std::string_view file) {
  return SentencePieceModel(file).read(std::as_bytes(std::span(content)));
}

}  // namespace cafeq::detail
