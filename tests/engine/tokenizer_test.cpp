// Tokens of small vocabularies, worked out by hand.
#include "engine/tokenizer.hpp"

#include "small_vocabularies.hpp"
#include "support/catch.hpp"

using namespace engine;
using namespace engine::test;
using cafeq::SpacePrefix;

namespace {

using Tokens = std::vector<Token>;

/// As llama2.c has it.
Vocabulary scored_pieces() {
  Vocabulary vocabulary = with_scores(VocabularyKind::pieces, {{"\u2581", -10.f},
                                                               {"a", -11.f},
                                                               {"b", -12.f},
                                                               {"c", -13.f},
                                                               {"ab", -2.f},
                                                               {"bc", -1.f},
                                                               {"abc", -3.f},
                                                               {"\u2581a", -4.f},
                                                               {"\u00e9", -14.f},
                                                               {"cc", -6.f},
                                                               {"ca", -6.f}});
  vocabulary.space_prefix = SpacePrefix::all;
  return vocabulary;
}
enum : Token { space = 259, a, b, c, ab, bc, abc, space_a, e_acute, cc, ca, small_size };

/// The same pieces with merges in place of scores.
Vocabulary ranked_pieces() {
  Vocabulary vocabulary = scored_pieces();
  vocabulary.scores.clear();
  vocabulary.merges = {"b c", "a b", "a bc", "\u2581 a"};
  return vocabulary;
}

enum : Token {
  ll = 256,
  he,
  hell,
  space_w,
  el,
  hello,
  e_acute_bytes,
  two_spaces,
  space_hi,
  in,
  gs,
  ings,
  begin,
  be,
  note
};

}  // namespace

TEST_CASE("pieces: the highest score is merged first, the leftmost among equals") {
  const Tokenizer t(scored_pieces());
  CHECK(t.encode("") == Tokens{1});
  CHECK(t.encode("a") == Tokens{1, space_a});       // a space goes before the text
  CHECK(t.encode("ab") == Tokens{1, space, ab});    // ab -2 before " a" -4
  CHECK(t.encode("abc") == Tokens{1, space, abc});  // bc -1, then a + bc -3
  CHECK(t.encode("aab") == Tokens{1, space_a, ab});
  CHECK(t.encode("ccc") == Tokens{1, space, cc, c});  // twice cc
  CHECK(t.encode("cca") == Tokens{1, space, cc, a});  // cc and ca have the same score
  CHECK(t.encode("bca") == Tokens{1, space, bc, a});
  CHECK(t.encode(" a") == Tokens{1, space, space_a});           // also where there is one
  CHECK(t.encode("b\u2581a") == Tokens{1, space, b, space_a});  // which is how a space is written
}

TEST_CASE("pieces: merges by rank") {
  const Tokenizer t(ranked_pieces());
  CHECK(t.encode("abc") == Tokens{1, space, abc});
  CHECK(t.encode("ab a") == Tokens{1, space, ab, space_a});
  CHECK(t.encode("cca") == Tokens{1, space, c, c, a});
  CHECK(t.encode("\u00fc") == Tokens{1, space, of_byte(0xc3), of_byte(0xbc)});
  CHECK(t.decode(t.encode("ab a\n\u00fc")) == "ab a\n\u00fc");
}

TEST_CASE("pieces: tokens that reach beyond a word are found as well") {
  Vocabulary vocabulary = scored_pieces();
  add(vocabulary, "b\u2581");
  vocabulary.scores.push_back(-0.5f);
  const Tokenizer t(vocabulary);
  CHECK(t.encode("b a") == Tokens{1, space, small_size, a});
  CHECK(t.encode("ab a") == Tokens{1, space_a, small_size, a});
}

TEST_CASE("pieces: characters without a token are bytes; what names a token is plain text") {
  const Tokenizer t(scored_pieces());
  CHECK(t.encode("\u00e9") == Tokens{1, space, e_acute});
  CHECK(t.encode("\u00fca") == Tokens{1, space, of_byte(0xc3), of_byte(0xbc), a});
  CHECK(t.encode("\U0001f600") ==
        Tokens{1, space, of_byte(0xf0), of_byte(0x9f), of_byte(0x98), of_byte(0x80)});
  CHECK(t.encode("\xff") == Tokens{1, space, of_byte(0xff)});
  CHECK(t.encode("\xc3"
                 "a") == Tokens{1, space, of_byte(0xc3), a});
  Tokens literal{1, space};
  for (const char byte : std::string("<0x41>")) literal.push_back(of_byte(unsigned(byte)));
  CHECK(t.encode("<0x41>") == literal);
  Vocabulary spelled = scored_pieces();
  for (const char* piece : {"<", "0", "x", "4", "1", ">", "0x", "0x4", "0x41", "0x41>"}) {
    add(spelled, piece);
    spelled.scores.push_back(-1);
  }
  CHECK(Tokenizer(spelled).encode("<0x41>") == Tokens{1, space, small_size, small_size + 9});

  CHECK(t.decode(t.encode("abc \u00fc\u00e9 a")) == "abc \u00fc\u00e9 a");
  CHECK(t.decode(Tokens{1, space_a, a}) == "aa");  // the space that was put before it is gone
  CHECK(t.decode(Tokens{1, 0, 2, 9999}) == "");
}

TEST_CASE("pieces: without bytes neighbours become one unknown token, or nothing") {
  Vocabulary vocabulary = scored_pieces();
  for (TokenType& type : vocabulary.types)
    if (type == TokenType::byte) type = TokenType::normal;
  CHECK(Tokenizer(vocabulary).encode("\u00fc\u00fda\u00fc") == Tokens{1, space, 0, a, 0});
  vocabulary.types[0] = TokenType::control;
  CHECK(Tokenizer(vocabulary).encode("\u00fc\u00fda\u00fc") == Tokens{1, space, a});
}

TEST_CASE("spaces ahead of texts, and more of them than one") {
  const auto encoded = [](SpacePrefix prefix, bool twice, std::string_view text) {
    Vocabulary vocabulary = ranked_pieces();
    vocabulary.space_prefix = prefix;
    vocabulary.prefix_spaces = twice;
    return Tokenizer(std::move(vocabulary)).encode(text);
  };
  CHECK(encoded(SpacePrefix::all, true, "b</s>a") == Tokens{1, space, b, 2, space_a});
  CHECK(encoded(SpacePrefix::first, true, "b</s>a") == Tokens{1, space, b, 2, a});
  CHECK(encoded(SpacePrefix::first, true, "</s>a") == Tokens{1, 2, a});
  CHECK(encoded(SpacePrefix::none, true, "b</s>a") == Tokens{1, b, 2, a});
  CHECK(encoded(SpacePrefix::first, true, " a") == Tokens{1, space, space_a});
  CHECK(encoded(SpacePrefix::first, false, " a") == Tokens{1, space_a});
  CHECK(encoded(SpacePrefix::all, false, " a</s> a") == Tokens{1, space_a, 2, space_a});

  Vocabulary fewer = ranked_pieces();
  fewer.remove_extra_spaces = true;
  fewer.space_prefix = SpacePrefix::none;
  CHECK(Tokenizer(fewer).encode("  a   a ") == Tokens{1, a, space_a});
  CHECK(Tokenizer(fewer).encode("   ") == Tokens{1});
  fewer.space_prefix = SpacePrefix::first;
  CHECK(Tokenizer(fewer).encode("  a   a ") == Tokens{1, space_a, space_a});
  CHECK(Tokenizer(fewer).decode(Tokens{space_a}) == "a");
  fewer.space_prefix = SpacePrefix::none;
  CHECK(Tokenizer(fewer).decode(Tokens{space_a}) == " a");
}

TEST_CASE("pieces: user-defined tokens may be spaces") {
  Vocabulary vocabulary = scored_pieces();
  add(vocabulary, "\u2581\u2581", TokenType::user_defined);
  vocabulary.scores.push_back(0);
  vocabulary.space_prefix = SpacePrefix::none;
  const Tokenizer t(vocabulary);
  CHECK(t.encode("b   b") == Tokens{1, b, small_size, space, b});
  CHECK(t.decode(Tokens{b, small_size, b}) == "b  b");
  vocabulary.space_prefix = SpacePrefix::first;  // and the prefix is one of them
  CHECK(Tokenizer(vocabulary).encode(" b") == Tokens{1, small_size, b});
}

TEST_CASE("unigram: the highest sum of scores") {
  Vocabulary vocabulary = with_scores(VocabularyKind::unigram, {{"\u2581", -2.f},
                                                                {"a", -3.f},
                                                                {"b", -3.f},
                                                                {"ab", -5.f},
                                                                {"abb", -7.f},
                                                                {"\u2581a", -4.f},
                                                                {"bb", -4.f}});
  enum : Token { sp = 259, a1, b1, ab1, abb1, sp_a, bb1 };
  const Tokenizer t(vocabulary);
  CHECK(t.encode("ab") == Tokens{1, ab1});       // -5 and not -6
  CHECK(t.encode("abb") == Tokens{1, abb1});     // a bb: -7, too; the longer is first
  CHECK(t.encode("bbb").size() == 3);            // -7 both ways
  CHECK(t.encode(" ab") == Tokens{1, sp, ab1});  // " a" b: -7, too
  CHECK(t.encode(" a") == Tokens{1, sp_a});
  CHECK(t.encode("a\u00fcb") == Tokens{1, a1, of_byte(0xc3), of_byte(0xbc), b1});
  CHECK(t.decode(t.encode("ab\u00fc b")) == "ab\u00fc b");
  for (TokenType& type : vocabulary.types)
    if (type == TokenType::byte) type = TokenType::unused;
  CHECK(Tokenizer(vocabulary).encode("a\u00fc\u00fdb") == Tokens{1, a1, 0, b1});
}

TEST_CASE("byte-level: how bytes are written") {
  CHECK(bytes_of_visible("a") == "a");
  CHECK(bytes_of_visible("\u0120\u010a") == " \n");
  CHECK(bytes_of_visible("\u0100\u0121\u0142") == std::string("\0\x7f\xa0", 3));
  CHECK(bytes_of_visible("\u00a1\u0143\u00ff") == "\xa1\xad\xff");
  CHECK(bytes_of_visible("\u4e00a") == "\u4e00a");  // no such character
  for (unsigned byte = 0; byte < 256; ++byte)
    CHECK(bytes_of_visible(visible(byte)) == std::string(1, char(byte)));
}

TEST_CASE("byte-level: merges in their order, within pieces") {
  const Tokenizer t(byte_level());
  CHECK(t.encode("") == Tokens{begin});
  CHECK(t.encode("hello") == Tokens{begin, hello});        // l l, h e, he ll, hell o
  CHECK(t.encode("helo") == Tokens{begin, he, 'l', 'o'});  // h e ranks before e l
  CHECK(t.encode("elll") == Tokens{begin, 'e', ll, 'l'});  // l l ranks first, leftmost
  CHECK(t.encode("el") == Tokens{begin, el});
  CHECK(t.encode("ings") == Tokens{begin, ings});  // i n, g s, in gs
  CHECK(t.encode("hello world") == Tokens{begin, hello, space_w, 'o', 'r', 'l', 'd'});
  CHECK(t.encode("h el") == Tokens{begin, 'h', ' ', el});
  CHECK(t.encode("\u00e9\n") == Tokens{begin, e_acute_bytes, '\n'});
  CHECK(t.encode("\u00fc") == Tokens{begin, 0xc3, 0xbc});
  CHECK(t.encode("w   w") == Tokens{begin, 'w', two_spaces, space_w});
  CHECK(t.encode(" hi") == Tokens{begin, ' ', 'h', 'i'});  // no merge leads there
  CHECK(t.encode("\xff\xc3 ") == Tokens{begin, 0xff, 0xc3, ' '});
  CHECK(t.decode(t.encode("hello \u00e9\u00fc\n w\xff")) == "hello \u00e9\u00fc\n w\xff");
}

TEST_CASE("byte-level: pieces that are tokens need no merges where the vocabulary says so") {
  Vocabulary vocabulary = byte_level();
  vocabulary.ignore_merges = true;
  const Tokenizer t(vocabulary);
  CHECK(t.encode(" hi") == Tokens{begin, space_hi});
  CHECK(t.encode("hell") == Tokens{begin, hell});
}

TEST_CASE("byte-level: bytes without a token are left out, or become the unknown token") {
  Vocabulary vocabulary = byte_level();
  vocabulary.tokens['x'] = "xx";
  CHECK(Tokenizer(vocabulary).encode("axxb") == Tokens{begin, 'a', 'b'});
  vocabulary.unknown = be;
  CHECK(Tokenizer(vocabulary).encode("axxb") == Tokens{begin, 'a', 'b'});
  vocabulary.types[be] = TokenType::unknown;
  CHECK(Tokenizer(vocabulary).encode("axxb") == Tokens{begin, 'a', be, be, 'b'});
}

TEST_CASE("added tokens are found first, the longest where several begin") {
  const Tokenizer t(byte_level());
  CHECK(t.encode("el<|begin|>el") == Tokens{begin, el, begin, el});
  CHECK(t.encode("<|bel") == Tokens{begin, be, 'l'});
  CHECK(t.encode("he<|note|><|be<|begin") == Tokens{begin, he, note, be, be, 'g', in});
  CHECK(t.decode(Tokens{begin, el, note, be}) == "el<|note|>");  // control ones are not shown

  // Of text from elsewhere only the user-defined ones.
  CHECK(t.encode("<|be<|note|>", false) == Tokens{begin, '<', '|', 'b', 'e', note});
}

TEST_CASE("the tokens at the ends of a text") {
  Vocabulary vocabulary = byte_level();
  CHECK(Tokenizer(vocabulary).encode("<|begin|>el") == Tokens{begin, el});  // it has one already
  CHECK(Tokenizer(vocabulary).encode("<|begin|>", false).front() == begin);
  CHECK(Tokenizer(vocabulary).encode("<|begin|>", false).size() > 2);
  vocabulary.end = be;
  vocabulary.add_begin = false;
  vocabulary.add_end = true;
  CHECK(Tokenizer(vocabulary).encode("el") == Tokens{el, be});
}

TEST_CASE("added tokens take in the spaces around them where the vocabulary says so") {
  Vocabulary vocabulary = byte_level();
  vocabulary.strip_left = {note};
  CHECK(Tokenizer(vocabulary).encode("el \n<|note|> w") == Tokens{begin, el, note, space_w});
  vocabulary.strip_left = {};
  vocabulary.strip_right = {note};
  CHECK(Tokenizer(vocabulary).encode("el<|note|> \t\r\n<|note|> ") ==
        Tokens{begin, el, note, note});
  CHECK(Tokenizer(vocabulary).encode("w <|note|>") == Tokens{begin, 'w', ' ', note});
}

TEST_CASE("a tokenizer keeps its vocabulary when it is moved") {
  Tokenizer first(byte_level());
  const Tokenizer t(std::move(first));
  CHECK(t.encode("hello") == Tokens{begin, hello});
  CHECK(t.vocabulary().begin == cafeq::Index(begin));
}

TEST_CASE("vocabularies that would be misread are refused") {
  const auto refused = [](const Vocabulary& vocabulary, const std::string& why) {
    CHECK_THROWS_WITH(Tokenizer(vocabulary), Contains(why));
  };
  Vocabulary vocabulary = byte_level();
  vocabulary.pre = "falcon";
  refused(vocabulary, "'falcon', which is not known; known are gpt-2, smollm, llama-bpe, qwen2");
  vocabulary = scored_pieces();
  vocabulary.pre = "qwen2";
  refused(vocabulary, "known are default, gemma4");
  vocabulary = byte_level();
  vocabulary.merges = {"h x"};
  refused(vocabulary, "merge h x: hx is not in the vocabulary");
  vocabulary.merges = {"\u4e00 x"};
  refused(vocabulary, "is not in the vocabulary");
}
