// cafeq-quantize: a model in, a smaller one out. Reads safetensors (Hugging Face), GGUF, llama2.c
// and TensorFlow.js; needs no data.
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstring>
#include <thread>

#include "quantize_model/run.hpp"
#include "support/program.hpp"

namespace {

using namespace cafeq;

constexpr int interrupted = 130;

/// Everything done is on the disk, so there is nothing to wait for.
extern "C" void stop(int) {
  constexpr char text[] = "\ninterrupted: run again with --resume to go on from here\n";
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text, sizeof text - 1);
  ::_exit(interrupted);
}

/// "cafeq", "float" or "gguf:TYPE".
void set_format(example::RunOptions& options, const std::string& format) {
  constexpr std::string_view gguf = "gguf:";
  options.floats = format == "float";
  if (format == "cafeq" || options.floats) return;
  if (format.starts_with(gguf))
    options.plan.choice.type = gguf_type_named(std::string_view(format).substr(gguf.size()));
  if (options.plan.choice.type) return;
  std::string types;
  for (const auto& info : gguf_types) types += message(" ", info.name);
  throw CLI::ValidationError("--format",
                             format + " is not cafeq, float, or gguf: with one of" + types);
}

int run(int argc, char** argv) {
  example::RunOptions options;
  Choice& choice = options.plan.choice;
  options.threads = Index(std::max(1u, std::thread::hardware_concurrency()));
  std::string recipe = "fast", format = "cafeq";
  Index group = -1;
  bool no_pairs = false, dry_run = false, resume = false, json = false;

  CLI::App app{"Quantizes the weights of a model without data."};
  app.name("cafeq-quantize");
  app.set_version_flag("--version", CAFEQ_VERSION);
  app.add_option("INPUT", options.input,
                 "safetensors file or directory, GGUF, llama2.c, TensorFlow.js")
      ->required();
  app.add_option("OUTPUT", options.output, "what to write; not needed with --dry-run");
  app.add_option("--recipe", recipe, "rtn, fast, learned, paper or smallest")
      ->capture_default_str();
  app.add_option("--bits", choice.bits, "of a code")
      ->check(CLI::Range(2, 8))
      ->capture_default_str();
  app.add_option("--target-bits", options.target_bits,
                 "mean bits a weight, all counted; spread over the matrices")
      ->check(CLI::Range(2.0, 9.0));
  app.add_option("--target-size", options.target_size,
                 "bytes of OUTPUT at most, as 4GB or 700MiB, instead")
      ->transform(CLI::AsSizeValue(true))
      ->excludes("--target-bits");
  app.add_option("--group", group,
                 "weights that share a scale, 0 for a row (default: the recipe's)")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--format", format,
                 "cafeq; float: Ŵ in the input's format; gguf:TYPE, as gguf:Q4_K")
      ->capture_default_str();
  app.add_flag("--no-pairs", no_pairs, "every matrix by itself");
  app.add_flag("--embeddings", options.plan.embeddings, "quantize embeddings and unembeddings too");
  app.add_option("--include", options.plan.include, "only tensors with such names, as '*.mlp.*'");
  app.add_option("--exclude", options.plan.exclude, "no tensors with such names");
  app.add_option("--tokenizer", options.tokenizer,
                 "of a GGUF file: tokenizer.json, or llama2.c's (default: INPUT's)");
  app.add_option("--threads", options.threads, "threads (default: all cores)")
      ->check(CLI::Range(1, 1024));
  app.add_option("--seed", choice.seed, "of random rotations")->capture_default_str();
  app.add_flag("--dry-run", dry_run, "print the plan and stop");
  app.add_flag("--resume", resume, "go on where an interrupted run stopped");
  app.add_flag("--overwrite", options.overwrite, "replace OUTPUT; without --resume, begin anew");
  app.add_flag("--json", json, "print plan and results as JSON");
  app.footer("Exit status: 0 done, 1 failed, 2 wrong arguments, 130 interrupted.");
  try {
    app.parse(argc, argv);
    const auto method = method_named(recipe);
    if (!method)
      throw CLI::ValidationError("--recipe",
                                 recipe + " is not one of rtn, fast, learned, paper, smallest");
    choice.method = *method;
    if (choice.method == Method::smallest) {
      if (choice.bits > 4)
        throw CLI::ValidationError(
            "--bits",
            "smallest has 2 to 4 bits, and a quarter for all the rest; or --target-bits up to 5");
      if (options.target_bits > 5)
        throw CLI::ValidationError("--target-bits", "smallest has no more than 5");
      choice.budget = app.count("--bits") > 0 ? choice.bits + 0.25 : 3.25;
      if (group > 0) throw CLI::ExcludesError("--recipe smallest", "--group");
    }
    choice.group = group < 0 ? default_group(*method) : group;
    set_format(options, format);
    for (const char* option : {"--bits", "--group"})
      if (choice.type && app.count(option) > 0)
        throw CLI::ExcludesError("--format " + format, option);
    if (!choice.type && !options.tokenizer.empty())
      throw CLI::RequiresError("--tokenizer", "--format gguf:TYPE");
    if (app.count("--target-size") > 0 && !(options.target_size > 0))
      throw CLI::ValidationError("--target-size", "must be positive");
    if (options.floats && options.target_size > 0)
      throw CLI::ExcludesError("--format float", "--target-size");
    if (options.output.empty() && !dry_run) throw CLI::RequiredError("OUTPUT");
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  options.plan.pairs = !no_pairs;
  options.start = resume              ? PartStore::Start::resume
                  : options.overwrite ? PartStore::Start::anew
                                      : PartStore::Start::fresh;

  struct sigaction action{};
  action.sa_handler = stop;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  ::signal(SIGXFSZ, SIG_IGN);  // a limit on the size of files then is an error like a full disk

  example::Run job(options);
  if (dry_run) {
    if (json) std::printf("%s\n", example::to_json(job.plan()).dump(1).c_str());
    else example::print_plan(job.plan(), stdout);
    return 0;
  }
  const example::Summary summary = job.quantize();
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const double peak = double(usage.ru_maxrss) * 1024;
  if (json) {
    auto report = example::to_json(job.plan(), summary);
    report["peak_bytes"] = peak;
    std::printf("%s\n", report.dump(1).c_str());
    return 0;
  }
  example::print_summary(job.plan(), summary, stdout);
  std::printf("%s: %s, was %s; %s, peak memory %s\n", options.output.c_str(),
              example::byte_text(double(summary.bytes_after)).c_str(),
              example::byte_text(double(summary.bytes_before)).c_str(),
              example::duration_text(summary.seconds).c_str(), example::byte_text(peak).c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cafeq::example::run_program("cafeq-quantize", run, argc, argv);
}
