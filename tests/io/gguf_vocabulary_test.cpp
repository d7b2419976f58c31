#include "cafeq/io/gguf_vocabulary.hpp"

#include "io/temporary_directory.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using detail::add_vocabulary;
using detail::GgufVocabulary;
using detail::read_llama2c_vocabulary;
using detail::TokenType;
using test::bytes_of;
using test::error_of;

namespace {

using Tokens = std::vector<std::pair<float, std::string>>;

std::string llama2c_tokenizer(const Tokens& tokens) {
  std::string bytes = bytes_of<std::int32_t>({16});
  for (const auto& [score, piece] : tokens)
    bytes +=
        bytes_of<float>({score}) + bytes_of<std::int32_t>({std::int32_t(piece.size())}) + piece;
  return bytes;
}

const Tokens tokens{{0, "<unk>"}, {0, "\n<s>\n"}, {0, "\n</s>\n"}, {0, "<0x0A>"},
                    {-1, " a b"}, {-2.5f, "é"},   {-3, "<0xaa>"}};

}  // namespace

TEST_CASE("a vocabulary of llama2.c as llama.cpp spells it") {
  const test::TemporaryDirectory directory;
  const GgufVocabulary vocabulary =
      read_llama2c_vocabulary(directory.write("tokenizer.bin", llama2c_tokenizer(tokens)), 7);
  CHECK(vocabulary.model == "llama");
  CHECK(vocabulary.tokens == std::vector<std::string>{"<unk>", "<s>", "</s>", "<0x0A>",
                                                      "\u2581a\u2581b", "é", "<0xaa>"});
  CHECK(vocabulary.scores == std::vector<float>{0, 0, 0, 0, -1, -2.5f, -3});
  CHECK(vocabulary.types == std::vector<TokenType>{TokenType::unknown, TokenType::control,
                                                   TokenType::control, TokenType::byte,
                                                   TokenType::normal, TokenType::normal,
                                                   TokenType::normal});

  GgufMetadata metadata;
  add_vocabulary(metadata, vocabulary, "file");
  const auto field = [&](const char* name) { return message("tokenizer.ggml.", name); };
  CHECK(metadata.get<std::string_view>(field("model")) == "llama");
  CHECK(metadata.get<std::string_view>(field("pre")) == "default");
  CHECK(metadata.get<std::vector<std::string_view>>(field("tokens"))->at(4) == "\u2581a\u2581b");
  CHECK(metadata.get<std::vector<Index>>(field("token_type")) ==
        std::vector<Index>{2, 3, 3, 6, 1, 1, 1});
  CHECK(*metadata.find(field("token_type")) ==
        GgufValue(std::vector<std::int32_t>{2, 3, 3, 6, 1, 1, 1}));
  CHECK(*metadata.find(field("scores")) == GgufValue(vocabulary.scores));
  CHECK(*metadata.find(field("bos_token_id")) == GgufValue(std::uint32_t(1)));
  CHECK(*metadata.find(field("eos_token_id")) == GgufValue(std::uint32_t(2)));
  CHECK(*metadata.find(field("unknown_token_id")) == GgufValue(std::uint32_t(0)));
  CHECK(metadata.get<bool>(field("add_bos_token")) == true);
  CHECK(metadata.get<bool>(field("add_space_prefix")) == true);
  for (const char* name : {"padding_token_id", "merges"})
    CHECK(metadata.find(field(name)) == nullptr);
  CHECK(metadata.find("tokenizer.chat_template") == nullptr);
}

TEST_CASE("llama2.c's tokenizer files are checked") {
  const test::TemporaryDirectory directory;
  const auto error = [&](const std::string& content, Index size) {
    const Error raised =
        error_of([&] { read_llama2c_vocabulary(directory.write("tokenizer.bin", content), size); });
    CHECK_THAT(raised.message(), Contains("tokenizer.bin"));
    return raised;
  };
  const std::string whole = llama2c_tokenizer(tokens);
  CHECK(error(whole, 8).code() == ErrorCode::invalid_argument);
  CHECK_THAT(error(whole, 8).message(), Contains("has 7 tokens, the model 8"));
  CHECK(error(whole.substr(0, whole.size() - 1), 7).code() == ErrorCode::corrupt);
  CHECK(error("abc", 7).code() == ErrorCode::corrupt);
  CHECK(error_of([&] { read_llama2c_vocabulary(directory / "none", 7); }).code() == ErrorCode::io);
}

TEST_CASE("a token that appears twice is refused") {
  GgufMetadata metadata;
  const GgufVocabulary twice{.model = "llama",
                             .tokens = {"a", "b", "a"},
                             .types = std::vector<TokenType>(3, TokenType::normal)};
  const Error error = error_of([&] { add_vocabulary(metadata, twice, "file"); });
  CHECK(error.code() == ErrorCode::corrupt);
  CHECK_THAT(error.message(), Contains("file: tokens 0 and 2"));
}
