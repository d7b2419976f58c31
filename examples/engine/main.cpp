// A small inference engine for models of the Llama architecture: generates text, and measures
// perplexity.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/io/read_vocabulary.hpp"
#include "hugging_face.hpp"
#include "llama2c.hpp"
#include "perplexity.hpp"
#include "sample.hpp"
#include "tokenizer.hpp"

namespace {

using namespace engine;
using Texts = std::vector<std::vector<Token>>;

struct Options {
  std::string model, tokenizer;
  std::string quantizer = "none";
  cafeq::Index threads = cafeq::available_processors();
  // generate
  std::string prompt;
  std::size_t tokens = 256;
  float temperature = 1;
  float top_p = 0.9f;
  std::uint64_t seed = 0;
  // perplexity
  std::string text, tokens_json;
  std::size_t stories = 0;
  std::size_t max_tokens = 512;
  bool json = false;
};

Checkpoint open_checkpoint(const std::string& path) {
  return std::filesystem::is_directory(path) ? open_hugging_face(path) : open_llama2c(path);
}

/// The file that is named, or what lies with the model.
Tokenizer load_tokenizer(const Options& options, const Config& config) {
  const std::filesystem::path model = options.model;
  std::string path = options.tokenizer;
  if (path.empty() && !is_directory(model)) path = model.parent_path() / "tokenizer.bin";
  auto vocabulary = cafeq::read_vocabulary(cafeq::ModelFile(options.model), path);
  if (!vocabulary) fail(options.model + ": has no tokenizer; name one with --tokenizer");
  if (vocabulary->tokens.size() > config.vocabulary)
    fail(options.model + ": its tokenizer has " + std::to_string(vocabulary->tokens.size()) +
         " tokens, the model " + std::to_string(config.vocabulary));
  return Tokenizer(std::move(*vocabulary));
}

void generate(const Options& options) {
  cafeq::ThreadPool threads(options.threads);
  const Checkpoint checkpoint = open_checkpoint(options.model);
  const Tokenizer tokenizer = load_tokenizer(options, checkpoint.config);
  const Model model = load_model(checkpoint, options.quantizer, threads);
  const std::vector<Token>& end = model.config.end;

  std::vector<Token> tokens = tokenizer.encode(options.prompt);
  if (tokens.empty()) fail("--prompt is empty, and the tokenizer has no start token");
  Transformer transformer(model, threads);
  Sampler sample(options.temperature, options.top_p, options.seed);
  transformer.forward(std::span(tokens).first(tokens.size() - 1));
  std::string printed;
  const auto print_rest = [&] {
    const std::string text = tokenizer.decode(tokens);
    std::fwrite(text.data() + printed.size(), 1, text.size() - printed.size(), stdout);
    std::fflush(stdout);
    printed = text;
  };
  print_rest();
  const auto began = std::chrono::steady_clock::now();
  std::size_t count = 0;
  for (; count < options.tokens && transformer.position() < model.config.context; ++count) {
    const Matrix logits = transformer.logits(transformer.forward(std::span(tokens).last(1)));
    const Token next = sample(logits.row(0));
    if (std::ranges::find(end, next) != end.end()) break;
    tokens.push_back(next);
    print_rest();
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  std::printf("\n");
  std::fprintf(stderr, "%zu tokens, %.1f a second\n", count, double(count) / seconds);
}

/// Each line of the file is a JSON string.
Texts read_texts(const Options& options, const Tokenizer& tokenizer) {
  Texts texts;
  std::ifstream file(options.text);
  if (!file) fail(options.text + ": cannot be read");
  for (std::string line;
       (options.stories == 0 || texts.size() < options.stories) && std::getline(file, line);) {
    const Json json = Json::parse(line, nullptr, false);
    if (!json.is_string())
      fail(options.text + ": line " + std::to_string(texts.size() + 1) + " is not a JSON string");
    texts.push_back(tokenizer.encode(json.get<std::string>()));
  }
  return texts;
}

void perplexity(const Options& options) {
  if (options.text.empty() && options.tokens_json.empty())
    fail("perplexity needs --text or --tokens-json");
  cafeq::ThreadPool threads(options.threads);
  const Checkpoint checkpoint = open_checkpoint(options.model);
  const std::size_t longest = std::min(options.max_tokens, checkpoint.config.context);
  Texts texts;
  if (options.text.empty())
    texts = read_json(options.tokens_json, [](const Json& json) { return json.get<Texts>(); });
  else texts = read_texts(options, load_tokenizer(options, checkpoint.config));
  for (auto& text : texts) text.resize(std::min(text.size(), longest));
  if (!options.text.empty() && !options.tokens_json.empty() &&
      !(std::ofstream(options.tokens_json) << Json(texts) << '\n').flush())
    fail(options.tokens_json + ": cannot be written");

  const Perplexity result =
      measure_perplexity(load_model(checkpoint, options.quantizer, threads), texts, threads);
  if (result.predicted == 0) fail("no token to predict: every text has fewer than two");
  if (options.json) {
    const Json json{{"perplexity", result.value()},
                    {"predicted_tokens", result.predicted},
                    {"negative_log_likelihood", result.negative_log_likelihood},
                    {"texts", texts.size()}};
    std::printf("%s\n", json.dump().c_str());
  } else {
    std::printf("perplexity %.4f on %zu tokens of %zu texts\n", result.value(), result.predicted,
                texts.size());
  }
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app{
      "Runs a model of the Llama architecture: a llama2.c checkpoint, or a directory with "
      "config.json and safetensors files."};
  app.require_subcommand(1);
  const auto add_command = [&](const char* name, const char* what,
                               void (*command)(const Options&)) {
    CLI::App* const sub = app.add_subcommand(name, what);
    sub->add_option("MODEL", options.model, "the checkpoint or directory")->required();
    sub->add_option("--tokenizer", options.tokenizer,
                    "tokenizer.json, or a file in llama2.c's format (default: the one that lies "
                    "with the model)");
    sub->add_option("--threads", options.threads,
                    "threads (default: all that this process may use)")
        ->check(CLI::Range(1, 1024));
    sub->add_option("--quantize", options.quantizer,
                    "what the weights of the layers become as they are loaded")
        ->check(CLI::IsMember(std::vector<std::string>(quantizers.begin(), quantizers.end())));
    sub->callback([&options, command] { command(options); });
    return sub;
  };

  CLI::App* const writing = add_command("generate", "Continues a text.", generate);
  writing->add_option("--prompt", options.prompt, "what the text begins with");
  writing->add_option("--tokens", options.tokens, "how many to generate at most")
      ->capture_default_str();
  writing->add_option("--temperature", options.temperature, "0 always takes the most likely token")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  writing
      ->add_option("--top-p", options.top_p,
                   "draw from the fewest tokens with this much of the probability")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  writing->add_option("--seed", options.seed, "of the draws")->capture_default_str();

  CLI::App* const measuring =
      add_command("perplexity", "Measures how well the model predicts texts.", perplexity);
  auto* text = measuring->add_option("--text", options.text, "texts, each line a JSON string");
  measuring->add_option("--stories", options.stories, "only the first so many of them")
      ->needs(text);
  measuring
      ->add_option("--max-tokens", options.max_tokens,
                   "texts are cut to so many, with their start token")
      ->check(CLI::Range(2, 1 << 24))
      ->capture_default_str();
  measuring->add_option(
      "--tokens-json", options.tokens_json,
      "where the tokens of the texts go, a list of lists; without --text, where they come from");
  measuring->add_flag("--json", options.json, "print the result as JSON");
  CLI11_PARSE(app, argc, argv);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "engine: %s\n", error.what());
    return 1;
  }
}
