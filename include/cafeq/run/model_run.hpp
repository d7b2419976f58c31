/// ModelRun: a model from its files to a smaller one, as a program or an engine carries it out.
///
///   ModelRun run({.input = "model", .output = "small.safetensors"}, executor);
///   run.plan();                                             // what it will do, and why
///   const RunSummary summary = run.quantize();              // what has come of it
/// A plan is made, its bits are spread so that a size or a mean is met; job after job is quantized,
/// each part written while the next one is at work; the parts are put together. What was done when
/// a run is interrupted is not done again. Memory: that of the largest pair of matrices.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/float_output.hpp"
#include "cafeq/io/gguf_output.hpp"
#include "cafeq/io/plan_json.hpp"
#include "cafeq/io/quantized_output.hpp"
#include "cafeq/io/sensitivities_file.hpp"
#include "cafeq/model/allocate_plan.hpp"
#include "cafeq/model/fingerprint.hpp"
#include "cafeq/model/make_plan.hpp"
#include "cafeq/pipeline/recipes/fast.hpp"
#include "cafeq/run/forecast.hpp"
#include "cafeq/run/known_inputs.hpp"
#include "cafeq/run/run_options.hpp"
#include "cafeq/run/state.hpp"

namespace cafeq {

class ModelRun {
 public:
  /// Opens the model and makes the plan. Nothing is written yet, unless bits are to be spread by
  /// sensitivities for which files must be made first: these are, in OUTPUT.partial. Raises what
  /// the input, the options or the target make impossible. The executor must outlive the run.
  template <class Arch = DefaultArch>
  explicit ModelRun(RunOptions options, ExecutorRef executor = {},
                    const RunProgress& progress = {});
  // The output that it writes refers to its plan and model.
  ModelRun(const ModelRun&) = delete;
  ModelRun& operator=(const ModelRun&) = delete;

  const Plan& plan() const noexcept { return plan_; }
  const ModelFile& model() const noexcept { return model_; }
  const RunForecast& forecast() const noexcept { return forecast_; }

  /// Parts are kept in OUTPUT.partial until the whole can be put together.
  template <class Arch = DefaultArch>
  RunSummary quantize(const RunProgress& progress = {}) const;

 private:
  /// f(output) with what writes the format that is asked for.
  template <class F>
  decltype(auto) with_output(F&& f) const;
  /// Reads what is known of the inputs into the options of the plan.
  void know_inputs();
  /// Gives the steps of the plan their bits.
  void spread_bits(const RunProgress& progress);
  bool in_metric() const {
    return std::ranges::any_of(plan_.steps, [](const Step& step) { return step.in_metric; });
  }
  /// Raises where what is asked for cannot be written.
  void check_output() const;

  /// OUTPUT.partial, with a metric where one is to be made. Raises invalid_argument for an output
  /// that is there already.
  std::shared_ptr<PartStore> open_parts(const RunProgress& progress) const;
  /// Where the metric is, if there is one.
  std::string metric_path(const PartStore* parts) const {
    return parts && options_.metric_maker ? parts->metric() : options_.metric;
  }
  template <ModelOutput O>
  RunSummary quantize_into(const O& output, const RunProgress& progress) const;
  template <ModelOutput O>
  void write_parts(const O& output, const PartStore& parts, const RunProgress& progress) const;
  template <ModelOutput O>
  void assemble(const O& output, const PartStore& parts, const RunProgress& progress) const;

  RunOptions options_;
  ExecutorRef executor_;
  ModelFile model_;
  Plan plan_;
  RunForecast forecast_;
  std::string files_;                 // as they were when they were opened
  std::shared_ptr<PartStore> parts_;  // where files had to be made for the plan
};

template <class Arch>
ModelRun::ModelRun(RunOptions options, ExecutorRef executor, const RunProgress& progress)
    : options_(std::move(options)), executor_(executor), model_(options_.input) {
  while (options_.output.size() > 1 && options_.output.ends_with('/')) options_.output.pop_back();
  // As a file, or in a directory.
  if (const auto* file = model_.as<SafetensorsModel>();
      model_.format() == ModelFormat::quantized ||
      (file != nullptr && file->metadata().contains(detail::version_key)))
    raise(ErrorCode::unsupported, message(options_.input, ": is quantized already"));

  const bool recipe_asked_for = options_.plan.recipe.has_value();
  if (!recipe_asked_for) options_.plan.recipe = recipes::fast<>{};
  const bool gguf = options_.format == RunFormat::gguf;
  if (gguf) options_.plan.recipe = GgufRecipe::make<Arch>(options_.type, *options_.plan.recipe);
  options_.plan.any_bits = options_.target_bits > 0 || options_.target_size > 0;
  files_ = detail::state_of_files(options_, model_);
  know_inputs();
  plan_ = make_plan(model_.tensors(), model_.config(), options_.plan);
  // Another format may be all that is wanted; a copy is not.
  if (plan_.steps.empty() && (!gguf || model_.format() == ModelFormat::gguf))
    raise(ErrorCode::invalid_argument,
          message(options_.input, ": nothing in it would be quantized",
                  plan_.roles.matrices.empty() ? "" : ": ", detail::why_kept(plan_)));

  if (!in_metric()) options_.metric_maker.reset();
  if (!options_.sensitivities.empty() || plan_.steps.empty()) options_.sensitivity_maker.reset();

  const auto bytes = [&] { return with_output([](const auto& output) { return output.bytes(); }); };
  if (options_.target_size > 0)
    options_.target_bits = detail::bits_for_size(plan_, options_, bytes());
  spread_bits(progress);
  detail::foresee(forecast_, model_, plan_, options_, recipe_asked_for, bytes());
}

inline void ModelRun::spread_bits(const RunProgress& progress) {
  AllocationOptions allocation{.target_bits = options_.target_bits,
                               .fused_alike = options_.fused_alike};
  if (progress)
    allocation.progress = [&](double done, double all) { progress("choosing bits", done, all); };
  std::string path = options_.sensitivities;
  if (path.empty() && !options_.sensitivity_maker)
    return allocate_plan(plan_, model_, allocation, executor_);

  // What is impossible is said before anything is made.
  check_output();
  detail::check_target(plan_, allocation);
  if (!path.empty()) detail::check_sensitivities(plan_, read_sensitivities(path));
  if (options_.sensitivity_maker || options_.metric_maker) parts_ = open_parts(progress);
  if (options_.sensitivity_maker) {
    path = parts_->sensitivities();
    detail::make_file(path, *options_.sensitivity_maker, progress);
  }
  const Sensitivities sensitivities = read_sensitivities(path);
  if (!sensitivities.model().empty() && sensitivities.model() != fingerprint_of(model_))
    forecast_.warnings.push_back(detail::other_model("sensitivities", path, options_.input));
  allocation.sensitivities = &sensitivities;
  std::optional<GramFile> metrics;
  if (const std::string file = metric_path(parts_.get()); in_metric() && !file.empty()) {
    metrics.emplace(file);
    allocation.metric = [&](const MatrixRole& m) { return detail::metric_of(*metrics, m); };
  }
  allocate_plan(plan_, model_, allocation, executor_);
  if (parts_) parts_->insist(detail::text_of(to_json(plan_)));
}

inline void ModelRun::know_inputs() {
  if (!options_.metric.empty()) {
    options_.metric_maker.reset();
    const GramFile file(options_.metric);
    options_.plan.known_inputs = detail::known_inputs(file, model_);
    if (!file.model().empty() && file.model() != fingerprint_of(model_))
      forecast_.warnings.push_back(detail::other_model("metric", options_.metric, options_.input));
  } else if (options_.metric_maker) {
    options_.plan.known_inputs = detail::readers_of(options_.metric_maker->inputs);
  }
}

template <class F>
decltype(auto) ModelRun::with_output(F&& f) const {
  switch (options_.format) {
    case RunFormat::gguf: return f(GgufOutput(model_, plan_, options_.tokenizer));
    case RunFormat::floats: return f(FloatOutput(model_, plan_));
    default: return f(QuantizedOutput(model_, plan_, options_.tokenizer));
  }
}

template <class Arch>
RunSummary ModelRun::quantize(const RunProgress& progress) const {
  check_output();
  return with_output([&](const auto& output) { return quantize_into(output, progress); });
}

inline void ModelRun::check_output() const {
  if (options_.overwrite && detail::is_directory(options_.output))
    raise(ErrorCode::invalid_argument,
          message(options_.output, ": is a directory, which is not overwritten; remove it first"));
  with_output([](const auto& output) { return output.bytes(); });
}

inline std::shared_ptr<PartStore> ModelRun::open_parts(const RunProgress& progress) const {
  const auto parts = std::make_shared<PartStore>(
      options_.output + ".partial", detail::fingerprint_of_run(plan_, options_, model_),
      options_.start);
  if (detail::kind_of(options_.output) != 0 && !options_.overwrite) {
    if (parts->empty()) parts->remove();
    raise(ErrorCode::invalid_argument, message(options_.output, ": is there already"));
  }
  if (options_.metric_maker) detail::make_file(parts->metric(), *options_.metric_maker, progress);
  return parts;
}

template <ModelOutput O>
RunSummary ModelRun::quantize_into(const O& output, const RunProgress& progress) const {
  const auto start = std::chrono::steady_clock::now();
  const auto store = parts_ ? parts_ : open_parts(progress);
  PartStore& parts = *store;

  RunSummary summary;
  summary.bytes_before = forecast_.bytes_before;
  write_parts(output, parts, progress);
  for (std::size_t j = 0; j < plan_.jobs.size(); ++j) {
    detail::PartErrors errors = detail::part_errors(parts.path(j));
    summary.errors.matrices.merge(errors.matrices);
    summary.errors.pairs.merge(errors.pairs);
  }
  assemble(output, parts, progress);
  summary.bytes_after = detail::bytes_at(parts.whole());
  if (options_.target_size > 0 && double(summary.bytes_after) > options_.target_size)
    raise(ErrorCode::invalid_argument,
          message("target size: the output has come to ", summary.bytes_after,
                  " bytes, more than foreseen; ask for so many fewer"));

  if (detail::state_of_files(options_, model_) != files_)
    raise(ErrorCode::io, message(options_.input, ": has changed while it was read"));
  parts.finish(options_.output);
  summary.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return summary;
}

/// Each is written while the next job is quantized.
template <ModelOutput O>
void ModelRun::write_parts(const O& output, const PartStore& parts,
                           const RunProgress& progress) const {
  const auto work = [&](const Job& job) {
    double sum = 0;
    for (const std::size_t s : job.steps)
      sum += double(plan_.weights(plan_.steps[s])) * plan_.steps[s].recipe->work();
    return sum;
  };
  double all = 0, done = 0;
  for (const Job& job : plan_.jobs) all += work(job);

  std::optional<GramFile> metrics;
  if (const std::string file = metric_path(&parts); !file.empty()) metrics.emplace(file);
  MetricSource metric;
  if (metrics)
    metric = [&](const MatrixRole& matrix) { return detail::metric_of(*metrics, matrix); };

  std::future<void> written;
  for (std::size_t j = 0; j < plan_.jobs.size(); ++j) {
    const Job& job = plan_.jobs[j];
    if (!parts.has(j)) {
      JobResult result = quantize_job(model_, plan_, job, executor_, metric);
      if (written.valid()) written.get();
      written =
          std::async(std::launch::async, [&, path = parts.path(j), result = std::move(result)] {
            output.write_part(path, job, result, executor_);
          });
    }
    done += work(job);
    if (progress) progress("quantizing", done, all);
  }
  if (written.valid()) written.get();
}

template <ModelOutput O>
void ModelRun::assemble(const O& output, const PartStore& parts,
                        const RunProgress& progress) const {
  nlohmann::ordered_json recipe{{"choice", to_json(*options_.plan.recipe)},
                                {"pairs", options_.plan.pairs}};
  if (options_.target_bits > 0) recipe["target_bits"] = options_.target_bits;
  const Metadata about{{"cafeq.recipe", recipe.dump()},
                       {"cafeq.writer", message("cafeq ", CAFEQ_VERSION)}};

  double sum = 0;
  const double all = double(forecast_.bytes_after);  // more than the tensors alone
  output.assemble(parts.whole(), parts, about, [&](double bytes) {
    sum += bytes;
    if (progress) progress("writing", std::min(sum, all), all);
  });
  if (progress) progress("writing", all, all);
}

}  // namespace cafeq
