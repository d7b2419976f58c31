// Quantizes two models by every recipe and by every type of GGUF, and measures what that costs: the
// error of the weights, the perplexity of a language model, the embeddings of a sentence encoder.
// scripts/accuracy runs it.
#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "accuracy/measure.hpp"
#include "accuracy/report.hpp"
#include "accuracy/sentence_encoder.hpp"
#include "accuracy/stories.hpp"
#include "accuracy/targets.hpp"
#include "cafeq/core/thread_pool.hpp"
#include "cafeq/io/file.hpp"
#include "support/program.hpp"
#include "support/progress_bar.hpp"

namespace {

using namespace cafeq;

/// STS-B's, or those that come with the example.
std::vector<std::string> sentences_to_embed(const std::string& data) {
  const std::string file = data + "/stsb-en-dev.csv";
  if (!data.empty() && std::filesystem::exists(file)) {
    std::printf("Sentences: 200 of %s\n", file.c_str());
    return example::read_sentences(file, 200);
  }
  std::printf("Sentences: the %zu built in\n", example::sentences.size());
  return {example::sentences.begin(), example::sentences.end()};
}

int run(int argc, char** argv) {
  std::string encoder, data, recipe, output = "build/accuracy";
  Index threads = Index(std::max(1u, std::thread::hardware_concurrency()));
  std::uint64_t seeds = 3;

  CLI::App app{"Measures what quantization by each recipe costs two models."};
  app.add_option("--encoder", encoder,
                 "a directory with the sentence encoder; without it, that is left out");
  app.add_option("--data", data,
                 "a directory with stories260K.bin, tok512.bin, tinystories_200.jsonl and "
                 "stsb-en-dev.csv; without it, stories are left out");
  app.add_option("--output", output, "where result.json and tables.md go")->capture_default_str();
  app.add_option("--threads", threads, "threads (default: all cores)")->check(CLI::Range(1, 1024));
  app.add_option("--recipe", recipe, "only this one, as it is called in the tables");
  app.add_option("--seeds", seeds, "seeds of random rotations, from 0 on")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  std::vector<example::Subject> subjects;
  if (!encoder.empty())
    subjects.push_back(
        example::sentence_encoder(example::load_sentence_model(encoder), sentences_to_embed(data)));
  if (!data.empty()) subjects.push_back(example::story_model(data));
  if (subjects.empty())
    raise(ErrorCode::invalid_argument,
          "neither --encoder nor --data: there is nothing to quantize");

  auto candidates = example::all_candidates(seeds);
  if (!recipe.empty())
    std::erase_if(candidates,
                  [&](const example::Candidate& candidate) { return candidate.recipe != recipe; });
  if (candidates.empty())
    raise(ErrorCode::invalid_argument, message("--recipe: none is called ", recipe));
  std::vector<std::optional<example::Measurement>> found(candidates.size() * subjects.size());
  {
    example::ProgressBar bar("measuring", double(found.size()));
    ThreadPool pool(threads);
    pool.parallel_for(Index(found.size()), 1, [&](Index i, Index, Index) {
      found[std::size_t(i)] = example::measure(subjects[std::size_t(i) % subjects.size()],
                                               candidates[std::size_t(i) / subjects.size()]);
      bar.advance();
    });
  }
  example::Report report;
  for (const auto& subject : subjects)
    report.add_fp32(subject.name, example::fp32_quality(subject));
  for (const auto& measurement : found)
    if (measurement) report.add(*measurement);
  std::printf("%s\n%s", report.tables().c_str(), example::check_targets(report).c_str());
  if (!data.empty() && recipe.empty()) {
    const auto say = [](const char* name, double difference) {
      std::printf("%s: perplexities on packed and on dequantized weights differ by %.1e\n", name,
                  std::abs(difference));
    };
    const example::StoryData stories(data);
    say("fast, 4 bits", example::packed_difference<recipes::fast<4>>(stories));
    say("learned, 3 bits", example::packed_difference<recipes::learned<3>>(stories));
    say("smallest, 3.25 bits", example::packed_difference<recipes::smallest>(stories));
  }
  std::filesystem::create_directories(output);
  write_file(output + "/result.json", report.json());
  write_file(output + "/tables.md", report.tables());
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return cafeq::example::run_program("accuracy", run, argc, argv); }
