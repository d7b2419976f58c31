/// One run: plan, quantize what is not done yet, assemble.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "cafeq/core/executor.hpp"
#include "cafeq/io/model_output.hpp"
#include "cafeq/model/allocate_plan.hpp"
#include "quantize_model/report.hpp"
#include "support/progress_bar.hpp"

namespace cafeq::example {

struct RunOptions {
  std::string input;
  std::string output;
  PlanOptions plan{};
  double target_bits = 0;  ///< mean bits of all that is quantized; 0: those of the plan for every matrix
  bool floats = false;     ///< write Ŵ back instead
  Index threads = 1;
  PartStore::Start start = PartStore::Start::fresh;
};

/// Work of a weight in units of `fast`, for the progress bar.
inline double work_of(Method method) noexcept {
  switch (method) {
    case Method::learned: return 60;
    case Method::paper: return 300;
    default: return 1;
  }
}

class Run {
 public:
  explicit Run(RunOptions options) : options_(std::move(options)), model_(options_.input), executor_(options_.threads) {
    if (const auto* file = model_.as<SafetensorsModel>(); file != nullptr && file->metadata().contains(cafeq::detail::version_key))
      raise(ErrorCode::unsupported, message(options_.input, ": is quantized already"));
    plan_ = make_plan(model_.tensors(), model_.config(), options_.plan);
    if (plan_.steps.empty()) raise(ErrorCode::invalid_argument, message(options_.input, ": nothing in it would be quantized"));
    if (options_.target_bits > 0) allocate_plan(plan_, model_, options_.target_bits, executor_);
  }

  const Plan& plan() const noexcept { return plan_; }
  const ModelFile& model() const noexcept { return model_; }

  Summary quantize() {
    if (cafeq::detail::kind_of(options_.output) != 0 && options_.start != PartStore::Start::anew)
      raise(ErrorCode::invalid_argument, message(options_.output, ": is there already"));
    if (options_.floats) return quantize_into(FloatOutput(model_, plan_));
    return quantize_into(QuantizedOutput(model_, plan_));
  }

 private:
  /// The same for equal results: the plan, and the files that it is for.
  std::string fingerprint() const {
    auto json = to_json(plan_);
    json["version"] = CAFEQ_VERSION;
    json["floats"] = options_.floats;
    json["input"] = model_.path();
    auto& tensors = json["tensors"] = nlohmann::ordered_json::array();
    for (const TensorInfo& tensor : model_.tensors()) tensors.push_back({tensor.name, tensor.type, tensor.shape});
    return json.dump(1) + "\n";
  }

  template <class Output>
  Summary quantize_into(const Output& output) {
    PartStore parts(options_.output + ".partial", fingerprint(), options_.start);
    Summary summary;
    summary.bytes_before = model_.file_bytes();
    const double start = ProgressBar::steady_seconds();
    double total = 0;
    for (const Job& job : plan_.jobs) total += work(job);
    {
      ProgressBar bar("quantizing", total);
      for (std::size_t j = 0; j < plan_.jobs.size(); ++j) {
        const Job& job = plan_.jobs[j];
        if (!parts.has(j)) {
          output.write_part(parts.path(j), job, quantize_job(model_, plan_, job, executor_), executor_);
          for (const std::size_t s : job.steps) summary.quantized_weights += double(plan_.weights(plan_.steps[s]));
        }
        summary.errors.push_back(part_errors(parts.path(j)));
        bar.advance(work(job));
      }
    }
    {
      ProgressBar bar("writing", output_bytes());
      const Metadata about{{"cafeq.recipe", nlohmann::ordered_json{{"choice", to_json(options_.plan.choice)}, {"pairs", options_.plan.pairs}}.dump()},
                           {"cafeq.writer", message("cafeq ", CAFEQ_VERSION)}};
      output.assemble(options_.output, parts, about, [&](double bytes) {
        summary.bytes_after += Index(bytes);
        bar.advance(bytes);
      });
    }
    parts.remove();
    summary.seconds = ProgressBar::steady_seconds() - start;
    return summary;
  }

  /// About what will be written.
  double output_bytes() const {
    if (options_.floats) return double(model_.file_bytes());
    double bytes = 0;
    for (const Step& step : plan_.steps) bytes += double(plan_.storage(step)) / 8;
    for (const KeptTensor& kept : plan_.kept)
      for (const TensorInfo& tensor : model_.tensors())
        if (tensor.name == kept.tensor) bytes += double(tensor.bytes);
    return bytes;
  }
  double work(const Job& job) const {
    double sum = 0;
    for (const std::size_t s : job.steps) sum += double(plan_.weights(plan_.steps[s])) * work_of(plan_.steps[s].choice.method);
    return sum;
  }

  RunOptions options_;
  ModelFile model_;
  ThreadPool executor_;
  Plan plan_;
};

}  // namespace cafeq::example
