/// The command line of cafeq-quantize.
#pragma once

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string>
#include <string_view>
#include <thread>
#include <variant>
#include <vector>

#include "cafeq/model/recipe_book.hpp"
#include "cafeq/run/run_options.hpp"
#include "engine/own_metric.hpp"

namespace cafeq::example {

/// What the user asked for.
struct CommandLine {
  RunOptions run{};
  Index threads = 1;
  bool dry_run = false;
  bool json = false;
  std::string evaluate{};      ///< a file of text, or "own"; empty: nothing is evaluated
  std::string metric = "own";  ///< "own", "random", "none", or a file, which is in `run` then
  bool metric_asked_for = false;
  std::string no_metric_because{};  ///< where the metric is none though it would be own
  engine::MetricTexts metric_texts{};
  std::string save_metric{};         ///< where the metric is to stay; empty: nowhere
  std::string sensitivities{};       ///< "own", or a file, which is in `run` then; empty: none
  std::string save_sensitivities{};  ///< where they are to stay; empty: nowhere

  /// Whether it is the model that makes the metric.
  bool makes_metric() const { return metric == "own" || metric == "random"; }
  /// Whether it measures sensitivities.
  bool makes_sensitivities() const { return sensitivities == "own"; }
};

namespace detail {

/// "cafeq", "float" or "gguf:TYPE".
inline void set_format(RunOptions& options, const std::string& format) {
  constexpr std::string_view gguf = "gguf:";
  if (format == "cafeq") return;
  if (format == "float") {
    options.format = RunFormat::floats;
    return;
  }

  const auto type = format.starts_with(gguf)
                        ? gguf_type_named(std::string_view(format).substr(gguf.size()))
                        : std::nullopt;
  if (!type) {
    std::string types;
    for (const auto& info : gguf_types) types += message(" ", info.name);
    throw CLI::ValidationError("--format",
                               format + " is not cafeq, float, or gguf: with one of" + types);
  }
  options.format = RunFormat::gguf;
  options.type = *type;
}

/// What the options that recipes have were given.
struct RecipeChoice {
  std::string name = "fast";
  int bits = 4;
  Index group = 0;
  std::uint64_t seed = 0;
};

/// The recipe with what was asked of it. What was not asked for is as the book has it.
inline AnyRecipe chosen_recipe(const CLI::App& app, const RecipeChoice& choice,
                               const RecipeBook& book, double target_bits) {
  const AnyRecipe usual = book.make(choice.name);
  std::vector<RecipeOption> options;
  const auto add = [&](const std::string& option, OptionValue value) {
    if (app.count("--" + option) == 0) return;
    if (!usual.option(option)) throw CLI::ExcludesError("--recipe " + choice.name, "--" + option);
    options.push_back({option, value});
  };

  if (usual->with_bits(4)) {  // any rate; what is counted in it are scales and all else too
    constexpr double beside_codes = 0.25;
    if (choice.bits > 4)
      throw CLI::ValidationError("--bits", choice.name +
                                               " has 2 to 4 bits, and a quarter for all the "
                                               "rest; or --target-bits up to 5");
    if (target_bits > 5)
      throw CLI::ValidationError("--target-bits", choice.name + " has no more than 5");
    add("bits", choice.bits + beside_codes);
  } else {
    add("bits", std::int64_t(choice.bits));
  }
  // A scale a row is what a recipe without groups has.
  if (choice.group > 0 || usual.option("group")) add("group", std::int64_t(choice.group));
  add("seed", choice.seed);
  return book.make(choice.name, options);
}

}  // namespace detail

/// What the command line says, or the exit status where it is wrong or asks for help, which has
/// been printed then. Recipes are those of the book.
inline std::variant<CommandLine, int> parse_command_line(int argc, const char* const* argv,
                                                         const RecipeBook& book) {
  CommandLine line;
  RunOptions& run = line.run;
  line.threads = Index(std::max(1u, std::thread::hardware_concurrency()));
  detail::RecipeChoice recipe;
  std::string format = "cafeq";
  bool no_pairs = false, resume = false, diagonal = false;

  CLI::App app{"Quantizes the weights of a model without data."};
  app.name("cafeq-quantize");
  app.set_version_flag("--version", CAFEQ_VERSION);
  app.add_option("INPUT", run.input, "safetensors file or directory, GGUF, llama2.c, TensorFlow.js")
      ->required();
  app.add_option("OUTPUT", run.output, "what to write; not needed with --dry-run");
  app.add_option("--recipe", recipe.name, book.names())->capture_default_str();
  app.add_option("--bits", recipe.bits, "of a code (default: the recipe's, 4 mostly)")
      ->check(CLI::Range(2, 8));
  app.add_option("--target-bits", run.target_bits,
                 "mean bits a weight, all counted; spread over the matrices")
      ->excludes("--bits")
      ->check(CLI::Range(1.0, 9.0));
  app.add_option("--target-size", run.target_size,
                 "bytes of OUTPUT at most, as 4GB or 700MiB, instead")
      ->transform(CLI::AsSizeValue(true))
      ->excludes("--bits")
      ->excludes("--target-bits");
  app.add_option("--group", recipe.group,
                 "weights that share a scale, 0 for a row (default: the recipe's)")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--metric", line.metric,
                 "what the layers read, in whose metric errors count: own, texts that the model "
                 "writes; random tokens; none; or a FILE of Grams or imatrix")
      ->capture_default_str();
  app.add_option("--save-metric", line.save_metric, "keep what own or random has found in a FILE");
  app.add_option("--metric-texts", line.metric_texts.count, "texts for own and random")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--metric-tokens", line.metric_texts.length, "tokens in each")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_flag("--metric-diagonal", diagonal, "mean squares alone: a vector for each input");
  app.add_option("--sensitivities", line.sensitivities,
                 "what an error in each matrix costs: bits of a target go where it is most, and "
                 "the plan predicts what is lost; own, measured on texts that the model writes, "
                 "or a FILE");
  app.add_option("--save-sensitivities", line.save_sensitivities, "keep what own has found");
  app.add_flag("--fused-alike", run.fused_alike,
               "one grid for what engines multiply as one: query, key and value; gate and up");
  app.add_option("--format", format,
                 "cafeq; float: Ŵ in the input's format; gguf:TYPE, as gguf:Q4_K, where "
                 "--recipe is for pairs only")
      ->capture_default_str();
  app.add_flag("--no-pairs", no_pairs, "every matrix by itself");
  app.add_flag("--embeddings", run.plan.embeddings, "quantize embeddings and unembeddings too");
  app.add_option("--include", run.plan.include, "only tensors with such names, as '*.mlp.*'");
  app.add_option("--exclude", run.plan.exclude, "no tensors with such names");
  app.add_option("--tokenizer", run.tokenizer,
                 "tokenizer.json, or llama2.c's, for an INPUT without its own");
  app.add_option("--threads", line.threads, "threads (default: all cores)")
      ->check(CLI::Range(1, 1024));
  app.add_option("--seed", recipe.seed, "of random rotations")->capture_default_str();
  app.add_option("--evaluate", line.evaluate,
                 "compare OUTPUT with INPUT on a FILE of text, or on texts that INPUT writes: own");
  app.add_flag("--dry-run", line.dry_run, "print the plan and stop");
  app.add_flag("--resume", resume, "go on where an interrupted run stopped");
  app.add_flag("--overwrite", run.overwrite, "replace OUTPUT; without --resume, begin anew");
  app.add_flag("--json", line.json, "print plan and results as JSON");

  std::string footer = "Recipes:\n";
  for (const auto& entry : book.entries())
    footer += message("  ", entry.name, ": ", entry.description, "\n");
  app.footer(footer + "Exit status: 0 done, 1 failed, 2 wrong arguments, 130 interrupted.");

  try {
    app.parse(argc, argv);
    detail::set_format(run, format);
    try {
      const AnyRecipe chosen = detail::chosen_recipe(app, recipe, book, run.target_bits);
      // Blocks of GGUF are rounded in one way only.
      if (run.format != RunFormat::gguf || app.count("--recipe") + app.count("--seed") > 0)
        run.plan.recipe = chosen;
      if (run.format == RunFormat::gguf && app.count("--recipe") > 0 && !chosen->with_bits(4) &&
          chosen->pair_transform() == PairTransform::none)
        throw CLI::ValidationError(
            "--recipe", recipe.name + " has nothing to say of " + format +
                            ": there a recipe is for how two matrices that meet are transformed, "
                            "as fast and learned do");
    } catch (const Error& error) {
      throw CLI::ValidationError("--recipe", error.message());
    }

    const bool gguf = run.format == RunFormat::gguf;
    for (const char* option : {"--bits", "--group"})
      if (gguf && app.count(option) > 0) throw CLI::ExcludesError("--format " + format, option);
    if (run.format == RunFormat::floats && !run.tokenizer.empty())
      throw CLI::ExcludesError("--format float", "--tokenizer");
    if (app.count("--target-size") > 0 && !(run.target_size > 0))
      throw CLI::ValidationError("--target-size", "must be positive");
    if (run.format == RunFormat::floats && run.target_size > 0)
      throw CLI::ExcludesError("--format float", "--target-size");
    if (!line.save_metric.empty() && !line.makes_metric())
      throw CLI::ExcludesError("--metric " + line.metric, "--save-metric");
    if (!line.save_sensitivities.empty() && !line.makes_sensitivities())
      throw CLI::ValidationError("--save-sensitivities", "needs --sensitivities own");
    if (run.output.empty() && !line.dry_run) throw CLI::RequiredError("OUTPUT");
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }

  run.plan.pairs = !no_pairs;
  line.metric_asked_for = app.count("--metric") > 0;
  line.metric_texts.random = line.metric == "random";
  line.metric_texts.seed = recipe.seed;
  if (diagonal) line.metric_texts.kind = GramKind::diagonal;
  if (!line.makes_metric() && line.metric != "none") run.metric = line.metric;
  if (!line.makes_sensitivities()) run.sensitivities = line.sensitivities;
  run.start = resume          ? PartStore::Start::resume
              : run.overwrite ? PartStore::Start::anew
                              : PartStore::Start::fresh;
  return line;
}

}  // namespace cafeq::example
