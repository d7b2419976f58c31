// A small inference engine for language models: continues texts, measures perplexity, and compares
// a model with what it was before it was quantized.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cafeq/core/thread_pool.hpp"
#include "engine/engine.hpp"
#include "engine/own_metric.hpp"
#include "engine/report.hpp"
#include "engine/sensitivities.hpp"
#include "engine/texts.hpp"
#include "support/program.hpp"
#include "support/progress_bar.hpp"

namespace {

using namespace engine;
using cafeq::ErrorCode;
using cafeq::message;
using cafeq::example::ProgressBar;
using Json = nlohmann::ordered_json;

struct Options {
  std::string model, other, tokenizer;
  std::string weights;
  Index threads = cafeq::available_processors();
  // generate
  std::string prompt;
  GenerateOptions generate{.top_p = 0.9};
  // perplexity, compare
  std::string text, tokens_json;
  TextLimits limits;
  bool json = false;
  // sensitivities
  std::string output;
  SensitivityOptions sensitivity;
};

void print_continuation(const Options& options) {
  cafeq::ThreadPool threads(options.threads);
  const Engine engine(options.model, options.weights, threads);
  const Tokenizer tokenizer = load_tokenizer(engine.file, options.tokenizer);
  GenerateOptions how = options.generate;
  for (const Index end : tokenizer.vocabulary().ends) how.ends.push_back(Token(end));

  std::vector<Tokens> texts{tokenizer.encode(options.prompt)};
  Tokens& tokens = texts.front();
  if (tokens.empty() && tokenizer.vocabulary().begin)
    tokens.push_back(Token(*tokenizer.vocabulary().begin));
  if (tokens.empty())
    raise(ErrorCode::invalid_argument, "--prompt is empty, and no token starts a text");
  std::string printed;
  const auto print_rest = [&] {
    const std::string text = tokenizer.decode(tokens);
    std::fwrite(text.data() + printed.size(), 1, text.size() - printed.size(), stdout);
    std::fflush(stdout);
    printed = text;
  };
  print_rest();
  const std::size_t begun = tokens.size();
  const double start = ProgressBar::steady_seconds();
  generate(engine.transformer, texts, how, [&](std::size_t, Token) { print_rest(); });
  const double count = double(tokens.size() - begun);
  std::printf("\n");
  std::fprintf(stderr, "%.0f tokens, %.1f a second\n", count,
               count / (ProgressBar::steady_seconds() - start));
}

void print_tokens(const Options& options) {
  const Tokenizer tokenizer = load_tokenizer(cafeq::ModelFile(options.model), options.tokenizer);
  const auto bytes = cafeq::read_file(options.text);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  std::printf("%s\n", Json(tokenizer.encode(text)).dump().c_str());
}

/// What --text or --tokens-json names, no longer than the model's context.
std::vector<Tokens> load_texts(const Options& options, const Engine& engine) {
  if (options.text.empty() && options.tokens_json.empty())
    raise(ErrorCode::invalid_argument, "needs --text or --tokens-json");
  TextLimits limits = options.limits;
  if (engine.model.config.context > 0)
    limits.length = std::min(limits.length, engine.model.config.context);
  if (options.text.empty()) return read_tokens(options.tokens_json);
  auto texts = read_texts(options.text, load_tokenizer(engine.file, options.tokenizer), limits);
  if (!options.tokens_json.empty())
    cafeq::write_file(options.tokens_json, Json(texts).dump() + "\n");
  return texts;
}

void print_perplexity(const Options& options) {
  cafeq::ThreadPool threads(options.threads);
  const Engine engine(options.model, options.weights, threads);
  const auto texts = load_texts(options, engine);
  std::vector<double> found;
  {
    ProgressBar bar("predicting", double(predicted_tokens(texts)));
    found =
        surprises(engine.transformer, texts, [&](Index tokens) { bar.advance(double(tokens)); });
  }
  const auto [value, error] = perplexity_of(found);
  if (options.json) {
    const Json json{{"perplexity", value},
                    {"standard_error", error},
                    {"predicted_tokens", found.size()},
                    {"negative_log_likelihood", mean_of(found).value * double(found.size())},
                    {"texts", texts.size()}};
    std::printf("%s\n", json.dump().c_str());
  } else {
    std::printf("perplexity %.4f ± %.4f on %zu tokens of %zu texts\n", value, error, found.size(),
                texts.size());
  }
}

void print_comparison(const Options& options) {
  cafeq::ThreadPool threads(options.threads);
  const Engine reference(options.model, threads);
  const Engine other(options.other, options.weights, threads);
  const auto texts = load_texts(options, reference);
  Comparison found;
  {
    ProgressBar bar("predicting", 2 * double(predicted_tokens(texts)));
    const auto advance = [&](Index tokens) { bar.advance(double(tokens)); };
    found = Reference(reference.transformer, texts, advance)
                .compare(other.transformer, threads, advance);
  }
  if (options.json) return void(std::printf("%s\n", to_json(found).dump().c_str()));
  std::printf("%zu tokens of %zu texts\n", found.surprises.size(), texts.size());
  print(found, stdout);
}

void write_sensitivities(const Options& options) {
  cafeq::ThreadPool threads(options.threads);
  cafeq::example::ProgressBars bars;
  sensitivity_maker(options.model, options.sensitivity, threads, options.tokenizer)
      .make(options.output,
            [&](std::string_view what, double done, double all) { bars.show(what, done, all); });
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app{
      "Runs a language model: a directory with config.json and safetensors files, a GGUF file, a "
      "llama2.c checkpoint, or what cafeq-quantize writes."};
  app.require_subcommand(1);
  const auto add_command = [&](const char* name, const char* what,
                               void (*command)(const Options&)) {
    CLI::App* const sub = app.add_subcommand(name, what);
    sub->add_option(std::string_view(name) == "compare" ? "REFERENCE" : "MODEL", options.model,
                    "the file or directory")
        ->required();
    sub->add_option("--tokenizer", options.tokenizer,
                    "tokenizer.json, tokenizer.model, or a file in llama2.c's format (default: the "
                    "model's own)");
    sub->callback([&options, command] { command(options); });
    return sub;
  };
  std::vector<std::string> forms{std::string(stored_weights), std::string(float_weights)};
  forms.insert(forms.end(), quantizers.begin(), quantizers.end());
  const auto add_running = [&](CLI::App* sub, std::string_view usual) {
    sub->add_option("--threads", options.threads,
                    "threads (default: all that this process may use)")
        ->check(CLI::Range(1, 1024));
    sub->add_option("--weights", options.weights,
                    "what the weights of the layers become as they are loaded: stored leaves them "
                    "packed, floats is faster for many tokens together, others quantize them "
                    "(default: " +
                        std::string(usual) + ")")
        ->check(CLI::IsMember(forms));
    sub->preparse_callback([&options, usual](std::size_t) { options.weights = usual; });
  };
  const auto add_texts = [&](CLI::App* sub) {
    add_running(sub, float_weights);
    auto* text = sub->add_option("--text", options.text,
                                 "plain text, or .jsonl: a text a line, as JSON strings");
    sub->add_option("--texts", options.limits.count, "only the first so many texts or windows")
        ->check(CLI::PositiveNumber)
        ->needs(text);
    sub->add_option("--length", options.limits.length,
                    "tokens of a text, or of the windows that a plain text is cut into")
        ->check(CLI::Range(2, 1 << 24))
        ->capture_default_str();
    sub->add_option("--tokens-json", options.tokens_json,
                    "where the tokens of the texts go, a list of lists; without --text, where they "
                    "come from");
    sub->add_flag("--json", options.json, "print the result as JSON");
  };

  CLI::App* const writing = add_command("generate", "Continues a text.", print_continuation);
  add_running(writing, stored_weights);
  writing->add_option("--prompt", options.prompt, "what the text begins with");
  writing->add_option("--tokens", options.generate.tokens, "how many to generate at most")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  writing
      ->add_option("--temperature", options.generate.temperature,
                   "0 always takes the most likely token")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  writing
      ->add_option("--top-p", options.generate.top_p,
                   "draw from the fewest tokens with this much of the probability")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  writing->add_option("--seed", options.generate.seed, "of the draws")->capture_default_str();

  CLI::App* const disturbing =
      add_command("sensitivities",
                  "Measures what an error in each matrix costs, on texts that the model writes.",
                  write_sensitivities);
  disturbing->add_option("--output", options.output, "where they go, as JSON")->required();
  disturbing->add_option("--texts", options.sensitivity.count, "that the model writes")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  disturbing->add_option("--length", options.sensitivity.length, "tokens of a text")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  disturbing
      ->add_option("--energy", options.sensitivity.energy,
                   "of the noise, as a share of that of the weights")
      ->check(CLI::Range(1e-6, 1.0))
      ->capture_default_str();
  disturbing->add_option("--seed", options.sensitivity.seed, "of texts and noise")
      ->capture_default_str();
  disturbing
      ->add_option("--threads", options.threads, "threads (default: all that this process may use)")
      ->check(CLI::Range(1, 1024));

  add_texts(
      add_command("perplexity", "Measures how well the model predicts texts.", print_perplexity));
  CLI::App* const comparing =
      add_command("compare", "Measures how far a model is from the one that it was made from.",
                  print_comparison);
  comparing->add_option("OTHER", options.other, "the quantized one")->required();
  add_texts(comparing);
  add_command("tokenize", "Prints the tokens of a text.", print_tokens)
      ->add_option("--text", options.text, "the file")
      ->required();
  CLI11_PARSE(app, argc, argv);
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return cafeq::example::run_program("engine", run, argc, argv); }
