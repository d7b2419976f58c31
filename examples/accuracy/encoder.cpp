// The sentence encoder: every matrix and pair by every recipe, and its embeddings.
#include "accuracy/encoder_job.hpp"
#include "accuracy/encoder_report.hpp"
#include "accuracy/options.hpp"
#include "cafeq/io/file.hpp"

namespace cafeq::accuracy {

std::string judge_encoder(const AccuracyOptions& options) {
  example::JobOptions job_options;
  job_options.threads = options.threads;
  job_options.paper_steps = options.paper_steps;
  example::Job job(example::load_sentence_model(options.encoder), job_options);
  const example::Results& results = job.run();
  example::print_report(results);
  write_file(options.output + "/encoder.json", to_json(results).dump(1) + "\n");
  return example::embedding_table(results);
}

}  // namespace cafeq::accuracy
