// generate-model: a model of the Llama architecture with random weights, as a directory of Hugging
// Face, to try the tool on.
#include <CLI/CLI.hpp>

#include "cafeq/core/thread_pool.hpp"
#include "support/generated_model.hpp"
#include "support/program.hpp"

namespace {

using namespace cafeq;

int run(int argc, char** argv) {
  example::GeneratedModel model;
  CLI::App app{"Writes a Llama model with random, heavy-tailed weights."};
  app.add_option("DIRECTORY", model.directory, "where to; must exist")
      ->required()
      ->check(CLI::ExistingDirectory);
  const auto size = [&](const char* name, Index& value) {
    app.add_option(name, value)->check(CLI::Range(1, 1 << 20))->capture_default_str();
  };
  size("--hidden", model.hidden);
  size("--intermediate", model.intermediate);
  size("--layers", model.layers);
  size("--heads", model.heads);
  size("--kv-heads", model.kv_heads);
  size("--vocabulary", model.vocabulary);
  app.add_flag("--tied", model.tied_embeddings, "the unembedding is the embedding");
  app.add_flag("--fp32", model.fp32, "numbers of bf16 as fp32");
  app.add_option("--seed", model.seed)->capture_default_str();
  app.add_option("--shard-bytes", model.shard_bytes, "most in a file")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  ThreadPool executor;
  example::write_generated_model(model, executor);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cafeq::example::run_program("generate-model", run, argc, argv);
}
