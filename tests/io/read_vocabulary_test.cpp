#include "cafeq/io/read_vocabulary.hpp"

#include "cafeq/io/gguf_file.hpp"
#include "cafeq/io/safetensors.hpp"
#include "io/temporary_directory.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using test::bytes_of;
using test::error_of;

namespace {

const char* const small_tokenizer = R"({
    "added_tokens": [{"id": 3, "content": "<s>", "special": true},
                     {"id": 4, "content": "<t>", "special": false, "rstrip": true}],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
    "model": {"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"], "unk_token": "b"}})";

/// A tokenizer file of llama2.c with this many tokens.
std::string llama2c_tokenizer(int tokens) {
  std::string bytes = bytes_of<std::int32_t>({1});
  for (int i = 0; i < tokens; ++i)
    bytes += bytes_of<float>({0}) + bytes_of<std::int32_t>({1}) + char('a' + i);
  return bytes;
}

/// A model of SentencePiece with the pieces "<unk>" and "a".
std::string sentencepiece() {
  return std::string("\n\x09\n\x05<unk>\x18\x02") +
         "\n\x03\n\x01"
         "a";
}

struct ModelDirectory : test::TemporaryDirectory {
  explicit ModelDirectory(const std::string& config = R"({"model_type": "llama"})") {
    write("config.json", config);
    const std::vector<float> values{1, 2};
    write_safetensors(*this / "model.safetensors", {{"w", as_tensor(std::span(values))}});
  }
  std::optional<Vocabulary> vocabulary(const std::string& file = {}) const {
    return read_vocabulary(ModelFile(path()), file);
  }
};

using Strings = std::vector<std::string>;

}  // namespace

TEST_CASE("the vocabulary of a Hugging Face model comes from what lies beside it") {
  const ModelDirectory model;
  CHECK_FALSE(model.vocabulary());

  model.write("vocab.json", R"({"x": 0})");
  CHECK_FALSE(model.vocabulary());
  model.write("merges.txt", "#version: 0.2\n");
  model.write("tokenizer_config.json",
              R"({"tokenizer_class": "GPT2Tokenizer", "bos_token": "<s>", "add_bos_token": true,
    "added_tokens_decoder": {"2": {"content": "<s>", "special": true}}})");
  CHECK(model.vocabulary()->tokens == Strings{"x", "[PAD1]", "<s>"});
  CHECK(model.vocabulary()->begin == 2);

  model.write("tokenizer.model", sentencepiece());
  CHECK(model.vocabulary()->tokens == Strings{"<unk>", "a", "<s>"});
  CHECK(model.vocabulary()->scores.size() == 3);
  CHECK(model.vocabulary()->types[2] == TokenType::control);

  model.write("tokenizer.json", small_tokenizer);
  CHECK(model.vocabulary()->tokens == Strings{"a", "b", "ab", "<s>", "<t>"});
  CHECK(model.vocabulary()->add_begin);
}

TEST_CASE("a file that is named is taken by its content, and what lies beside it") {
  const ModelDirectory model;
  model.write("tokenizer_config.json", R"({"eos_token": "ab"})");
  const test::TemporaryDirectory other;
  const Vocabulary json = *model.vocabulary(other.write("x", small_tokenizer));
  CHECK(json.kind == VocabularyKind::byte_level);
  CHECK(json.end == 2);
  other.write("tokenizer_config.json", R"({"eos_token": "<s>"})");
  CHECK(model.vocabulary(other / "x")->end == 3);

  CHECK(model.vocabulary(other.write("y", llama2c_tokenizer(5)))->scores.size() == 5);
  CHECK(model.vocabulary(other.write("z", sentencepiece()))->kind == VocabularyKind::unigram);

  CHECK(error_of([&] { model.vocabulary(other / "none"); }).code() == ErrorCode::io);
  const Error broken = error_of([&] { model.vocabulary(other.write("w", "{")); });
  CHECK(broken.code() == ErrorCode::corrupt);
  CHECK_THAT(broken.message(), Contains(other / "w"));
}

TEST_CASE("the vocabulary of a GGUF file is in its metadata, unless another is named") {
  const test::TemporaryDirectory directory;
  GgufMetadata metadata;
  metadata.add("general.architecture", GgufValue("llama"));
  metadata.add("tokenizer.ggml.model", GgufValue("gpt2"));
  metadata.add("tokenizer.ggml.tokens", GgufValue(Strings{"a", "b", "ab"}));
  metadata.add("tokenizer.ggml.merges", GgufValue(Strings{"a b"}));
  GgufWriter(directory / "model", metadata, {}).commit();
  const ModelFile model(directory / "model");
  CHECK(read_vocabulary(model)->tokens == Strings{"a", "b", "ab"});
  CHECK(read_vocabulary(model, directory.write("t", small_tokenizer))->tokens.size() == 5);
}

TEST_CASE("a vocabulary is that of the model") {
  // Added tokens that it has no embedding for are of no use.
  const ModelDirectory model(R"({"model_type": "llama", "vocab_size": 4, "eos_token_id": [3, 4]})");
  model.write("tokenizer.json", small_tokenizer);
  const Vocabulary vocabulary = *model.vocabulary();
  CHECK(vocabulary.tokens == Strings{"a", "b", "ab", "<s>"});
  CHECK(vocabulary.types.size() == 4);
  CHECK(vocabulary.ends == std::vector<Index>{3});
  CHECK(vocabulary.strip_right.empty());
  CHECK(model.vocabulary()->unknown == 1);

  const ModelDirectory small(R"({"model_type": "llama", "vocab_size": 2})");
  small.write("tokenizer.json", small_tokenizer);
  const Error error = error_of([&] { small.vocabulary(); });
  CHECK(error.code() == ErrorCode::invalid_argument);
  CHECK_THAT(error.message(), Contains("has 5 tokens, the model 2"));
  const ModelDirectory large(R"({"model_type": "llama", "vocab_size": 9})");
  large.write("tokenizer.json", small_tokenizer);
  CHECK(large.vocabulary()->tokens.size() == 5);
}

TEST_CASE("the vocabulary of a llama2.c checkpoint has as many tokens as the model") {
  const test::TemporaryDirectory directory;
  const std::string path =
      directory.write("model.bin", bytes_of<std::int32_t>({4, 4, 1, 1, 1, 5, 2}) +
                                       std::string(152 * sizeof(float), '\0'));
  const ModelFile model(path);
  CHECK_FALSE(read_vocabulary(model));
  const auto read = [&](int tokens) {
    return read_vocabulary(model, directory.write("tok.bin", llama2c_tokenizer(tokens)));
  };
  CHECK(read(5)->tokens.size() == 5);
  for (const int tokens : {4, 6}) {
    const Error error = error_of([&] { read(tokens); });
    CHECK(error.code() == ErrorCode::invalid_argument);
    CHECK_THAT(error.message(), Contains(message("tok.bin: has ", tokens, " tokens, the model 5")));
  }
}
