/// ModelRun: a model from its files to a smaller one, as a program or an engine carries it out.
///
///   ModelRun run({.input = "model", .output = "small.safetensors"}, executor);
///   run.plan();                                             // what it will do, and why
///   const RunSummary summary = run.quantize();              // what has come of it
/// A plan is made, its bits are spread so that a size or a mean is met; job after job is quantized,
/// each part written while the next one is at work; the parts are put together. What was done when
/// a run is interrupted is not done again. Memory: that of the largest pair of matrices.
#pragma once

#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <future>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/float_output.hpp"
#include "cafeq/io/gguf_output.hpp"
#include "cafeq/io/plan_json.hpp"
#include "cafeq/io/quantized_output.hpp"
#include "cafeq/model/allocate_plan.hpp"
#include "cafeq/model/fingerprint.hpp"
#include "cafeq/model/make_plan.hpp"
#include "cafeq/pipeline/recipes/fast.hpp"
#include "cafeq/run/forecast.hpp"
#include "cafeq/run/known_inputs.hpp"
#include "cafeq/run/run_options.hpp"

namespace cafeq {

class ModelRun {
 public:
  /// Opens the model and makes the plan; nothing is written yet. Raises what the input, the options
  /// or the target make impossible. The executor must outlive the run.
  template <class Arch = DefaultArch>
  explicit ModelRun(RunOptions options, ExecutorRef executor = {});
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
  double bits_for_size(double size) const;
  void foresee(bool recipe_asked_for);
  std::string fingerprint() const;
  /// Reads what is known of the inputs into the options of the plan.
  void know_inputs();
  double work(const Job& job) const;

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
};

template <class Arch>
ModelRun::ModelRun(RunOptions options, ExecutorRef executor)
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
  know_inputs();
  plan_ = make_plan(model_.tensors(), model_.config(), options_.plan);
  // Another format may be all that is wanted; a copy is not.
  if (plan_.steps.empty() && (!gguf || model_.format() == ModelFormat::gguf))
    raise(ErrorCode::invalid_argument,
          message(options_.input, ": nothing in it would be quantized",
                  plan_.roles.matrices.empty() ? "" : ": ", detail::why_kept(plan_)));

  const bool in_metric = std::any_of(plan_.steps.begin(), plan_.steps.end(),
                                     [](const Step& step) { return step.in_metric; });
  if (!in_metric) options_.metric_maker.reset();

  if (options_.target_size > 0) options_.target_bits = bits_for_size(options_.target_size);
  if (options_.target_bits > 0) allocate_plan(plan_, model_, options_.target_bits, executor_);
  foresee(recipe_asked_for);
}

inline void ModelRun::know_inputs() {
  if (!options_.metric.empty()) {
    options_.metric_maker.reset();
    const GramFile file(options_.metric);
    options_.plan.known_inputs = detail::known_inputs(file, model_);
    if (!file.model().empty() && file.model() != fingerprint_of(model_))
      forecast_.warnings.push_back(
          message("metric: ", options_.metric, " is of another model than ", options_.input,
                  ", or of another format of it: right only if the two compute the same"));
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
  if (options_.overwrite && detail::is_directory(options_.output))
    raise(ErrorCode::invalid_argument,
          message(options_.output, ": is a directory, which is not overwritten; remove it first"));
  return with_output([&](const auto& output) { return quantize_into(output, progress); });
}

/// Mean bits of what is quantized with which the output has no more than so many bytes.
inline double ModelRun::bits_for_size(double size) const {
  // Other types of GGUF may be followed by more zeros than those of the plan.
  constexpr Index zeros = 31;
  const Index beside = with_output([](const auto& output) { return output.bytes(); }) -
                       Index(plan_.storage_bits() / 8) + zeros * Index(plan_.roles.matrices.size());
  const Index least = Index(ceil_div(detail::least_storage_bits(plan_), std::int64_t(8)));
  if (size < double(least + beside))
    raise(
        ErrorCode::invalid_argument,
        message("target size: ", Index(size), " bytes are fewer than the least that is possible, ",
                least + beside, ": ", least, " for weights with the fewest bits and ", beside,
                " for tensors that are not quantized and all else"));
  const double bits = (8 * std::floor(size - double(beside)) + 0.5) / double(plan_.weights());
  // The most that a recipe with a continuous rate takes.
  constexpr double most = 9;
  return (*options_.plan.recipe)->with_bits(most) ? std::min(bits, most) : bits;
}

inline void ModelRun::foresee(bool recipe_asked_for) {
  forecast_.bytes_before = detail::bytes_of_model(model_);
  forecast_.bytes_after = with_output([](const auto& output) { return output.bytes(); });
  forecast_.memory = detail::memory_of(model_, plan_);
  if (options_.metric_maker) {
    forecast_.metric_bytes = GramFileWriter::file_bytes(options_.metric_maker->inputs);
    forecast_.memory = std::max(forecast_.memory, options_.metric_maker->memory);
  }
  if (const std::string types = detail::block_types(model_); !types.empty())
    forecast_.warnings.push_back(
        message(options_.input, " is quantized already, to ", types,
                ": what is quantized again gains error beside that; better begin with floats"));
  const auto is_pair = [](const Step& step) { return step.pair.has_value(); };
  if (options_.format == RunFormat::gguf && recipe_asked_for &&
      std::none_of(plan_.steps.begin(), plan_.steps.end(), is_pair))
    forecast_.warnings.push_back(
        message("recipe ", (*options_.plan.recipe)->name(),
                " changes nothing: as GGUF it says how two matrices that meet are transformed, and "
                "the plan has none that do"));
  if (forecast_.bytes_after > forecast_.bytes_before)
    forecast_.warnings.push_back(message("the output takes ", forecast_.bytes_after,
                                         " bytes, more than the ", forecast_.bytes_before, " of ",
                                         options_.input));
}

/// The same for equal results: the plan, and the files that it is for.
inline std::string ModelRun::fingerprint() const {
  auto json = to_json(plan_);
  json["version"] = CAFEQ_VERSION;
  json["floats"] = options_.format == RunFormat::floats;
  if (options_.metric_maker) json["metric"] = options_.metric_maker->description;
  auto& files = json["files"] = nlohmann::ordered_json::array();
  std::vector<std::string> paths = model_.files();
  if (!options_.metric.empty()) paths.push_back(options_.metric);
  for (std::string& path : model_.companions()) paths.push_back(std::move(path));
  if (!options_.tokenizer.empty()) paths.push_back(options_.tokenizer);
  for (const std::string& path : paths) {
    struct stat status{};
    ::stat(path.c_str(), &status);
    files.push_back({detail::name_in_directory(path), status.st_size, status.st_mtim.tv_sec,
                     status.st_mtim.tv_nsec});
  }
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

inline double ModelRun::work(const Job& job) const {
  double sum = 0;
  for (const std::size_t s : job.steps)
    sum += double(plan_.weights(plan_.steps[s])) * plan_.steps[s].recipe->work();
  return sum;
}

template <ModelOutput O>
RunSummary ModelRun::quantize_into(const O& output, const RunProgress& progress) const {
  const auto start = std::chrono::steady_clock::now();
  const std::string begun = fingerprint();
  PartStore parts(options_.output + ".partial", begun, options_.start);
  if (detail::kind_of(options_.output) != 0 && !options_.overwrite) {
    if (parts.empty()) parts.remove();
    raise(ErrorCode::invalid_argument, message(options_.output, ": is there already"));
  }

  RunSummary summary;
  summary.bytes_before = forecast_.bytes_before;
  if (options_.metric_maker && !parts.has_metric())
    options_.metric_maker->make(parts.metric(), progress);
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

  if (fingerprint() != begun)
    raise(ErrorCode::io, message(options_.input, ": has changed while it was read"));
  parts.finish(options_.output);
  summary.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return summary;
}

/// Each is written while the next job is quantized.
template <ModelOutput O>
void ModelRun::write_parts(const O& output, const PartStore& parts,
                           const RunProgress& progress) const {
  double all = 0, done = 0;
  for (const Job& job : plan_.jobs) all += work(job);

  std::optional<GramFile> metrics;
  if (!options_.metric.empty()) metrics.emplace(options_.metric);
  else if (options_.metric_maker) metrics.emplace(parts.metric());
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
