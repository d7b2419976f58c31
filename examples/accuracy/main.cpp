// Quantizes a language model by every recipe, by every type of GGUF and by the methods of others,
// and measures what is lost: how well it predicts texts, how far its predictions are from those of
// the model that it was made of, how many questions it answers. And the same of the matrices and
// embeddings of a sentence encoder. scripts/accuracy runs it.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>

#include "accuracy/options.hpp"
#include "cafeq/core/error.hpp"
#include "cafeq/io/file.hpp"
#include "support/program.hpp"

namespace {

using namespace cafeq;

int run(int argc, char** argv) {
  accuracy::AccuracyOptions options;
  bool quick = false, full = false;

  CLI::App app{"Measures what quantization costs a language model and a sentence encoder."};
  auto* model = app.add_option("--model", options.model,
                               "the language model: a file or directory; without it, left out");
  app.add_option("--tokenizer", options.tokenizer, "its tokenizer (default: its own)");
  app.add_option("--text", options.text, "plain text to predict")->needs(model)->take_last();
  app.add_option("--tokens-json", options.tokens_json,
                 "instead of a text, a JSON list of lists of tokens")
      ->excludes("--text");
  app.add_option("--windows", options.windows, "windows of the text")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--length", options.length, "tokens in a window")
      ->check(CLI::Range(2, 1 << 24))
      ->capture_default_str();
  app.add_option("--eval", options.eval, "a directory with zero-shot tasks")
      ->needs(model)
      ->take_last();
  app.add_option("--questions", options.questions, "of each task")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_flag("--full", full, "all questions of all tasks")->excludes("--questions");
  app.add_option("--files", options.files,
                 "a JSON list of more models to judge: {\"recipe\", \"file\", \"seconds\"}")
      ->needs(model);
  app.add_option("--encoder", options.encoder,
                 "a directory with the sentence encoder; without it, left out");
  app.add_option("--seeds", options.seeds, "seeds of random rotations, from 0 on")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  app.add_option("--only", options.only, "parts of the job")
      ->check(CLI::IsMember(
          {"recipes", "metric", "bits", "gguf", "peers", "files", "tasks", "encoder"}));
  app.add_option("--rows", options.rows,
                 "only the recipes of the language model with one of these words in their names");
  app.add_flag("--resume", options.resume,
               "keep the rows that llm.json has, made with the same options by a run that ended "
               "before its time");
  app.add_flag("--quick", quick, "one seed, one window, ten questions, short learning by `paper`");
  app.add_option("--output", options.output, "where llm.json, encoder.json and tables.md go")
      ->capture_default_str()
      ->take_last();
  app.add_option("--threads", options.threads, "threads (default: all that it may use)")
      ->check(CLI::Range(1, 1024));
  CLI11_PARSE(app, argc, argv);
  if (options.model.empty() && options.encoder.empty())
    raise(ErrorCode::invalid_argument, "neither --model nor --encoder: there is nothing to judge");
  if (!options.model.empty() && options.text.empty() && options.tokens_json.empty())
    raise(ErrorCode::invalid_argument, "--model needs --text or --tokens-json");
  if (full) options.questions = 0;
  if (quick) {
    options.seeds = 1;
    options.windows = 1;
    options.questions = 10;
    options.paper_steps = 100;
  }

  std::filesystem::create_directories(options.output);
  std::string tables;
  if (!options.encoder.empty() && options.wants("encoder"))
    tables = accuracy::judge_encoder(options);
  if (!options.model.empty()) tables = accuracy::judge_language_model(options) + tables;
  std::printf("\n%s", tables.c_str());
  write_file(options.output + "/tables.md", tables);
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return cafeq::example::run_program("accuracy", run, argc, argv); }
