// interop-vocabularies MODEL [TOKENIZER] [--plain] [--gguf FILE]: the tokens of texts, which come
// in lines of hexadecimal bytes. For each a line: the tokens, then what they decode to, again in
// hexadecimal. With --plain control tokens are not looked for; with --gguf the vocabulary is
// written to a file that has nothing else. A last line has the tokens that end a text, and what
// took how long goes to the standard error.
#include <chrono>
#include <cstdio>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include "cafeq/io/read_vocabulary.hpp"
#include "engine/tokenizer.hpp"

namespace {

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes.push_back(char(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

double since(std::chrono::steady_clock::time_point began) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

void write_gguf(const std::string& path, const cafeq::Vocabulary& vocabulary) {
  cafeq::GgufMetadata metadata;
  metadata.add("general.architecture", cafeq::GgufValue("llama"));
  cafeq::detail::add_vocabulary(metadata, vocabulary, cafeq::Index(vocabulary.tokens.size()), path);
  cafeq::GgufWriter(path, metadata, {}).commit();
}

void run(const std::vector<std::string>& arguments) {
  std::string tokenizer_file, gguf_file;
  bool special = true;
  for (std::size_t i = 1; i < arguments.size(); ++i) {
    if (arguments[i] == "--plain") special = false;
    else if (arguments[i] == "--gguf") gguf_file = arguments.at(++i);
    else tokenizer_file = arguments[i];
  }
  auto began = std::chrono::steady_clock::now();
  const cafeq::ModelFile model(arguments.at(0));
  auto vocabulary = cafeq::read_vocabulary(model, tokenizer_file);
  if (!vocabulary) cafeq::raise(cafeq::ErrorCode::invalid_argument, "there is no vocabulary");
  const double read = since(began);
  if (!gguf_file.empty()) write_gguf(gguf_file, *vocabulary);

  began = std::chrono::steady_clock::now();
  const engine::Tokenizer tokenizer(std::move(*vocabulary));
  const double built = since(began);

  double encoding = 0;
  for (std::string line; std::getline(std::cin, line);) {
    const std::string text = from_hex(line);
    began = std::chrono::steady_clock::now();
    const std::vector<engine::Token> tokens = tokenizer.encode(text, special);
    encoding += since(began);
    for (const engine::Token token : tokens) std::printf("%u ", token);
    std::printf("\t");
    for (const unsigned char byte : tokenizer.decode(tokens)) std::printf("%02x", unsigned(byte));
    std::printf("\n");
  }
  for (const cafeq::Index id : tokenizer.vocabulary().ends) std::printf("%d ", int(id));
  std::printf("\n");
  std::fprintf(stderr, "read in %.2f s, built in %.2f s, encoded in %.2f s\n", read, built,
               encoding);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run({argv + 1, argv + argc});
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "interop-vocabularies: %s\n", error.what());
    return 1;
  }
}
