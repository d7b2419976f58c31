/// ModelOutput: what writes a quantized model, as a part for each job and then as a whole.
///
/// QuantizedOutput (io/quantized_output.hpp) writes cafeq's own format, FloatOutput
/// (io/float_output.hpp) Ŵ in the format of the model that it came from, GgufOutput
/// (io/gguf_output.hpp) blocks of GGUF.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/json.hpp"
#include "cafeq/io/model_parts.hpp"
#include "cafeq/loss/error_and_norm.hpp"

namespace cafeq {

/// What writes the results of a plan: a part a job, from any thread, then the whole from all parts.
///   write_part(path, job, result, executor)     one safetensors file with what the job has made
///   assemble(path, parts, about, progress)      the file, or directory, that is asked for; `about`
///                                               joins its metadata where it has any, and
///                                               progress(bytes) is called as they are written
template <class O>
concept ModelOutput =
    requires(const O& output, const std::string& path, const Job& job, const JobResult& result,
             const PartStore& parts, const Metadata& about, void (*progress)(double)) {
      output.write_part(path, job, result, ExecutorRef{});
      output.assemble(path, parts, about, progress);
    };

/// The name of each matrix of a plan in a quantized file: that of its tensor where it is all of it,
/// else with slice and role behind it.
inline std::vector<std::string> matrix_names(const ModelRoles& roles) {
  std::map<std::string_view, std::map<Index, int>> matrices_of;  // in each slice of each tensor
  for (const auto& matrix : roles.matrices) ++matrices_of[matrix.place.tensor][matrix.place.slice];

  std::vector<std::string> names;
  for (const auto& [role, layer, expert, module, place, bias, note] : roles.matrices) {
    const auto& slices = matrices_of[place.tensor];
    std::string name = place.tensor;
    if (slices.size() > 1) name += message(":", place.slice);
    if (slices.at(place.slice) > 1) name += message(":", name_of(role));
    names.push_back(std::move(name));
  }
  return names;
}

namespace detail {

/// Errors of a job's matrices and pairs by name, kept in its part so that a resumed run can report
/// them.
struct PartErrors {
  std::map<std::string, ErrorAndNorm> matrices;  ///< ‖W − Ŵ‖², ‖W‖²
  std::map<std::string, double> pairs;           ///< relative, by the name of the first matrix
};

inline constexpr const char* errors_key = "cafeq.errors";

inline Metadata errors_metadata(const Plan& plan, const std::vector<std::string>& names,
                                const JobResult& result) {
  Json matrices = Json::object(), pairs = Json::object();
  for (const auto& part : result.matrices)
    if (part.quantized.squared_norm > 0)
      matrices[names[part.matrix]] = {part.quantized.squared_error, part.quantized.squared_norm};
  for (const auto& [pair, error] : result.pairs) pairs[names[plan.roles.pairs[pair].first]] = error;
  return {{errors_key, Json{{"matrices", matrices}, {"pairs", pairs}}.dump()}};
}

/// What a part says of its errors.
inline PartErrors part_errors(const std::string& path) {
  const SafetensorsReader part(path);
  PartErrors errors;
  const auto found = part.metadata().find(errors_key);
  if (found == part.metadata().end()) return errors;

  const auto json = parse_json(found->second, path);
  for (const auto& item : json.at("matrices").items())
    errors.matrices[item.key()] = {item.value()[0].get<double>(), item.value()[1].get<double>()};
  for (const auto& item : json.at("pairs").items())
    errors.pairs[item.key()] = item.value().get<double>();
  return errors;
}

}  // namespace detail
}  // namespace cafeq
