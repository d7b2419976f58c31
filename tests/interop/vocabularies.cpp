// interop-vocabularies MODEL [TOKENIZER] [--plain]: the tokens of texts, which come in lines of
// hexadecimal bytes. For each a line: the tokens, then what they decode to, again in hexadecimal.
// With --plain control tokens are not looked for. What took how long goes to the standard error.
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

void run(const std::vector<std::string>& arguments) {
  std::string tokenizer_file;
  bool special = true;
  for (std::size_t i = 1; i < arguments.size(); ++i) {
    if (arguments[i] == "--plain") special = false;
    else tokenizer_file = arguments[i];
  }
  auto began = std::chrono::steady_clock::now();
  const cafeq::ModelFile model(arguments.at(0));
  auto vocabulary = cafeq::read_vocabulary(model, tokenizer_file);
  if (!vocabulary) cafeq::raise(cafeq::ErrorCode::invalid_argument, "there is no vocabulary");
  const double read = since(began);

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
  std::fprintf(stderr, "read %.2f s, built %.2f s, encoded %.2f s; ends:", read, built, encoding);
  for (const cafeq::Index id : tokenizer.vocabulary().ends)
    std::fprintf(stderr, " %lld", static_cast<long long>(id));
  std::fprintf(stderr, "\n");
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
