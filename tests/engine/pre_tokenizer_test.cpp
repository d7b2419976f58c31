#include "engine/pre_tokenizer.hpp"

#include <array>

#include "support/catch.hpp"

using namespace engine;

namespace {

using Pieces = std::vector<std::string_view>;

Pieces split(std::string_view text, const std::vector<Splitter>& splitters) {
  Pieces pieces;
  for_pieces(text, splitters, [&](std::string_view piece) { pieces.push_back(piece); });
  return pieces;
}

Pieces gpt2(std::string_view text) { return split(text, {split_gpt2}); }
Pieces llama3(std::string_view text) { return split(text, {split_llama3<3>}); }
Pieces tekken(std::string_view text) { return split(text, splitters_of_bytes("tekken")); }

}  // namespace

TEST_CASE("letters, numbers and spaces of all scripts") {
  for (const char32_t c :
       U"azAZ\u00e9\u00df\u0430\u05d0\u0627\u0905\u4e00\u9fff\uac00\u3042\U00020000")
    CHECK((is_letter(c) || c == 0));
  for (const char32_t c : U"09\u00b2\u00bd\u0663\u2167\u0969\u3007")
    CHECK((is_number(c) || c == 0));
  for (const char32_t c : U" \t\n\v\f\r\u0085\u00a0\u2003\u2028\u3000")
    CHECK((is_space(c) || c == 0));
  for (const char32_t c : U"_-'\u0301\u20ac\u3001\U0001f600\u200b\ufffd") {
    CHECK_FALSE(is_letter(c));
    CHECK_FALSE(is_number(c));
    CHECK_FALSE(is_space(c));
  }
  CHECK_FALSE(is_letter(U'@'));  // the neighbours of A and Z
  CHECK_FALSE(is_letter(U'['));
}

TEST_CASE("pieces of GPT-2") {
  CHECK(gpt2("Hello world") == Pieces{"Hello", " world"});
  CHECK(gpt2("I'll say it's 'sound'") ==
        Pieces{"I", "'ll", " say", " it", "'s", " '", "sound", "'"});
  CHECK(gpt2("IT'S") == Pieces{"IT", "'", "S"});
  CHECK(gpt2("in 12345 days") == Pieces{"in", " 12345", " days"});
  CHECK(gpt2("a  b") == Pieces{"a", " ", " b"});
  CHECK(gpt2("a \n b") == Pieces{"a", " \n", " b"});
  CHECK(gpt2("a\nb") == Pieces{"a", "\n", "b"});
  CHECK(gpt2("end  ") == Pieces{"end", "  "});
  CHECK(gpt2("a?!b, c") == Pieces{"a", "?!", "b", ",", " c"});
  CHECK(gpt2("na\u00efve \u4f60\u597d\uff0c") == Pieces{"na\u00efve", " \u4f60\u597d", "\uff0c"});
  CHECK(gpt2("x\u00a0 y") == Pieces{"x", "\u00a0", " y"});
  CHECK(gpt2("") == Pieces{});
}

TEST_CASE("pieces of Llama 3") {
  CHECK(llama3("Hello world") == Pieces{"Hello", " world"});
  CHECK(llama3("IT'S we'Ll 'tis") == Pieces{"IT", "'S", " we", "'Ll", " '", "tis"});
  CHECK(llama3("'tis") == Pieces{"'t", "is"});
  CHECK(llama3("in 12345 days") == Pieces{"in", " ", "123", "45", " days"});
  CHECK(llama3("$money (now)") == Pieces{"$money", " (", "now", ")"});
  CHECK(llama3("a?!\n\nb") == Pieces{"a", "?!\n\n", "b"});
  CHECK(llama3("a \n \n  b") == Pieces{"a", " \n \n", " ", " b"});
  CHECK(llama3("a\n b") == Pieces{"a", "\n", " b"});
  CHECK(llama3("a\tb") == Pieces{"a", "\tb"});
  CHECK(llama3("\nb") == Pieces{"\n", "b"});
  CHECK(llama3("end  ") == Pieces{"end", "  "});
}

TEST_CASE("pieces of Qwen2: digits one by one") {
  CHECK(split("in 123", splitters_of_bytes("qwen2")) == Pieces{"in", " ", "1", "2", "3"});
}

TEST_CASE("pieces of Tekken: words end where small letters do") {
  CHECK(tekken("camelCase HTTPServer aBC") == Pieces{"camel", "Case", " HTTPServer", " a", "BC"});
  CHECK(tekken("IT'S it's") == Pieces{"IT", "'S", " it", "'s"});
  CHECK(tekken("\u00e9A A\u00e9 A\u00e9A") == Pieces{"\u00e9", "A", " A\u00e9", " A\u00e9", "A"});
  CHECK(tekken("12 ../\n/x") == Pieces{"1", "2", " ../\n/", "x"});
  CHECK(tekken("a \n  b") == Pieces{"a", " \n", " ", " b"});
  const auto gpt4o = splitters_of_bytes("gpt-4o");
  CHECK(split("IT'S it's 1234", gpt4o) == Pieces{"IT'S", " it's", " ", "123", "4"});
}

TEST_CASE("lines and words") {
  CHECK(split("a b\n\n c", splitters_of_pieces("gemma4")) == Pieces{"a b", "\n\n", " c"});
  Pieces words;
  std::array<bool, 256> joined{};
  joined['c'] = true;
  for_words("a  b c  d ", joined, [&](std::string_view word) { words.push_back(word); });
  CHECK(words == Pieces{"a", "  b", " c  d", " "});
  for_words("", joined, [&](std::string_view) { FAIL("there is none"); });
}

TEST_CASE("splitters refine what those before them left") {
  const std::vector<Splitter> both{split_digits, split_gpt2};
  CHECK(split("in 123 days", both) == Pieces{"in", " ", "1", "2", "3", " days"});
  CHECK(split("  7", both) == Pieces{"  ", "7"});
  CHECK(split("one piece", {}) == Pieces{"one piece"});
}

TEST_CASE("no byte is lost, whatever the bytes") {
  const std::string text = "a\xff\xc3(\xe4\xbd b\x80\x80\x80\x80\x80 \xf0\x9f\x98\x80";
  for (const auto splitter : {split_gpt2, split_llama3<3>, split_cases<1, true>, split_digits}) {
    std::string together;
    for (const auto piece : split(text, {splitter})) together += piece;
    CHECK(together == text);
  }
  CHECK(gpt2("\u00e9\xff") == Pieces{"\u00e9", "\xff"});
}
