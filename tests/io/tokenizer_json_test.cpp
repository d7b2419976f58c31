#include "cafeq/io/tokenizer_json.hpp"

#include <map>

#include "support/catch.hpp"
#include "support/error_of.hpp"

using namespace cafeq;
using detail::Json;
using detail::TokenizerCompanions;
using detail::vocabulary_from_pair;
using detail::vocabulary_from_tokenizer_json;
using test::error_of;

namespace {

const char* const llama3 = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
                           R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char* const qwen2_words = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
                                R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

const char* const tekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
    R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// Pieces with visible spaces; "ab" and "abc" are made in every way that there is.
Json piece_json() {
  return Json::parse(R"({
    "added_tokens": [{"id": 0, "content": "<unk>", "special": true}, {"id": 1, "content": "<s>",
    "special": true},
                     {"id": 2, "content": "</s>", "special": true}, {"id": 10,
    "content": "x\u2581y", "special": false}],
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"},
                                                       {"type": "Replace",
    "pattern": {"String": " "}, "content": "\u2581"}]},
    "pre_tokenizer": null,
    "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>",
    "type_id": 0}}, {"Sequence": {"id": "A"}}]},
    "model": {"type": "BPE", "unk_token": "<unk>", "byte_fallback": true,
              "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "<0x0A>": 3, "a": 4, "b": 5, "c": 6,
    "bc": 7, "ab": 8, "abc": 9},
              "merges": ["b c", "a b", ["a", "bc"], "ab c"]}})");
}

Json byte_level_json(const Json& cuts) {
  Json json = Json::parse(R"({
    "added_tokens": [{"id": 4, "content": "<|begin|>", "special": true}, {"id": 5,
    "content": "<tool>", "special": false}],
    "pre_tokenizer": {"type": "Sequence"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "\u0120": 2, "\u0120a": 3},
    "merges": ["\u0120 a"]}})");
  json["pre_tokenizer"]["pretokenizers"] = cuts;
  return json;
}
Json split(const char* regex) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", regex}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}
Json bytes(bool regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", regex}};
}

using Files = std::map<std::string, std::string, std::less<>>;

TokenizerCompanions companions(const Files& files = {}) {
  return {[&](std::string_view name) -> std::optional<std::string> {
            const auto found = files.find(name);
            return found == files.end() ? std::nullopt : std::optional(found->second);
          },
          "model"};
}

Vocabulary read_tokenizer(const Json& tokenizer, const Files& files = {}) {
  return vocabulary_from_tokenizer_json(tokenizer.dump(), "tokenizer.json", companions(files));
}

Error error_of_json(const Json& tokenizer) {
  const Error raised = error_of([&] { read_tokenizer(tokenizer); });
  CHECK_THAT(raised.message(), Contains("tokenizer.json: "));
  return raised;
}

Json changed(Json json, const char* pointer, const Json& value) {
  json[Json::json_pointer(pointer)] = value;
  return json;
}

}  // namespace

TEST_CASE("pieces with visible spaces") {
  const Vocabulary vocabulary = read_tokenizer(piece_json());
  CHECK(vocabulary.kind == VocabularyKind::pieces);
  CHECK(vocabulary.pre == "default");
  CHECK(vocabulary.tokens == std::vector<std::string>{"<unk>", "<s>", "</s>", "<0x0A>", "a", "b",
                                                      "c", "bc", "ab", "abc", "x\u2581y"});
  CHECK(vocabulary.types ==
        std::vector<TokenType>{TokenType::unknown, TokenType::control, TokenType::control,
                               TokenType::byte, TokenType::normal, TokenType::normal,
                               TokenType::normal, TokenType::normal, TokenType::normal,
                               TokenType::normal, TokenType::user_defined});
  CHECK(vocabulary.merges == std::vector<std::string>{"b c", "a b", "a bc", "ab c"});
  CHECK(vocabulary.scores.empty());
  CHECK(vocabulary.unknown == 0);
  CHECK(vocabulary.begin == 1);
  CHECK(vocabulary.end == 2);  // by its name
  CHECK(vocabulary.ends == std::vector<Index>{2});
  CHECK(vocabulary.add_begin);
  CHECK_FALSE(vocabulary.add_end);
  CHECK(vocabulary.space_prefix == SpacePrefix::all);
  CHECK(vocabulary.prefix_spaces);

  const Json without = changed(piece_json(), "/model/byte_fallback", false);
  CHECK(read_tokenizer(without).types[3] == TokenType::normal);
}

TEST_CASE("spaces that become visible by a pre-tokenizer") {
  Json metaspace = piece_json();
  metaspace["normalizer"] = nullptr;
  metaspace["post_processor"] = nullptr;
  metaspace["pre_tokenizer"] = {{"type", "Metaspace"},
                                {"replacement", "\u2581"},
                                {"prepend_scheme", "never"},
                                {"split", false}};
  CHECK(read_tokenizer(metaspace).space_prefix == SpacePrefix::none);
  CHECK_FALSE(read_tokenizer(metaspace).add_begin);
  metaspace["pre_tokenizer"]["prepend_scheme"] = "first";
  CHECK(read_tokenizer(metaspace).space_prefix == SpacePrefix::first);
  CHECK_FALSE(read_tokenizer(metaspace).prefix_spaces);
  metaspace["pre_tokenizer"].erase("prepend_scheme");
  CHECK(read_tokenizer(metaspace).space_prefix == SpacePrefix::all);

  // Cutting at spaces matters where a merge reaches across one.
  metaspace["pre_tokenizer"]["split"] = true;
  CHECK_NOTHROW(read_tokenizer(metaspace));
  metaspace["model"]["vocab"]["\u2581"] = 11;
  metaspace["model"]["vocab"]["a\u2581"] = 12;
  metaspace["model"]["merges"].push_back("a \u2581");
  CHECK_THAT(error_of_json(metaspace).message(), Contains("merges of the model reach across"));

  // Gemma's: it cuts at spaces, of which none is left.
  Json gemma = piece_json();
  gemma["normalizer"] = {
      {"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}};
  gemma["pre_tokenizer"] = {{"type", "Split"},
                            {"pattern", {{"String", " "}}},
                            {"behavior", "MergedWithPrevious"},
                            {"invert", false}};
  CHECK(read_tokenizer(gemma).space_prefix == SpacePrefix::none);
}

TEST_CASE("byte-level vocabularies have a name for how texts are cut") {
  const Vocabulary vocabulary = read_tokenizer(byte_level_json(Json::array({bytes(true)})));
  CHECK(vocabulary.kind == VocabularyKind::byte_level);
  CHECK(vocabulary.tokens ==
        std::vector<std::string>{"a", "b", "\u0120", "\u0120a", "<|begin|>", "<tool>"});
  CHECK(vocabulary.types == std::vector<TokenType>{TokenType::normal, TokenType::normal,
                                                   TokenType::normal, TokenType::normal,
                                                   TokenType::control, TokenType::user_defined});
  CHECK(vocabulary.merges == std::vector<std::string>{"\u0120 a"});
  CHECK(vocabulary.scores.empty());
  CHECK_FALSE(vocabulary.add_begin);
  CHECK_FALSE(vocabulary.nfc);
  CHECK(read_tokenizer(
            changed(byte_level_json(Json::array({bytes(true)})), "/normalizer", {{"type", "NFC"}}))
            .nfc);

  const auto cutting = [&](const Json& cuts, bool whole = false) {
    const Vocabulary read_one =
        read_tokenizer(changed(byte_level_json(cuts), "/model/ignore_merges", whole));
    CHECK(read_one.ignore_merges == whole);
    return read_one.pre;
  };
  CHECK(vocabulary.pre == "gpt-2");
  CHECK(cutting({split(llama3), bytes(false)}, true) == "llama-bpe");
  CHECK(cutting({split(llama3), bytes(false)}) == "dbrx");
  CHECK(cutting({split(qwen2_words), bytes(false)}) == "qwen2");
  CHECK(cutting({split(tekken), bytes(false)}, true) == "tekken");
  CHECK(cutting({{{"type", "Digits"}, {"individual_digits", true}}, bytes(true)}) == "smollm");
  const auto unknown = [&](const Json& cuts) {
    const Error raised = error_of_json(byte_level_json(cuts));
    CHECK(raised.code() == ErrorCode::unsupported);
    CHECK_THAT(raised.message(),
               Contains("how it cuts texts") && Contains("known are gpt-2, smollm, llama-bpe"));
  };
  unknown({split("\\s+"), bytes(false)});
  unknown(Json::array({bytes(false)}));
  unknown({split(llama3), bytes(true)});
  unknown({{{"type", "Digits"}, {"individual_digits", false}}, bytes(true)});
  unknown({{{"type", "Digits"}, {"individual_digits", true}}, bytes(false)});
  unknown(Json::array({{{"type", "ByteLevel"}, {"add_prefix_space", true}}}));
}

TEST_CASE("added tokens may take in the spaces around them, and leave out ids") {
  Json json = byte_level_json(Json::array({bytes(true)}));
  json["added_tokens"][0]["lstrip"] = true;
  json["added_tokens"][1]["rstrip"] = true;
  json["added_tokens"][1]["id"] = 7;
  const Vocabulary vocabulary = read_tokenizer(json);
  CHECK(vocabulary.strip_left == std::vector<Index>{4});
  CHECK(vocabulary.strip_right == std::vector<Index>{7});
  CHECK(vocabulary.tokens[5] == "[PAD5]");
  CHECK(vocabulary.types[5] == TokenType::unused);
}

TEST_CASE("what a template puts around a text") {
  Json json = piece_json();
  json["post_processor"] = Json::parse(R"({"type": "Sequence", "processors": [
      {"type": "ByteLevel"}, {"type": "TemplateProcessing", "single": [
        {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "</s>"}}]}]})");
  const Vocabulary vocabulary = read_tokenizer(json);
  CHECK_FALSE(vocabulary.add_begin);
  CHECK(vocabulary.add_end);
  CHECK(vocabulary.end == 2);
  CHECK(vocabulary.ends == std::vector<Index>{2});
  const auto refused = [&](const char* single, const char* why) {
    CHECK_THAT(error_of_json(changed(piece_json(), "/post_processor/single", Json::parse(single)))
                   .message(),
               Contains(why));
  };
  refused(R"([{"SpecialToken": {"id": "<s>"}}, {"SpecialToken": {"id": "</s>"}}])", "several");
  refused(R"([{"SpecialToken": {"id": "<t>"}}])", "has the token <t>, which is none");
  refused("3", "no array single");
  CHECK_THAT(
      error_of_json(changed(piece_json(), "/post_processor", {{"type", "RobertaProcessing"}}))
          .message(),
      Contains("RobertaProcessing"));
}

TEST_CASE("what begins and ends a text comes from the companions") {
  const Json json = byte_level_json(Json::array({bytes(true)}));
  Files files{
      {"config.json", R"({"bos_token_id": 0, "eos_token_id": [5, 4], "pad_token_id": 99})"}};
  Vocabulary vocabulary = read_tokenizer(json, files);
  CHECK(vocabulary.begin == 0);
  CHECK(vocabulary.end == 5);
  CHECK_FALSE(vocabulary.padding);
  CHECK(vocabulary.ends == std::vector<Index>{5, 4});

  files["generation_config.json"] = R"({"eos_token_id": [2, 4, 99]})";
  files["tokenizer_config.json"] =
      R"({"bos_token": {"content": "<|begin|>"}, "eos_token": "b", "add_bos_token": true,
    "add_eos_token": true, "chat_template": "{{ x }}"})";
  vocabulary = read_tokenizer(json, files);
  CHECK(vocabulary.begin == 4);
  CHECK(vocabulary.end == 1);
  CHECK(vocabulary.ends == std::vector<Index>{1, 2, 4, 5});
  CHECK(vocabulary.add_begin);
  CHECK(vocabulary.add_end);
  CHECK(vocabulary.chat_template == "{{ x }}");

  files["tokenizer_config.json"] = R"({"add_bos_token": true, "chat_template": [
      {"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]})";
  files["config.json"] = R"({"text_config": {"eos_token_id": 3}})";
  vocabulary = read_tokenizer(json, files);
  CHECK(vocabulary.chat_template == "d");
  CHECK_FALSE(vocabulary.add_begin);  // there is no such token
  CHECK(vocabulary.end == 3);
  files["chat_template.jinja"] = "j";
  CHECK(read_tokenizer(json, files).chat_template == "j");

  files["config.json"] = "{";
  const Error broken = error_of([&] { read_tokenizer(json, files); });
  CHECK(broken.code() == ErrorCode::corrupt);
  CHECK_THAT(broken.message(), Contains("config.json of model"));
}

TEST_CASE("a tokenizer.json that is none, or no BPE, is refused") {
  const auto refused = [](const char* pointer, const Json& value, const char* why) {
    CHECK_THAT(error_of_json(changed(piece_json(), pointer, value)).message(), Contains(why));
  };
  refused("/model", 3, "no object vocab");
  refused("/model/type", "WordPiece", "its model is WordPiece; only BPE is known");
  refused("/model/vocab", {1, 2}, "no object vocab");
  refused("/model/vocab/a", -1, "token a has the id -1");
  refused("/model/vocab/a", 1 << 30, "token a has the id 1073741824");
  refused("/model/merges", "b c", "no array merges");
  refused("/model/merges/0", {"b"}, "[\"b\"] is not one of two pieces");
  refused("/model/merges/0", "bc", "\"bc\" is not one of two pieces");
  refused("/model/merges/0", {"b ", "c"}, "'b ' 'c' is not one of two pieces");
  refused("/model/end_of_word_suffix", "</w>", "end_of_word_suffix </w>");
  refused("/added_tokens/0", {{"id", 0}}, "an added token is");
  refused("/added_tokens/0/content", "", "an added token is");
  refused("/added_tokens/0/single_word", true, "single word");
  refused("/normalizer", {{"type", "Lowercase"}}, "Lowercase");
  refused("/normalizer", nullptr, "neither byte-level nor made of pieces");
  refused("/pre_tokenizer", {{"type", "Whitespace"}}, "Whitespace");
  CHECK_THAT(error_of_json(Json::array()).message(), Contains("has no model"));
  CHECK_THAT(error_of_json(changed(byte_level_json(Json::array({bytes(true)})), "/normalizer",
                                   {{"type", "NFKC"}}))
                 .message(),
             Contains("NFKC"));
  CHECK(error_of([] { vocabulary_from_tokenizer_json("{", "file", companions()); }).code() ==
        ErrorCode::corrupt);
}

TEST_CASE("a vocab.json with its merges.txt") {
  Files files{{"tokenizer_config.json", R"({"tokenizer_class": "Qwen2Tokenizer", "eos_token":
    "<|e|>", "added_tokens_decoder": {"3": {"content": "<|e|>", "special": true, "rstrip": true},
    "4": {"content": "<t>", "special": false, "lstrip": true}}})"}};
  const char* const tokens = R"({"a": 0, "b": 1, "ab": 2})";
  const Vocabulary vocabulary =
      vocabulary_from_pair(tokens, "#version: 0.2\r\na b\r\n", "model", companions(files));
  CHECK(vocabulary.kind == VocabularyKind::byte_level);
  CHECK(vocabulary.pre == "qwen2");
  CHECK(vocabulary.nfc);
  CHECK(vocabulary.tokens == std::vector<std::string>{"a", "b", "ab", "<|e|>", "<t>"});
  CHECK(vocabulary.types == std::vector<TokenType>{TokenType::normal, TokenType::normal,
                                                   TokenType::normal, TokenType::control,
                                                   TokenType::user_defined});
  CHECK(vocabulary.merges == std::vector<std::string>{"a b"});
  CHECK(vocabulary.end == 3);
  CHECK(vocabulary.strip_left == std::vector<Index>{4});
  CHECK(vocabulary.strip_right == std::vector<Index>{3});

  const auto refused = [&](const char* vocab, const char* merges) {
    const Error raised =
        error_of([&] { vocabulary_from_pair(vocab, merges, "model", companions(files)); });
    CHECK_THAT(raised.message(), Contains("model"));
    return raised.code();
  };
  CHECK(refused("[1]", "a b") == ErrorCode::corrupt);
  CHECK(refused(R"({"a": -1})", "a b") == ErrorCode::corrupt);
  CHECK(refused(tokens, "ab") == ErrorCode::corrupt);
  files["tokenizer_config.json"] = R"({"tokenizer_class": "CLIPTokenizer"})";
  CHECK(refused(tokens, "a b") == ErrorCode::unsupported);
  files["tokenizer_config.json"] = R"({"tokenizer_class": "GPT2Tokenizer"})";
  CHECK(vocabulary_from_pair(tokens, "a b", "model", companions(files)).pre == "gpt-2");
  files["tokenizer_config.json"] =
      R"({"tokenizer_class": "GPT2Tokenizer", "added_tokens_decoder": {"x": {"content": "y"}}})";
  CHECK(refused(tokens, "a b") == ErrorCode::corrupt);
}
