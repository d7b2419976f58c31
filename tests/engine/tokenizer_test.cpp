// Tokens of small vocabularies, worked out by hand.
#include "engine/tokenizer_files.hpp"
#include "io/temporary_directory.hpp"
#include "support/catch.hpp"

using namespace engine;
using cafeq::test::TemporaryDirectory;

namespace {

using Tokens = std::vector<Token>;

std::string byte_name(unsigned byte) {
  char name[8];
  std::snprintf(name, sizeof name, "<0x%02X>", byte);
  return name;
}

// ---- llama2.c ----

struct Scored {
  float score;
  std::string piece;
};

/// Three control tokens, 256 bytes, and from 259 on what the tests are about.
std::vector<Scored> small_vocabulary() {
  std::vector<Scored> all{{0, "<unk>"}, {0, "\n<s>\n"}, {0, "\n</s>\n"}};
  for (unsigned byte = 0; byte < 256; ++byte) all.push_back({0, byte_name(byte)});
  const Scored words[] = {{-10, " "},      {-11, "a"}, {-12, "b"},  {-13, "c"},
                          {-2, "ab"},      {-1, "bc"}, {-3, "abc"}, {-4, " a"},
                          {-14, "\u00e9"}, {-6, "cc"}, {-6, "ca"}};
  all.insert(all.end(), std::begin(words), std::end(words));
  return all;
}
enum : Token { space = 259, a, b, c, ab, bc, abc, space_a, e_acute, cc, ca, small_size };

std::string llama2c_file(const std::vector<Scored>& all) {
  std::string bytes("\x06\0\0\0", 4);
  for (const auto& [score, piece] : all) {
    const auto length = std::uint32_t(piece.size());
    bytes.append(reinterpret_cast<const char*>(&score), 4)
        .append(reinterpret_cast<const char*>(&length), 4)
        .append(piece);
  }
  return bytes;
}

Token of_byte(unsigned byte) { return 3 + byte; }

// ---- tokenizer.json ----

Json byte_level() {
  Json root = Json::parse(R"({
    "added_tokens": [{"id": 300, "content": "<|begin|>", "special": true}, {"id": 301,
    "content": "<|be", "special": true},
                     {"id": 302, "content": "<|note|>", "special": false}],
    "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
    "use_regex": true},
    "post_processor": {"type": "Sequence", "processors": [
      {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false},
      {"type": "TemplateProcessing",
       "single": [{"SpecialToken": {"id": "<|begin|>", "type_id": 0}}, {"Sequence": {"id": "A",
    "type_id": 0}}],
       "special_tokens": {"<|begin|>": {"id": "<|begin|>", "ids": [300],
    "tokens": ["<|begin|>"]}}}]},
    "model": {"type": "BPE", "vocab": {}, "merges": ["l l", "h e", "he ll", "\u0120 w", "e l",
    "hell o", "\u00c3 \u00a9", "\u0120 \u0120", "i n", "g s", "in gs"]}})");
  Json& vocab = root["model"]["vocab"];
  const auto visible = engine::detail::visible_bytes();
  for (unsigned byte = 0; byte < 256; ++byte) vocab[visible[byte]] = byte;
  Token next = 256;
  for (const char* piece : {"ll", "he", "hell", "\u0120w", "el", "hello", "\u00c3\u00a9",
                            "\u0120\u0120", "\u0120hi", "in", "gs", "ings"})
    vocab[piece] = next++;
  return root;
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
  ings
};

/// As Llama 2 has it.
Json sentence_pieces() {
  Json root = Json::parse(R"({
    "added_tokens": [{"id": 1, "content": "<s>", "special": true}, {"id": 2, "content": "</s>",
    "special": true}],
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"},
                                                       {"type": "Replace",
    "pattern": {"String": " "}, "content": "\u2581"}]},
    "pre_tokenizer": null,
    "post_processor": {"type": "TemplateProcessing",
       "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A",
    "type_id": 0}}],
       "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
    "model": {"type": "BPE", "byte_fallback": true, "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2},
              "merges": [["b", "c"], ["a", "b"], ["a", "bc"], ["\u2581", "a"]]}})");
  Json& vocab = root["model"]["vocab"];
  for (unsigned byte = 0; byte < 256; ++byte) vocab[byte_name(byte)] = 3 + byte;
  Token next = 259;
  for (const char* piece : {"\u2581", "a", "b", "c", "ab", "bc", "abc", "\u2581a"})
    vocab[piece] = next++;
  return root;
}

Tokenizer load(const Json& root) {
  const TemporaryDirectory directory;
  return load_tokenizer_json(directory.write("tokenizer.json", root.dump()));
}

void check_refused(const Json& root, const std::string& why) {
  CHECK_THROWS_WITH(load(root), Contains("tokenizer.json") && Contains(why));
}

}  // namespace

TEST_CASE("llama2.c: the highest score is merged first, the leftmost among equals") {
  const TemporaryDirectory directory;
  const Tokenizer t = load_llama2c_tokenizer(
      directory.write("tok.bin", llama2c_file(small_vocabulary())), small_size);
  CHECK(t.encode("") == Tokens{1});
  CHECK(t.encode("a") == Tokens{1, space_a});       // a space goes before the text
  CHECK(t.encode("ab") == Tokens{1, space, ab});    // ab -2 before " a" -4
  CHECK(t.encode("abc") == Tokens{1, space, abc});  // bc -1, then a + bc -3
  CHECK(t.encode("aab") == Tokens{1, space_a, ab});
  CHECK(t.encode("ccc") == Tokens{1, space, cc, c});  // twice cc
  CHECK(t.encode("cca") == Tokens{1, space, cc, a});  // cc and ca have the same score
  CHECK(t.encode("bca") == Tokens{1, space, bc, a});
  CHECK(t.encode(" a") == Tokens{1, space, space_a});  // also where there is one
}

TEST_CASE("llama2.c: characters without a token are bytes; what names a token is plain text") {
  const TemporaryDirectory directory;
  const Tokenizer t = load_llama2c_tokenizer(
      directory.write("tok.bin", llama2c_file(small_vocabulary())), small_size);
  CHECK(t.encode("\u00e9") == Tokens{1, space, e_acute});
  CHECK(t.encode("\u00fca") == Tokens{1, space, of_byte(0xc3), of_byte(0xbc), a});
  CHECK(t.encode("\U0001f600") ==
        Tokens{1, space, of_byte(0xf0), of_byte(0x9f), of_byte(0x98), of_byte(0x80)});
  CHECK(t.encode("\xff") == Tokens{1, space, of_byte(0xff)});
  Tokens literal{1, space};
  for (const char byte : std::string("<0x41>")) literal.push_back(of_byte(unsigned(byte)));
  CHECK(t.encode("<0x41>") == literal);
  auto spelled = small_vocabulary();
  for (const char* piece : {"<", "0", "x", "4", "1", ">", "0x", "0x4", "0x41", "0x41>"})
    spelled.push_back({-1, piece});
  const Tokenizer s =
      load_llama2c_tokenizer(directory.write("spelled.bin", llama2c_file(spelled)), spelled.size());
  CHECK(s.encode("<0x41>") == Tokens{1, space, small_size, small_size + 9});

  CHECK(t.decode(t.encode("abc \u00fc\u00e9 a")) == "abc \u00fc\u00e9 a");
  CHECK(t.decode(Tokens{1, space_a, a}) == "aa");  // the space that was put before it is gone
  CHECK(t.decode(Tokens{1, 0, 2, 9999}) == "");
}

TEST_CASE("llama2.c: broken files are refused") {
  const TemporaryDirectory directory;
  const auto refused = [&](const std::string& bytes, std::size_t vocabulary,
                           const std::string& why) {
    CHECK_THROWS_WITH(load_llama2c_tokenizer(directory.write("tok.bin", bytes), vocabulary),
                      Contains("tok.bin") && Contains(why));
  };
  const std::string good = llama2c_file(small_vocabulary());
  refused(good, small_size + 1, "ends before the 271 tokens");
  refused(good, small_size - 1, "more than the 269 tokens");
  refused(good.substr(0, 2), small_size, "ends before");
  std::string huge = good;
  huge[11] = '\x7f';
  refused(huge, small_size, "token 0 is said to have 2130706437 bytes");
  auto missing = small_vocabulary();
  missing[of_byte(65)].piece = "x";
  refused(llama2c_file(missing), small_size, "255 of the 256 bytes");
}

TEST_CASE("byte-level: how bytes are written") {
  const auto visible = engine::detail::visible_bytes();
  CHECK(visible['a'] == "a");
  CHECK(visible[' '] == "\u0120");
  CHECK(visible['\n'] == "\u010a");
  CHECK(visible[0x00] == "\u0100");
  CHECK(visible[0x7f] == "\u0121");
  CHECK(visible[0xa0] == "\u0142");
  CHECK(visible[0xa1] == "\u00a1");
  CHECK(visible[0xad] == "\u0143");
  CHECK(visible[0xff] == "\u00ff");
}

TEST_CASE("byte-level: merges in their order, within pieces") {
  const Tokenizer t = load(byte_level());
  CHECK(t.encode("") == Tokens{300});
  CHECK(t.encode("hello") == Tokens{300, hello});        // l l, h e, he ll, hell o
  CHECK(t.encode("helo") == Tokens{300, he, 'l', 'o'});  // h e ranks before e l
  CHECK(t.encode("elll") == Tokens{300, 'e', ll, 'l'});  // l l ranks first, leftmost
  CHECK(t.encode("el") == Tokens{300, el});
  CHECK(t.encode("ings") == Tokens{300, ings});  // i n, g s, in gs
  CHECK(t.encode("hello world") == Tokens{300, hello, space_w, 'o', 'r', 'l', 'd'});
  CHECK(t.encode("h el") == Tokens{300, 'h', ' ', el});
  CHECK(t.encode("\u00e9\n") == Tokens{300, e_acute_bytes, '\n'});
  CHECK(t.encode("\u00fc") == Tokens{300, 0xc3, 0xbc});
  Json same = byte_level();  // a broken vocabulary: one token for two pieces
  same["model"]["vocab"]["ll"] = 'l';
  CHECK(load(same).encode("lllll") == Tokens{300, 'l'});
  CHECK(t.encode("w   w") == Tokens{300, 'w', two_spaces, space_w});
  CHECK(t.encode(" hi") == Tokens{300, ' ', 'h', 'i'});  // no merge leads there
  CHECK(t.decode(t.encode("hello \u00e9\u00fc\n w")) == "hello \u00e9\u00fc\n w");
}

TEST_CASE("byte-level: pieces that are tokens need no merges where the file says so") {
  Json root = byte_level();
  root["model"]["ignore_merges"] = true;
  const Tokenizer t = load(root);
  CHECK(t.encode(" hi") == Tokens{300, space_hi});
  CHECK(t.encode("hell") == Tokens{300, hell});
}

TEST_CASE("byte-level: the pattern of Llama 3 and single digits") {
  Json root = byte_level();
  root["pre_tokenizer"] =
      Json::parse(R"json({"type": "Sequence", "pretokenizers": [
    {"type": "Split", "behavior": "Isolated", "invert": false, "pattern": {"Regex":
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|)json"
                  R"json( ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
    {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
    "use_regex": false}]})json");
  const Tokenizer llama3 = load(root);
  REQUIRE(llama3.splitters.size() == 1);
  CHECK(llama3.splitters[0] == split_llama3);
  root["pre_tokenizer"] = Json::parse(R"({"type": "Sequence", "pretokenizers": [
    {"type": "Digits", "individual_digits": true}, {"type": "ByteLevel",
    "add_prefix_space": false, "use_regex": true}]})");
  CHECK(load(root).splitters == std::vector<Splitter>{split_digits, split_gpt2});
}

TEST_CASE("added tokens are found first, the longest where several begin") {
  const Tokenizer t = load(byte_level());
  CHECK(t.encode("el<|begin|>el") == Tokens{300, el, 300, el});
  CHECK(t.encode("<|bel") == Tokens{300, 301, 'l'});
  CHECK(t.encode("he<|note|><|be<|begin") == Tokens{300, he, 302, 301, 301, 'g', in});
  CHECK(t.decode(Tokens{300, el, 302, 301}) == "el<|note|>");  // special ones are not shown
}

TEST_CASE("sentence pieces: spaces, bytes, and texts after an added token") {
  const Tokenizer t = load(sentence_pieces());
  CHECK(t.encode("abc") == Tokens{1, space, abc});
  CHECK(t.encode("ab a") == Tokens{1, space, ab, space_a});
  CHECK(t.encode("\u00fc") == Tokens{1, space, of_byte(0xc3), of_byte(0xbc)});
  CHECK(t.encode("b</s>a") == Tokens{1, space, b, 2, space_a});
  CHECK(t.encode(" a") == Tokens{1, space, space_a});
  CHECK(t.encode("b\u2581a") == Tokens{1, space, b, space_a});  // which is how a space is written
  CHECK(t.decode(t.encode("ab a\n\u00fc")) == "ab a\n\u00fc");
}

TEST_CASE("sentence pieces: visible spaces by the pre-tokenizer") {
  Json root = sentence_pieces();
  root["normalizer"] = nullptr;
  const auto with_scheme = [&](const char* scheme) {
    root["pre_tokenizer"] = {{"type", "Metaspace"},
                             {"replacement", "\u2581"},
                             {"prepend_scheme", scheme},
                             {"split", false}};
    return load(root);
  };
  CHECK(with_scheme("always").encode("b</s>a") == Tokens{1, space, b, 2, space_a});
  CHECK(with_scheme("first").encode("b</s>a") == Tokens{1, space, b, 2, a});
  CHECK(with_scheme("never").encode("b</s>a") == Tokens{1, b, 2, a});
  CHECK(with_scheme("first").encode(" a") == Tokens{1, space_a});  // one space is enough
  CHECK(with_scheme("never").decode(Tokens{space_a}) == " a");
}

TEST_CASE("a tokenizer.json that would be misread is refused") {
  const auto changed = [](Json root, const char* pointer, const Json& value) {
    root[Json::json_pointer(pointer)] = value;
    return root;
  };
  const Json root = byte_level();
  check_refused(changed(root, "/model/type", "Unigram"), "\"Unigram\" is not known");
  check_refused(changed(root, "/normalizer", {{"type", "NFKC"}}),
                "normalizer {\"type\":\"NFKC\"} is not known");
  check_refused(changed(root, "/pre_tokenizer", {{"type", "Whitespace"}}),
                "pre-tokenizer {\"type\":\"Whitespace\"} is not known");
  check_refused(changed(root, "/pre_tokenizer/add_prefix_space", true), "add_prefix_space");
  check_refused(
      changed(root, "/pre_tokenizer",
              {{"type", "Split"}, {"pattern", {{"Regex", "\\w+"}}}, {"behavior", "Isolated"}}),
      "is not known");
  check_refused(changed(root, "/pre_tokenizer", nullptr), "neither byte-level");
  check_refused(changed(root, "/model/merges", {"h x"}), "'hx' is not in the vocabulary");
  check_refused(changed(root, "/model/merges", {"hx"}), "merge 'hx' is not one of two pieces");
  check_refused(changed(root, "/model/vocab/a", "b"), "must be number");
  check_refused(changed(root, "/model/vocab/a", 1 << 30), "token 1073741824 is out of range");
  check_refused(changed(root, "/added_tokens/0/content", ""), "token 300 is empty");
  Json missing = root;
  missing["model"]["vocab"].erase("a");
  check_refused(missing, "'a' is not in the vocabulary");
  missing = sentence_pieces();
  missing["model"]["vocab"].erase("<0x41>");
  check_refused(missing, "255 of the 256 bytes");
  missing.erase("model");
  check_refused(missing, "model");

  const TemporaryDirectory directory;
  CHECK_THROWS_WITH(load_tokenizer_json(directory.write("tokenizer.json", "{\"model\": ")),
                    Contains("tokenizer.json") && Contains("parse error"));
}
