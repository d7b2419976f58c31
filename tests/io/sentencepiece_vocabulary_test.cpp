#include "cafeq/io/sentencepiece_vocabulary.hpp"

#include <cstring>

#include "support/catch.hpp"
#include "support/error_of.hpp"

using namespace cafeq;
using detail::vocabulary_from_sentencepiece;
using test::error_of;

namespace {

std::string varint(std::uint64_t number) {
  std::string bytes;
  for (; number >= 0x80; number >>= 7) bytes.push_back(char(number | 0x80));
  bytes.push_back(char(number));
  return bytes;
}
std::string number_field(unsigned tag, std::uint64_t number) {
  return varint(tag << 3) + varint(number);
}
std::string bytes_field(unsigned tag, const std::string& bytes) {
  return varint(tag << 3 | 2) + varint(bytes.size()) + bytes;
}

std::string piece(const std::string& text, float score, TokenType type) {
  std::string bytes(4, '\0');
  std::memcpy(bytes.data(), &score, 4);
  return bytes_field(
      1, bytes_field(1, text) + varint(2 << 3 | 5) + bytes + number_field(3, std::uint64_t(type)));
}
/// Without its type, which is "normal" then.
std::string normal(const std::string& text) { return bytes_field(1, bytes_field(1, text)); }

const std::string all_pieces =
    piece("<unk>", 0, TokenType::unknown) + piece("<s>", 0, TokenType::control) +
    piece("</s>", 0, TokenType::control) + piece("<0x0A>", 0, TokenType::byte) +
    piece("\u2581a", -1.5f, TokenType::normal) + piece("<t>", 0, TokenType::user_defined) +
    normal("b");

Error error_of_model(const std::string& content) {
  const Error raised = error_of([&] { vocabulary_from_sentencepiece(content, "file"); });
  CHECK_THAT(raised.message(), Contains("file: "));
  return raised;
}

}  // namespace

TEST_CASE("a model of SentencePiece") {
  const std::string training =
      bytes_field(2, number_field(3, 2) + number_field(41, 2) + number_field(42, 1) +
                         number_field(43, std::uint64_t(-1)));
  const std::string unknown_fields =
      varint(9 << 3 | 1) + std::string(8, 'x') + bytes_field(99, "y");
  const Vocabulary vocabulary =
      vocabulary_from_sentencepiece(all_pieces + training + unknown_fields, "file");
  CHECK(vocabulary.kind == VocabularyKind::pieces);
  CHECK(vocabulary.pre == "default");
  CHECK(vocabulary.tokens ==
        std::vector<std::string>{"<unk>", "<s>", "</s>", "<0x0A>", "\u2581a", "<t>", "b"});
  CHECK(vocabulary.scores == std::vector<float>{0, 0, 0, 0, -1.5f, 0, 0});
  CHECK(vocabulary.types == std::vector<TokenType>{TokenType::unknown, TokenType::control,
                                                   TokenType::control, TokenType::byte,
                                                   TokenType::normal, TokenType::user_defined,
                                                   TokenType::normal});
  CHECK(vocabulary.unknown == 0);
  CHECK(vocabulary.begin == 2);
  CHECK(vocabulary.end == 1);
  CHECK_FALSE(vocabulary.padding);
  CHECK(vocabulary.space_prefix == SpacePrefix::first);
  CHECK(vocabulary.prefix_spaces);
  CHECK(vocabulary.remove_extra_spaces);
}

TEST_CASE("a model of SentencePiece without more than its pieces is a unigram model") {
  const Vocabulary vocabulary = vocabulary_from_sentencepiece(all_pieces, "file");
  CHECK(vocabulary.kind == VocabularyKind::unigram);
  CHECK(vocabulary.begin == 1);
  CHECK(vocabulary.end == 2);
  const Vocabulary plain = vocabulary_from_sentencepiece(
      all_pieces +
          bytes_field(3, bytes_field(1, "identity") + number_field(3, 0) + number_field(4, 0)),
      "file");
  CHECK(plain.space_prefix == SpacePrefix::none);
  CHECK_FALSE(plain.remove_extra_spaces);
  const Vocabulary outside =
      vocabulary_from_sentencepiece(all_pieces + bytes_field(2, number_field(43, 7)), "file");
  CHECK_FALSE(outside.padding);
}

TEST_CASE("models of SentencePiece that are of other kinds or change texts are refused") {
  const auto refused = [](const std::string& more, const char* why) {
    CHECK(error_of_model(all_pieces + more).code() == ErrorCode::unsupported);
    CHECK_THAT(error_of_model(all_pieces + more).message(), Contains(why));
  };
  refused(bytes_field(2, number_field(3, 3)), "of words; known is unigram and BPE");
  refused(bytes_field(2, number_field(3, 4)), "of characters");
  refused(bytes_field(2, number_field(24, 1)), "behind words");
  refused(bytes_field(3, bytes_field(1, "nmt_nfkc") + bytes_field(2, "x")), "by the rule nmt_nfkc");
  refused(bytes_field(3, number_field(5, 0)), "invisible");
}

TEST_CASE("broken models of SentencePiece are refused") {
  CHECK(error_of_model(all_pieces.substr(0, all_pieces.size() - 1)).code() == ErrorCode::corrupt);
  CHECK(error_of_model("").code() == ErrorCode::corrupt);
  CHECK_THAT(error_of_model("").message(), Contains("no pieces"));
  CHECK_THAT(error_of_model(all_pieces + varint(9 << 3 | 3)).message(), Contains("unknown type 3"));
  CHECK_THAT(error_of_model(std::string(12, '\xff')).message(), Contains("more than 64 bits"));
  CHECK_THAT(error_of_model(piece("a", 0, TokenType(9))).message(),
             Contains("piece 0 is of the unknown"));
}
