/// What is known of a run before it begins. Internal.
#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/model_parts.hpp"
#include "cafeq/model/allocate_plan.hpp"
#include "cafeq/model/plan.hpp"
#include "cafeq/run/run_options.hpp"

namespace cafeq::detail {

/// The size of a file, or of all files in a directory.
inline Index bytes_at(const std::string& path) {
  if (!is_directory(path)) return Index(std::filesystem::file_size(path));
  Index bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(path))
    if (entry.is_regular_file()) bytes += Index(entry.file_size());
  return bytes;
}

/// The files of a model, with what lies beside its weights.
inline Index bytes_of_model(const ModelFile& model) {
  Index bytes = model.file_bytes();
  for (const std::string& path : model.companions()) bytes += bytes_at(path);
  return bytes;
}

/// "Q4_1 and Q8_0" of a model whose tensors are quantized already, most weights first; empty for
/// others.
inline std::string block_types(const ModelFile& model) {
  const auto* file = model.as<GgufReader>();
  if (file == nullptr) return {};
  std::map<std::string_view, Index> weights;
  for (const GgufTensor& tensor : file->tensors())
    if (is_blocks(tensor))
      weights[gguf_type_info(tensor.type).name] += element_count(tensor.shape).value_or(0);

  std::vector<std::pair<Index, std::string_view>> order;
  for (const auto& [name, count] : weights) order.emplace_back(-count, name);
  std::sort(order.begin(), order.end());
  std::string text;
  for (std::size_t i = 0; i < order.size(); ++i)
    text += message(i == 0 ? "" : i + 1 < order.size() ? ", " : " and ", order[i].second);
  return text;
}

/// Why a plan keeps the matrices that it keeps: "3 tensors: excluded; …", most frequent first;
/// empty where it keeps none.
inline std::string why_kept(const Plan& plan) {
  std::set<std::string_view> matrices;
  for (const MatrixRole& matrix : plan.roles.matrices) matrices.insert(matrix.place.tensor);
  std::map<std::string_view, Index> counts;
  for (const KeptTensor& kept : plan.kept)
    if (matrices.contains(kept.tensor)) ++counts[kept.why];

  std::vector<std::pair<Index, std::string_view>> order;
  for (const auto& [why, count] : counts) order.emplace_back(-count, why);
  std::sort(order.begin(), order.end());
  std::string text;
  for (const auto& [count, why] : order)
    text +=
        message(text.empty() ? "" : "; ", -count, count == -1 ? " tensor: " : " tensors: ", why);
  return text;
}

/// Of the job that takes most, or the largest tensor that is kept, beside what a program takes that
/// has opened a model: a job has its weights in fp32, what its recipe makes of them on the way, and
/// its results, which are written while the next job is at work.
inline Index memory_of(const ModelFile& model, const Plan& plan) {
  constexpr Index fp32_copies = 3, program = Index(32) << 20;
  Index most = 0;
  for (const Job& job : plan.jobs) {
    Index working = 0, results = 0;
    for (const std::size_t s : job.steps) {
      const Step& step = plan.steps[s];
      // A metric in fp64, once as it is and twice in the basis of a transform.
      Index metric = 0;
      if (step.in_metric) {
        const Index n = plan.place(step.matrices[0]).in;
        metric = 3 * Index(sizeof(double)) * n * n;
      }
      working = std::max(working, fp32_copies * Index(sizeof(float)) * plan.weights(step) + metric);
      results += Index(plan.storage_bits(plan.steps[s]) / 8);
    }
    most = std::max(most, working + 2 * results);
  }
  std::set<std::string_view> kept;
  for (const KeptTensor& tensor : plan.kept) kept.insert(tensor.tensor);
  for (const TensorInfo& tensor : model.tensors())
    if (kept.contains(tensor.name)) most = std::max(most, tensor.bytes);
  return program + most;
}

/// Mean bits of what is quantized with which the output has no more bytes than its target; it has
/// `bytes` as the plan is.
inline double bits_for_size(const Plan& plan, const RunOptions& options, Index bytes) {
  const double size = options.target_size;
  // Other types of GGUF may be followed by more zeros than those of the plan.
  constexpr Index zeros = 31;
  const Index beside =
      bytes - Index(plan.storage_bits() / 8) + zeros * Index(plan.roles.matrices.size());
  const Index least =
      Index(ceil_div(least_storage_bits(plan, options.fused_alike), std::int64_t(8)));
  if (size < double(least + beside))
    raise(
        ErrorCode::invalid_argument,
        message("target size: ", Index(size), " bytes are fewer than the least that is possible, ",
                least + beside, ": ", least, " for weights with the fewest bits and ", beside,
                " for tensors that are not quantized and all else"));
  const double bits = (8 * std::floor(size - double(beside)) + 0.5) / double(plan.weights());
  // The most that a recipe with a continuous rate takes.
  constexpr double most = 9;
  return (*options.plan.recipe)->with_bits(most) ? std::min(bits, most) : bits;
}

/// Adds what a run with this plan will come to.
inline void foresee(RunForecast& forecast, const ModelFile& model, const Plan& plan,
                    const RunOptions& options, bool recipe_asked_for, Index bytes_after) {
  forecast.bytes_before = bytes_of_model(model);
  forecast.bytes_after = bytes_after;
  forecast.memory = memory_of(model, plan);
  if (options.metric_maker) {
    forecast.metric_bytes = GramFileWriter::file_bytes(options.metric_maker->inputs);
    forecast.memory = std::max(forecast.memory, options.metric_maker->memory);
  }
  if (options.sensitivity_maker)
    forecast.memory = std::max(forecast.memory, options.sensitivity_maker->memory);
  if (const std::string types = block_types(model); !types.empty())
    forecast.warnings.push_back(
        message(options.input, " is quantized already, to ", types,
                ": what is quantized again gains error beside that; better begin with floats"));
  const auto is_pair = [](const Step& step) { return step.pair.has_value(); };
  if (options.format == RunFormat::gguf && recipe_asked_for &&
      std::none_of(plan.steps.begin(), plan.steps.end(), is_pair))
    forecast.warnings.push_back(
        message("recipe ", (*options.plan.recipe)->name(),
                " changes nothing: as GGUF it says how two matrices that meet are transformed, and "
                "the plan has none that do"));
  if (forecast.bytes_after > forecast.bytes_before)
    forecast.warnings.push_back(message("the output takes ", forecast.bytes_after,
                                        " bytes, more than the ", forecast.bytes_before, " of ",
                                        options.input));
}

}  // namespace cafeq::detail
