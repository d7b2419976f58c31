/// What a run is asked to do, and what comes of it.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cafeq/io/gram_file_writer.hpp"
#include "cafeq/io/model_output.hpp"
#include "cafeq/io/part_store.hpp"
#include "cafeq/model/plan_options.hpp"
#include "cafeq/quant/gguf_type.hpp"

namespace cafeq {

/// What a run writes.
enum class RunFormat {
  quantized,  ///< cafeq's own format (docs/reference/format.md), one file
  floats,     ///< Ŵ in the format of the model itself
  gguf,       ///< blocks of a type of GGUF, one file
};

/// Called as a run goes on: what it does now ("quantizing", "writing"), how much of that is done,
/// and how much there is in all. May throw to end it.
using RunProgress = std::function<void(std::string_view what, double done, double all)>;

/// What makes the metric of a model's inputs, where a program can run the model.
struct MetricMaker {
  std::string description;  ///< equal for equal metrics: "own text, 32 x 512 tokens, seed 0"
  std::vector<GramEntry> inputs{};  ///< that the file will have
  Index memory = 0;                 ///< that making takes, about, in bytes
  /// Writes the file of Grams.
  std::function<void(const std::string& path, const RunProgress& progress)> make{};
  std::string copy{};  ///< where it is to stay when the run has ended; empty: nowhere
};

/// What measures the sensitivities of a model's matrices, where a program can run the model.
struct SensitivityMaker {
  std::string description;  ///< equal for equal sensitivities
  Index memory = 0;         ///< that measuring takes, about, in bytes
  /// Writes the file (cafeq/io/sensitivities_file.hpp).
  std::function<void(const std::string& path, const RunProgress& progress)> make{};
  std::string copy{};  ///< as a metric's
};

struct RunOptions {
  std::string input;
  std::string output;
  PlanOptions plan{};    ///< its recipe is recipes::fast<> where none is given; as GGUF that only
                         ///< says how two matrices that meet are transformed
  std::string metric{};  ///< a file of Grams or an imatrix: the inputs of the matrices that it has
                         ///< are the metric in which their errors count
  std::optional<MetricMaker> metric_maker{};  ///< makes one, where no file is given
  std::string sensitivities{};  ///< a file: bits go where an error costs most, and the plan says
                                ///< what the model is expected to lose
  std::optional<SensitivityMaker> sensitivity_maker{};  ///< makes one, where no file is given
  bool fused_alike = false;                             ///< as in AllocationOptions
  double target_bits = 0;  ///< mean bits of all that is quantized; 0: those of the plan everywhere
  double target_size = 0;  ///< of the whole output in bytes instead; 0: none
  RunFormat format = RunFormat::quantized;
  GgufType type = GgufType::q4_k;  ///< of blocks, where the format is GGUF
  std::string tokenizer{};         ///< of an input that has none, for GGUF and cafeq's own format
  PartStore::Start start = PartStore::Start::fresh;
  bool overwrite = false;  ///< replace an output that is there
};

/// What a run will come to.
struct RunForecast {
  std::vector<std::string> warnings{};  ///< what whoever asked for it should know
  Index bytes_before = 0;               ///< the model's files, with what lies beside its weights
  Index bytes_after = 0;                ///< the output; of cafeq's own format at most
  Index memory = 0;                     ///< about, in bytes
  Index metric_bytes = 0;               ///< on the disk meanwhile, of a metric that is made
};

/// What a run has come to.
struct RunSummary {
  detail::PartErrors errors;
  double seconds = 0;      ///< of this run
  Index bytes_before = 0;  ///< as in RunForecast
  Index bytes_after = 0;   ///< the output's files
};

}  // namespace cafeq
