#include "encoder/tokenizer.hpp"

#include "io/temporary_directory.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using namespace cafeq::example;
using test::error_of;

namespace {

/// Six reserved entries, then pieces. "▁" is U+2581.
UnigramTokenizer::Vocabulary small_vocabulary() {
  return {{"\ufffd", 0}, {"<s>", 0}, {"</s>", 0},  {"x1", 0}, {"x2", 0},  {"x3", 0},    // 0..5
          {"▁", -3},     {"a", -2},  {"b", -2},    {"c", -2}, {"ab", -3}, {"▁ab", -4},  // 6..11
          {"abc", -3.5}, {"▁a", -3}, {"bc", -2.5}, {"é", -3}, {"▁▁", -5}, {"<s>", -1},
          {"ca", -4}};  // 12..18
}

}  // namespace

TEST_CASE("the split of the highest score is found") {
  const UnigramTokenizer tokenize(small_vocabulary());
  CHECK(tokenize("a") == Tokens{13});               // ▁a -3, not ▁ a -5
  CHECK(tokenize("ab") == Tokens{11});              // ▁ab -4, not ▁a b -5
  CHECK(tokenize("abc") == Tokens{13, 14});         // ▁a bc -5.5, not ▁ab c -6 nor ▁ abc -6.5
  CHECK(tokenize("abcabc") == Tokens{13, 14, 12});  // then abc -3.5, not a bc -4.5
  CHECK(tokenize("a b") == Tokens{13, 6, 8});
  CHECK(tokenize("a  a") == Tokens{13, 6, 13});
  CHECK(tokenize("  ") ==
        Tokens{16, 6});  // ▁▁ ▁ ties with ▁ ▁▁ at -8; its last piece is the shorter one
  CHECK(tokenize("é") == Tokens{6, 15});
  CHECK(tokenize("").empty());
}

TEST_CASE("reserved entries match no text, unless a piece is spelled the same") {
  auto vocabulary = small_vocabulary();
  CHECK(UnigramTokenizer(vocabulary)("<s>") == Tokens{6, 17});
  vocabulary[17].first = "<t>";
  CHECK(UnigramTokenizer(vocabulary)("<s>") == Tokens{6, 0});
  CHECK(UnigramTokenizer(vocabulary)("x1") == Tokens{6, 0});
}

TEST_CASE("runs of unknown characters are one token, and no piece is given up for them") {
  const UnigramTokenizer tokenize(small_vocabulary());
  CHECK(tokenize("a\U0001f639\U0001f639") == Tokens{13, 0});
  CHECK(tokenize("\U0001f639") == Tokens{6, 0});
  CHECK(tokenize("a\U0001f639b\U0001f639ab") == Tokens{13, 0, 8, 0, 10});
  CHECK(tokenize("qab") == Tokens{6, 0, 10});
}

TEST_CASE("bytes that are not UTF-8 are unknown characters") {
  const UnigramTokenizer tokenize(small_vocabulary());
  CHECK(tokenize("a\xff\xfe") == Tokens{13, 0});
  CHECK(tokenize("a\xe2") == Tokens{13, 0});      // cut off in the middle
  CHECK(tokenize("a\x81\x81") == Tokens{13, 0});  // continuation bytes alone
  for (int byte = 1; byte < 256; ++byte) {
    const std::string text{char(byte), 'a', char(byte)};
    CHECK_FALSE(tokenize(text).empty());
  }
}

TEST_CASE("a tokenizer works after a move") {
  UnigramTokenizer first(small_vocabulary());
  const UnigramTokenizer second(std::move(first));
  CHECK(second("abcabc") == Tokens{13, 14, 12});
  CHECK(second.size() == 19);
}

TEST_CASE("vocabularies that make no sense are refused") {
  CHECK(error_of([] { UnigramTokenizer({}); }).code() == ErrorCode::invalid_argument);
  CHECK(error_of([] { UnigramTokenizer({{"a", 0}}, 0); }).code() == ErrorCode::invalid_argument);
  CHECK_THAT(error_of([] { UnigramTokenizer({{"?", 0}, {"", 0}}, 1); }).message(),
             Contains("entry 1"));
  CHECK(error_of([] { UnigramTokenizer({{"?", 0}, {"a", std::nan("")}}, 1); }).code() ==
        ErrorCode::invalid_argument);
}

TEST_CASE("a vocabulary is read from JSON") {
  const test::TemporaryDirectory directory;
  const std::string reserved = R"([["?",0],["1",0],["2",0],["3",0],["4",0],["5",0],)";
  CHECK(load_tokenizer(
            directory.write("vocab.json", reserved + R"(["▁",-1],["a",-2.5],[":",null]])"))("a:") ==
        Tokens{6, 7, 8});
  for (const std::string text : {"", "{}", "[]", "3", "{\"a\": [\"a\", 1]}", "[[\"a\"]]",
                                 "[[1, \"a\"]]", "[[\"a\", \"b\"]]", "[\"a\"]"}) {
    INFO(text);
    const Error error = error_of([&] { load_tokenizer(directory.write("vocab.json", text)); });
    CHECK(error.code() == ErrorCode::corrupt);
    CHECK_THAT(error.message(), Contains("vocab.json"));
  }
  CHECK(error_of([&] { load_tokenizer(directory / "missing"); }).code() == ErrorCode::io);
}
