#include "cafeq/io/tokenizer_json.hpp"

#include "io/temporary_directory.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using detail::add_vocabulary;
using detail::GgufVocabulary;
using detail::Json;
using detail::read_tokenizer_json;
using detail::TokenType;
using test::error_of;

namespace {

const char* const llama3 = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
                           R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char* const qwen2_words = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
                                R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// Pieces with visible spaces; "ab" and "abc" are made in every way that there is.
Json pieces() {
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

Json byte_level(const Json& cuts) {
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

struct Files : test::TemporaryDirectory {
  GgufVocabulary read(const Json& tokenizer, Index size) const {
    return read_tokenizer_json(write("tokenizer.json", tokenizer.dump()), size);
  }
  Error error(const Json& tokenizer, Index size = 12) const {
    const Error error = error_of([&] { read(tokenizer, size); });
    CHECK_THAT(error.message(), Contains("tokenizer.json: "));
    return error;
  }
};

}  // namespace

TEST_CASE("pieces score by their merges") {
  const Files files;
  const GgufVocabulary vocabulary = files.read(pieces(), 12);
  CHECK(vocabulary.model == "llama");
  CHECK(vocabulary.pre == "default");
  CHECK(vocabulary.tokens == std::vector<std::string>{"<unk>", "<s>", "</s>", "<0x0A>", "a", "b",
                                                      "c", "bc", "ab", "abc", "x y", "[PAD11]"});
  CHECK(vocabulary.types ==
        std::vector<TokenType>{TokenType::unknown, TokenType::control, TokenType::control,
                               TokenType::byte, TokenType::normal, TokenType::normal,
                               TokenType::normal, TokenType::normal, TokenType::normal,
                               TokenType::normal, TokenType::user_defined, TokenType::unused});
  CHECK(vocabulary.scores[7] == 0);
  CHECK(vocabulary.scores[8] == -1);
  CHECK(vocabulary.scores[9] == -2);
  CHECK(vocabulary.scores[4] < -2);
  CHECK(vocabulary.merges.empty());
  CHECK(vocabulary.unknown == 0);
  CHECK(vocabulary.begin == 1);
  CHECK_FALSE(vocabulary.end);
  CHECK(vocabulary.add_begin);
  CHECK(vocabulary.add_space_prefix);

  Json metaspace = pieces();
  metaspace["normalizer"] = nullptr;
  metaspace["post_processor"] = nullptr;
  metaspace["pre_tokenizer"] = {{"type", "Metaspace"},
                                {"replacement", "\u2581"},
                                {"prepend_scheme", "never"},
                                {"split", false}};
  CHECK_FALSE(files.read(metaspace, 12).add_space_prefix);
  CHECK_FALSE(files.read(metaspace, 12).add_begin);
  metaspace["pre_tokenizer"]["prepend_scheme"] = "first";
  CHECK(files.read(metaspace, 12).add_space_prefix);
}

TEST_CASE("merges that no scores can say are refused") {
  const Files files;
  const auto error = [&](const Json& merges) {
    Json json = pieces();
    json["model"]["merges"] = merges;
    return files.error(json);
  };
  const Error missing = error({"b c", "a b", "a bc"});
  CHECK(missing.code() == ErrorCode::unsupported);
  CHECK_THAT(missing.message(), Contains("abc is two tokens in 2 ways, and merged in 1"));
  const Error apart = error({"b c", "a bc", "a b", "ab c"});
  CHECK(apart.code() == ErrorCode::unsupported);
  CHECK_THAT(apart.message(), Contains("others stand between those into abc"));
  CHECK_THAT(error({"b c", "c c"}).message(), Contains("merge c c makes no token"));
}

TEST_CASE("byte-level vocabularies keep their merges and have a name for how texts are cut") {
  const Files files;
  const GgufVocabulary vocabulary = files.read(byte_level(Json::array({bytes(true)})), 6);
  CHECK(vocabulary.model == "gpt2");
  CHECK(vocabulary.tokens ==
        std::vector<std::string>{"a", "b", "\u0120", "\u0120a", "<|begin|>", "<tool>"});
  CHECK(vocabulary.types == std::vector<TokenType>{TokenType::normal, TokenType::normal,
                                                   TokenType::normal, TokenType::normal,
                                                   TokenType::control, TokenType::user_defined});
  CHECK(vocabulary.merges == std::vector<std::string>{"\u0120 a"});
  CHECK(vocabulary.scores.empty());
  CHECK_FALSE(vocabulary.add_begin);

  const auto cutting = [&](const Json& cuts, bool whole = false) {
    Json json = byte_level(cuts);
    json["model"]["ignore_merges"] = whole;
    return files.read(json, 6).pre;
  };
  CHECK(vocabulary.pre == "gpt-2");
  CHECK(cutting({split(llama3), bytes(false)}, true) == "llama-bpe");
  CHECK(cutting({split(llama3), bytes(false)}) == "dbrx");
  CHECK(cutting({split(qwen2_words), bytes(false)}) == "qwen2");
  CHECK(cutting({{{"type", "Digits"}, {"individual_digits", true}}, bytes(true)}) == "smollm");
  const auto unknown = [&](const Json& cuts) {
    const Error error = files.error(byte_level(cuts), 6);
    CHECK(error.code() == ErrorCode::unsupported);
    CHECK_THAT(error.message(), Contains("how it cuts texts"));
  };
  unknown({split("\\s+"), bytes(false)});
  unknown(Json::array({bytes(false)}));
  unknown({{{"type", "Digits"}, {"individual_digits", false}}, bytes(true)});
  unknown(Json::array({{{"type", "ByteLevel"}, {"add_prefix_space", true}}}));
}

TEST_CASE("what begins and ends a text comes from the files beside") {
  const Files files;
  files.write("config.json", R"({"bos_token_id": 0, "eos_token_id": [5, 4], "pad_token_id": 99})");
  GgufVocabulary vocabulary = files.read(byte_level(Json::array({bytes(true)})), 6);
  CHECK(vocabulary.begin == 0);
  CHECK(vocabulary.end == 5);
  CHECK_FALSE(vocabulary.padding);
  files.write("tokenizer_config.json",
              R"({"bos_token": {"content": "<|begin|>"}, "eos_token": "b", "add_bos_token": true,
    "chat_template": "{{ x }}"})");
  vocabulary = files.read(byte_level(Json::array({bytes(true)})), 6);
  CHECK(vocabulary.begin == 4);
  CHECK(vocabulary.end == 1);
  CHECK(vocabulary.add_begin);
  CHECK(vocabulary.chat_template == "{{ x }}");
  GgufMetadata metadata;
  add_vocabulary(metadata, vocabulary, "file");
  CHECK(metadata.get<std::string_view>("tokenizer.chat_template") == "{{ x }}");
  CHECK(*metadata.find("tokenizer.ggml.merges") == GgufValue(std::vector<std::string>{"\u0120 a"}));
  CHECK(metadata.find("tokenizer.ggml.scores") == nullptr);
  CHECK(metadata.find("tokenizer.ggml.add_space_prefix") == nullptr);
}

TEST_CASE("a tokenizer.json that is none, or no BPE, is refused") {
  const Files files;
  const auto changed = [&](const Json& base, const char* pointer, const Json& value) {
    Json json = base;
    json[Json::json_pointer(pointer)] = value;
    return files.error(json);
  };
  const Json base = pieces();
  CHECK_THAT(changed(base, "/model", 3).message(), Contains("no object vocab"));
  CHECK_THAT(changed(base, "/model/type", "Unigram").message(), Contains("Unigram"));
  CHECK_THAT(changed(base, "/model/vocab", {1, 2}).message(), Contains("no object vocab"));
  CHECK_THAT(changed(base, "/model/vocab/a", -1).message(), Contains("token a has the id -1"));
  CHECK_THAT(changed(base, "/model/vocab/a", 12).message(),
             Contains("token a has the id 12, the model 12 tokens"));
  CHECK_THAT(changed(base, "/model/merges", "b c").message(), Contains("no array merges"));
  CHECK_THAT(changed(base, "/model/merges/0", {"b"}).message(),
             Contains("[\"b\"] is not one of two pieces"));
  CHECK_THAT(changed(base, "/added_tokens/0", {{"id", 0}}).message(),
             Contains("an added token is"));
  CHECK_THAT(changed(base, "/normalizer", {{"type", "Lowercase"}}).message(),
             Contains("Lowercase"));
  CHECK_THAT(changed(base, "/normalizer", nullptr).message(),
             Contains("neither byte-level nor made of pieces"));
  CHECK_THAT(changed(base, "/pre_tokenizer", {{"type", "Whitespace"}}).message(),
             Contains("Whitespace"));
  CHECK_THAT(files.error(Json::array()).message(), Contains("has no model"));
  CHECK(error_of([&] { read_tokenizer_json(files.write("tokenizer.json", "{"), 1); }).code() ==
        ErrorCode::corrupt);
  CHECK(error_of([&] { read_tokenizer_json(files / "none.json", 1); }).code() == ErrorCode::io);
}
