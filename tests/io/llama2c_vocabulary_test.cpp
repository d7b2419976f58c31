#include "cafeq/io/llama2c_vocabulary.hpp"

#include "io/temporary_directory.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using detail::vocabulary_from_llama2c;
using test::bytes_of;
using test::error_of;

namespace {

using ScoredTokens = std::vector<std::pair<float, std::string>>;

std::string llama2c_tokenizer(const ScoredTokens& tokens) {
  std::string bytes = bytes_of<std::int32_t>({16});
  for (const auto& [score, piece] : tokens)
    bytes +=
        bytes_of<float>({score}) + bytes_of<std::int32_t>({std::int32_t(piece.size())}) + piece;
  return bytes;
}

const ScoredTokens scored_tokens{{0, "<unk>"}, {0, "\n<s>\n"}, {0, "\n</s>\n"}, {0, "<0x0A>"},
                                 {-1, " a b"}, {-2.5f, "é"},   {-3, "<0xaa>"}};

}  // namespace

TEST_CASE("a tokenizer file of llama2.c") {
  const Vocabulary vocabulary = vocabulary_from_llama2c(llama2c_tokenizer(scored_tokens), "file");
  CHECK(vocabulary.kind == VocabularyKind::pieces);
  CHECK(vocabulary.pre == "default");
  CHECK(vocabulary.tokens == std::vector<std::string>{"<unk>", "<s>", "</s>", "<0x0A>",
                                                      "\u2581a\u2581b", "é", "<0xaa>"});
  CHECK(vocabulary.scores == std::vector<float>{0, 0, 0, 0, -1, -2.5f, -3});
  CHECK(vocabulary.types == std::vector<TokenType>{TokenType::unknown, TokenType::control,
                                                   TokenType::control, TokenType::byte,
                                                   TokenType::normal, TokenType::normal,
                                                   TokenType::normal});
  CHECK(vocabulary.begin == 1);
  CHECK(vocabulary.end == 2);
  CHECK(vocabulary.unknown == 0);
  CHECK(vocabulary.ends == std::vector<Index>{2});
  CHECK(vocabulary.add_begin);
  CHECK_FALSE(vocabulary.add_end);
  CHECK(vocabulary.space_prefix == SpacePrefix::all);
  CHECK(vocabulary.prefix_spaces);
}

TEST_CASE("broken tokenizer files of llama2.c are refused") {
  const auto refused = [](const std::string& content, const char* why) {
    const Error error = error_of([&] { vocabulary_from_llama2c(content, "file"); });
    CHECK(error.code() == ErrorCode::corrupt);
    CHECK_THAT(error.message(), Contains("file: ") && Contains(why));
  };
  const std::string whole = llama2c_tokenizer(scored_tokens);
  refused(whole.substr(0, whole.size() - 1), "a token of 6 bytes");
  refused("abc", "longest token");
  refused(llama2c_tokenizer({{0, "a"}, {0, "b"}}), "has 2 tokens");
  std::string huge = whole;
  huge[11] = '\x7f';
  refused(huge, "a token of 2130706437 bytes");
}
