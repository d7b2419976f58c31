/// One run: plan, quantize what is not done yet, assemble.
#pragma once

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <future>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cafeq/core/executor.hpp"
#include "cafeq/io/gguf_output.hpp"
#include "cafeq/model/allocate_plan.hpp"
#include "quantize_model/report.hpp"
#include "support/progress_bar.hpp"

namespace cafeq::example {

struct RunOptions {
  std::string input;
  std::string output;
  PlanOptions plan{};
  double target_bits =
      0;  ///< mean bits of all that is quantized; 0: those of the plan for every matrix
  double target_size = 0;   ///< of the whole output in bytes instead; 0: none
  bool floats = false;      ///< write Ŵ back instead
  std::string tokenizer{};  ///< for GGUF, where it is not the input's own
  Index threads = 1;
  PartStore::Start start = PartStore::Start::fresh;
  bool overwrite = false;  ///< replace an output that is there
};

/// Work of a weight in units of `fast`, for the progress bar.
inline double work_of(Method method) noexcept {
  switch (method) {
    case Method::learned: return 60;
    case Method::paper: return 300;
    case Method::smallest: return 15;
    default: return 1;
  }
}

class Run {
 public:
  explicit Run(RunOptions options)
      : options_(std::move(options)), model_(options_.input), executor_(options_.threads) {
    while (options_.output.size() > 1 && options_.output.ends_with('/')) options_.output.pop_back();
    if (const auto* file = model_.as<SafetensorsModel>();
        file != nullptr && file->metadata().contains(cafeq::detail::version_key))
      raise(ErrorCode::unsupported, message(options_.input, ": is quantized already"));
    plan_ = make_plan(model_.tensors(), model_.config(), options_.plan);
    const bool gguf = options_.plan.choice.type.has_value();
    if (plan_.steps.empty() && !gguf)
      raise(ErrorCode::invalid_argument,
            message(options_.input, ": nothing in it would be quantized"));
    if (options_.target_size > 0) options_.target_bits = bits_for_size(options_.target_size);
    if (options_.target_bits > 0 && options_.plan.choice.method == Method::smallest) {
      set_budgets(options_.target_bits);
    } else if (options_.target_bits > 0)
      allocate_plan(plan_, model_, options_.target_bits, executor_);
    if (gguf) gguf_.emplace(model_, plan_, options_.tokenizer);
  }

  const Plan& plan() const noexcept { return plan_; }
  const ModelFile& model() const noexcept { return model_; }

  Summary quantize() {
    if (options_.overwrite && cafeq::detail::is_directory(options_.output))
      raise(
          ErrorCode::invalid_argument,
          message(options_.output, ": is a directory, which is not overwritten; remove it first"));
    if (gguf_) return quantize_into(*gguf_);
    if (options_.floats) return quantize_into(FloatOutput(model_, plan_));
    return quantize_into(QuantizedOutput(model_, plan_));
  }

 private:
  /// Of joint codes, to which spreading bits over matrices does not help: the same budget for each,
  /// as large as the target allows on the whole. (A small matrix may take more.)
  void set_budgets(double target) {
    options_.plan.choice.budget = target;
    // Sets the budget of every matrix and says what comes of it, in bits a weight.
    const auto bits_with = [&](double budget) {
      for (Step& step : plan_.steps) step.choice.budget = budget;
      return double(plan_.storage()) / double(plan_.weights());
    };
    constexpr double least = 2, close = 1e-3;
    if (bits_with(target) <= target) return;
    if (const double bits = bits_with(least); bits > target)
      raise(ErrorCode::invalid_argument,
            message("target bits: ", target, " are fewer than the ", bits,
                    " that the fewest bits take, everything counted"));
    double low = least, high = target;
    while (high - low > close) {
      const double middle = (low + high) / 2;
      (bits_with(middle) <= target ? low : high) = middle;
    }
    bits_with(low);
  }

  /// Mean bits of what is quantized with which the output has no more than so many bytes.
  double bits_for_size(double size) const {
    const double bits = 8 * (size - other_bytes()) / double(plan_.weights());
    if (bits < 2)
      raise(ErrorCode::invalid_argument,
            message("target size: ", byte_text(size), " leave ", fixed(std::max(0.0, bits), 2),
                    " bits a weight beside the ", byte_text(other_bytes()),
                    " that are not quantized"));
    return bits;
  }

  /// What the output has beside quantized weights: kept tensors, and at most what headers, names
  /// and vocabularies take.
  double other_bytes() const {
    double bytes = 512;
    for (const KeptTensor& kept : plan_.kept)
      bytes += kept_bytes(kept) + 160 + double(kept.tensor.size());
    for (const std::string& name : matrix_names(plan_.roles))
      bytes += 560 + 6 * double(name.size());
    if (!options_.plan.choice.type) return bytes;
    std::vector<std::string> vocabularies{options_.tokenizer};
    if (options_.tokenizer.empty()) vocabularies = model_.companions();
    for (const std::string& path : vocabularies)
      if (path == options_.tokenizer || path.ends_with("/tokenizer.json"))
        bytes += double(std::filesystem::file_size(path));
    if (model_.format() == ModelFormat::gguf) {
      bytes += double(model_.file_bytes());
      for (const TensorInfo& tensor : model_.tensors()) bytes -= double(tensor.bytes);
    }
    return bytes;
  }
  double kept_bytes(const KeptTensor& kept) const {
    for (const TensorInfo& tensor : model_.tensors())
      if (tensor.name == kept.tensor) return double(tensor.bytes);
    return 0;
  }

  /// The same for equal results: the plan, and the files that it is for.
  std::string fingerprint() const {
    auto json = to_json(plan_);
    json["version"] = CAFEQ_VERSION;
    json["floats"] = options_.floats;
    auto& files = json["files"] = nlohmann::ordered_json::array();
    for (const std::string& path : model_.files()) {
      struct stat status{};
      ::stat(path.c_str(), &status);
      files.push_back({cafeq::detail::name_in_directory(path), status.st_size,
                       status.st_mtim.tv_sec, status.st_mtim.tv_nsec});
    }
    return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  }

  template <class Output>
  Summary quantize_into(const Output& output) {
    const std::string begun = fingerprint();
    PartStore parts(options_.output + ".partial", begun, options_.start);
    if (cafeq::detail::kind_of(options_.output) != 0 && !options_.overwrite) {
      if (parts.empty()) parts.remove();
      raise(ErrorCode::invalid_argument, message(options_.output, ": is there already"));
    }
    Summary summary;
    summary.bytes_before = model_.file_bytes();
    const double start = ProgressBar::steady_seconds();
    write_parts(output, parts);
    for (std::size_t j = 0; j < plan_.jobs.size(); ++j) {
      PartErrors errors = part_errors(parts.path(j));
      summary.errors.matrices.merge(errors.matrices);
      summary.errors.pairs.merge(errors.pairs);
    }
    summary.bytes_after = assemble(output, parts);
    if (fingerprint() != begun)
      raise(ErrorCode::io, message(options_.input, ": has changed while it was read"));
    parts.finish(options_.output);
    summary.seconds = ProgressBar::steady_seconds() - start;
    return summary;
  }

  /// Each is written while the next job is quantized.
  template <class Output>
  void write_parts(const Output& output, const PartStore& parts) {
    double total = 0;
    for (const Job& job : plan_.jobs) total += work(job);
    ProgressBar bar("quantizing", total);
    std::future<void> written;
    for (std::size_t j = 0; j < plan_.jobs.size(); ++j) {
      const Job& job = plan_.jobs[j];
      if (!parts.has(j)) {
        JobResult result = quantize_job(model_, plan_, job, executor_);
        if (written.valid()) written.get();
        written =
            std::async(std::launch::async, [&, path = parts.path(j), result = std::move(result)] {
              output.write_part(path, job, result, executor_);
            });
      }
      bar.advance(work(job));
    }
    if (written.valid()) written.get();
  }

  /// Returns the bytes of all tensors.
  template <class Output>
  Index assemble(const Output& output, const PartStore& parts) const {
    const Metadata about{
        {"cafeq.recipe", nlohmann::ordered_json{{"choice", to_json(options_.plan.choice)},
                                                {"pairs", options_.plan.pairs}}
                             .dump()},
        {"cafeq.writer", message("cafeq ", CAFEQ_VERSION)}};
    double sum = 0;
    ProgressBar bar("writing", output_bytes());
    output.assemble(parts.whole(), parts, about, [&](double bytes) {
      sum += bytes;
      bar.advance(bytes);
    });
    bar.advance(output_bytes());  // which is but an estimate
    return Index(sum);
  }

  /// About what will be written.
  double output_bytes() const {
    if (options_.floats) return double(model_.file_bytes());
    double bytes = double(plan_.storage()) / 8;
    for (const KeptTensor& kept : plan_.kept) bytes += kept_bytes(kept);
    return bytes;
  }
  double work(const Job& job) const {
    double sum = 0;
    for (const std::size_t s : job.steps)
      sum += double(plan_.weights(plan_.steps[s])) * work_of(plan_.steps[s].choice.method);
    return sum;
  }

  RunOptions options_;
  ModelFile model_;
  ThreadPool executor_;
  Plan plan_;
  std::optional<GgufOutput> gguf_;
};

}  // namespace cafeq::example
