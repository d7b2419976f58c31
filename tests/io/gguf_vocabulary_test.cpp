#include "cafeq/io/gguf_vocabulary.hpp"

#include "support/catch.hpp"
#include "support/error_of.hpp"

using namespace cafeq;
using detail::add_vocabulary;
using detail::vocabulary_from_gguf;
using test::error_of;

namespace {

std::string ggml(const char* name) { return message("tokenizer.ggml.", name); }

/// "ab" and "abc" are made in every way that there is.
Vocabulary piece_vocabulary(std::vector<std::string> merges) {
  Vocabulary vocabulary{
      .kind = VocabularyKind::pieces,
      .tokens = {"<unk>", "<s>", "</s>", "<0x0A>", "a", "b", "c", "bc", "ab", "abc", "x\u2581y"},
      .types = std::vector<TokenType>(11, TokenType::normal),
      .merges = std::move(merges),
      .space_prefix = SpacePrefix::first,
      .begin = 1,
      .end = 2,
      .unknown = 0,
      .ends = {2, 5, 6},
      .add_begin = true};
  vocabulary.types[0] = TokenType::unknown;
  vocabulary.types[1] = vocabulary.types[2] = TokenType::control;
  vocabulary.types[3] = TokenType::byte;
  vocabulary.types[10] = TokenType::user_defined;
  return vocabulary;
}
const std::vector<std::string> all_ways{"b c", "a b", "a bc", "ab c"};

Vocabulary byte_vocabulary() {
  return {.pre = "llama-bpe",
          .tokens = {"a", "b", "ab", "<|eot_id|>"},
          .types = {TokenType::normal, TokenType::normal, TokenType::normal, TokenType::control},
          .merges = {"a b"},
          .ignore_merges = true,
          .begin = 3,
          .end = 3,
          .ends = {3},
          .add_end = true,
          .chat_template = "{{ x }}"};
}

GgufMetadata metadata_of(const Vocabulary& vocabulary, Index size) {
  GgufMetadata metadata;
  add_vocabulary(metadata, vocabulary, size, "file");
  return metadata;
}

Error error_of_adding(const Vocabulary& vocabulary) {
  const Error error = error_of([&] { metadata_of(vocabulary, 100); });
  CHECK_THAT(error.message(), Contains("file: "));
  return error;
}

}  // namespace

TEST_CASE("pieces score by their merges") {
  const GgufMetadata metadata = metadata_of(piece_vocabulary(all_ways), 12);
  CHECK(metadata.get<std::string_view>(ggml("model")) == "llama");
  CHECK(metadata.get<std::string_view>(ggml("pre")) == "default");
  const auto tokens = *metadata.get<std::vector<std::string_view>>(ggml("tokens"));
  CHECK(tokens.size() == 12);
  CHECK(tokens[9] == "abc");
  CHECK(tokens[10] == "x y");  // llama.cpp finds it ahead of making spaces visible
  CHECK(tokens[11] == "[PAD11]");
  CHECK(*metadata.find(ggml("token_type")) ==
        GgufValue(std::vector<std::int32_t>{2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 4, 5}));
  const auto scores = *metadata.get<std::vector<double>>(ggml("scores"));
  CHECK(scores.size() == 12);
  CHECK(scores[7] == 0);
  CHECK(scores[8] == -1);
  CHECK(scores[9] == -2);
  CHECK(scores[4] < -2);
  CHECK(*metadata.find(ggml("bos_token_id")) == GgufValue(std::uint32_t(1)));
  CHECK(*metadata.find(ggml("eos_token_id")) == GgufValue(std::uint32_t(2)));
  CHECK(*metadata.find(ggml("eot_token_id")) == GgufValue(std::uint32_t(5)));
  CHECK(*metadata.find(ggml("eom_token_id")) == GgufValue(std::uint32_t(6)));
  CHECK(*metadata.find(ggml("unknown_token_id")) == GgufValue(std::uint32_t(0)));
  CHECK(metadata.get<bool>(ggml("add_bos_token")) == true);
  CHECK(metadata.get<bool>(ggml("add_space_prefix")) == true);
  for (const char* name : {"padding_token_id", "merges", "add_eos_token"})
    CHECK(metadata.find(ggml(name)) == nullptr);
  CHECK(metadata.find("tokenizer.chat_template") == nullptr);
}

TEST_CASE("scores are written as they are") {
  Vocabulary scored = piece_vocabulary({});
  scored.scores = {0, 0, 0, 0, -3, -4, -5, -1.5f, -2, -3, 0};
  scored.space_prefix = SpacePrefix::none;
  const GgufMetadata metadata = metadata_of(scored, 11);
  CHECK(*metadata.find(ggml("scores")) == GgufValue(scored.scores));
  CHECK(metadata.get<bool>(ggml("add_space_prefix")) == false);
}

TEST_CASE("merges that no scores can say are refused") {
  const Error missing = error_of_adding(piece_vocabulary({"b c", "a b", "a bc"}));
  CHECK(missing.code() == ErrorCode::unsupported);
  CHECK_THAT(missing.message(), Contains("abc is two tokens in 2 ways, and merged in 1"));
  const Error apart = error_of_adding(piece_vocabulary({"b c", "a bc", "a b", "ab c"}));
  CHECK(apart.code() == ErrorCode::unsupported);
  CHECK_THAT(apart.message(), Contains("others stand between those into abc"));
  CHECK_THAT(error_of_adding(piece_vocabulary({"b c", "c c"})).message(),
             Contains("merge c c makes no token"));
}

TEST_CASE("what llama.cpp cannot do is refused") {
  Vocabulary twice = byte_vocabulary();
  twice.tokens[1] = "a";
  CHECK(error_of_adding(twice).code() == ErrorCode::corrupt);
  CHECK_THAT(error_of_adding(twice).message(), Contains("tokens 0 and 1"));

  Vocabulary whole = byte_vocabulary();
  whole.pre = "qwen2";
  CHECK(error_of_adding(whole).code() == ErrorCode::unsupported);
  CHECK_THAT(error_of_adding(whole).message(), Contains("qwen2"));
  whole.ignore_merges = false;
  CHECK(metadata_of(whole, 4).get<std::string_view>(ggml("pre")) == "qwen2");

  Vocabulary unigram = piece_vocabulary({});
  unigram.kind = VocabularyKind::unigram;
  unigram.scores.resize(11);
  CHECK_THAT(error_of_adding(unigram).message(), Contains("bytes of a unigram"));

  Vocabulary fewer = piece_vocabulary(all_ways);
  fewer.remove_extra_spaces = true;
  CHECK_THAT(error_of_adding(fewer).message(), Contains("several spaces"));

  const Error error = error_of([&] { metadata_of(byte_vocabulary(), 3); });
  CHECK(error.code() == ErrorCode::invalid_argument);
  CHECK_THAT(error.message(), Contains("has 4 tokens, the model 3"));
}

TEST_CASE("byte-level vocabularies keep their merges") {
  const GgufMetadata metadata = metadata_of(byte_vocabulary(), 4);
  CHECK(metadata.get<std::string_view>(ggml("model")) == "gpt2");
  CHECK(metadata.get<std::string_view>(ggml("pre")) == "llama-bpe");
  CHECK(*metadata.find(ggml("merges")) == GgufValue(std::vector<std::string>{"a b"}));
  CHECK(metadata.get<bool>(ggml("add_bos_token")) == false);
  CHECK(metadata.get<bool>(ggml("add_eos_token")) == true);
  CHECK(metadata.get<std::string_view>("tokenizer.chat_template") == "{{ x }}");
  for (const char* name : {"scores", "add_space_prefix", "eot_token_id"})
    CHECK(metadata.find(ggml(name)) == nullptr);
}

TEST_CASE("what is written is read again") {
  const auto same = [](const Vocabulary& vocabulary) {
    const GgufMetadata metadata = metadata_of(vocabulary, Index(vocabulary.tokens.size()));
    const Vocabulary again = *vocabulary_from_gguf(metadata, "file");
    CHECK(again.kind == vocabulary.kind);
    CHECK(again.pre == vocabulary.pre);
    CHECK(again.types == vocabulary.types);
    CHECK(again.merges == vocabulary.merges);
    CHECK(again.ignore_merges == vocabulary.ignore_merges);
    CHECK(again.begin == vocabulary.begin);
    CHECK(again.end == vocabulary.end);
    CHECK(again.unknown == vocabulary.unknown);
    CHECK(again.padding == vocabulary.padding);
    CHECK(again.ends == vocabulary.ends);
    CHECK(again.add_begin == vocabulary.add_begin);
    CHECK(again.add_end == vocabulary.add_end);
    CHECK(again.space_prefix == vocabulary.space_prefix);
    CHECK(again.remove_extra_spaces == vocabulary.remove_extra_spaces);
    CHECK(again.chat_template == vocabulary.chat_template);
    const GgufMetadata twice = metadata_of(again, Index(again.tokens.size()));
    CHECK(std::ranges::equal(metadata.fields(), twice.fields()));
  };
  same(byte_vocabulary());
  Vocabulary scored = piece_vocabulary({});
  scored.scores = {0, 0, 0, 0, -3, -4, -5, -1.5f, -2, -3, 0};
  scored.space_prefix = SpacePrefix::all;
  scored.padding = 10;
  same(scored);
  scored.types[3] = TokenType::normal;
  scored.kind = VocabularyKind::unigram;
  scored.remove_extra_spaces = true;
  same(scored);
  Vocabulary ranked = piece_vocabulary(all_ways);
  ranked.pre = "gemma4";
  ranked.space_prefix = SpacePrefix::none;
  same(ranked);
}

TEST_CASE("what a file does not say is as in llama.cpp") {
  GgufMetadata metadata;
  CHECK_FALSE(vocabulary_from_gguf(metadata, "file"));
  const auto set = [&](const char* name, const auto& value) {
    metadata.set(ggml(name), GgufValue(value));
  };
  set("model", "no_vocab");
  CHECK_FALSE(vocabulary_from_gguf(metadata, "file"));

  set("model", "llama");
  set("tokens", std::vector<std::string>{"<unk>", "<s>", "</s>", "a"});
  set("scores", std::vector<float>(4));
  Vocabulary vocabulary = *vocabulary_from_gguf(metadata, "file");
  CHECK(vocabulary.begin == 1);
  CHECK(vocabulary.end == 2);
  CHECK(vocabulary.unknown == 0);
  CHECK(vocabulary.add_begin);
  CHECK(vocabulary.space_prefix == SpacePrefix::all);
  CHECK(vocabulary.prefix_spaces);
  CHECK(vocabulary.types == std::vector<TokenType>(4, TokenType::normal));

  set("model", "gpt2");
  set("merges", std::vector<std::string>{"a a"});
  vocabulary = *vocabulary_from_gguf(metadata, "file");
  CHECK_FALSE(vocabulary.begin);
  CHECK_FALSE(vocabulary.add_begin);
  CHECK(vocabulary.pre.empty());
  CHECK(vocabulary.scores.empty());
  set("pre", "llama-bpe");
  set("bos_token_id", std::uint32_t(1));
  vocabulary = *vocabulary_from_gguf(metadata, "file");
  CHECK(vocabulary.ignore_merges);
  CHECK(vocabulary.add_begin);
}

TEST_CASE("tokens end a text by their names unless they are parts of it") {
  GgufMetadata metadata;
  const auto set = [&](const char* name, const auto& value) {
    metadata.set(ggml(name), GgufValue(value));
  };
  set("model", "gpt2");
  set("tokens", std::vector<std::string>{"a", "<|im_end|>", "<end_of_turn>", "<|end|>", "</s>"});
  set("token_type", std::vector<std::int32_t>{1, 3, 4, 3, 1});
  set("merges", std::vector<std::string>{"a a"});
  set("eos_token_id", std::uint32_t(3));
  set("eot_token_id", std::uint32_t(0));
  set("eom_token_id", std::uint32_t(77));
  const Vocabulary vocabulary = *vocabulary_from_gguf(metadata, "file");
  CHECK(vocabulary.ends == std::vector<Index>{3, 0, 1, 2});
  CHECK(vocabulary.types[2] == TokenType::control);
  CHECK(vocabulary.types[4] == TokenType::normal);
}

TEST_CASE("metadata without sense is refused") {
  const auto error = [](const char* name, const auto& value) {
    GgufMetadata metadata = metadata_of(byte_vocabulary(), 4);
    metadata.set(ggml(name), GgufValue(value));
    const Error raised = error_of([&] { vocabulary_from_gguf(metadata, "file"); });
    CHECK_THAT(raised.message(), Contains("file: "));
    return raised;
  };
  CHECK(error("model", "bert").code() == ErrorCode::unsupported);
  CHECK_THAT(error("model", "bert").message(),
             Contains("of the kind bert are not known; those that are: gpt2, llama, t5"));
  CHECK(error("tokens", 3).code() == ErrorCode::corrupt);
  CHECK_THAT(error("tokens", std::vector<float>{1}).message(), Contains("tokens"));
  CHECK_THAT(error("token_type", std::vector<std::int32_t>{1}).message(), Contains("token_type"));
  CHECK_THAT(error("merges", std::vector<float>{1}).message(), Contains("merges"));
  CHECK_THAT(error("model", "llama").message(), Contains("scores"));
}
