/// What a run is recognised by when it goes on after an interruption. Internal.
#pragma once

#include <sys/stat.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/config/version.hpp"
#include "cafeq/io/byte_cursor.hpp"
#include "cafeq/io/file.hpp"
#include "cafeq/io/model_parts.hpp"
#include "cafeq/io/plan_json.hpp"
#include "cafeq/run/run_options.hpp"

namespace cafeq::detail {

/// Names, sizes and times of all files that are read.
inline nlohmann::ordered_json files_of_run(const RunOptions& options, const ModelFile& model) {
  auto files = nlohmann::ordered_json::array();
  std::vector<std::string> paths = model.files();
  for (std::string& path : model.companions()) paths.push_back(std::move(path));
  for (const std::string* path : {&options.metric, &options.sensitivities, &options.tokenizer})
    if (!path->empty()) paths.push_back(*path);
  for (const std::string& path : paths) {
    struct stat status{};
    ::stat(path.c_str(), &status);
    files.push_back(
        {name_in_directory(path), status.st_size, status.st_mtim.tv_sec, status.st_mtim.tv_nsec});
  }
  return files;
}

inline std::string text_of(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

inline std::string state_of_files(const RunOptions& options, const ModelFile& model) {
  return text_of(files_of_run(options, model));
}

/// The same for equal results: the plan as far as it is made, what its bits are to be spread by,
/// and the files that it is for.
inline std::string fingerprint_of_run(const Plan& plan, const RunOptions& options,
                                      const ModelFile& model) {
  auto json = to_json(plan);
  json["version"] = CAFEQ_VERSION;
  json["floats"] = options.format == RunFormat::floats;
  if (options.metric_maker) json["metric"] = options.metric_maker->description;
  if (options.sensitivity_maker) json["sensitivities"] = options.sensitivity_maker->description;
  json["target_bits"] = options.target_bits;
  json["fused_alike"] = options.fused_alike;
  json["files"] = files_of_run(options, model);
  return text_of(json);
}

/// What to say of a file about another model.
inline std::string other_model(std::string_view what, const std::string& path,
                               const std::string& input) {
  return message(what, ": ", path, " is of another model than ", input,
                 ", or of another format of it: right only if the two compute the same");
}

/// What a run keeps in OUTPUT.partial, made unless an interrupted one has.
template <class Maker>
void make_file(const std::string& path, const Maker& maker, const RunProgress& progress) {
  if (!is_file(path)) maker.make(path, progress);
  if (maker.copy.empty()) return;
  const auto bytes = read_file(path);
  write_file(maker.copy, as_text(bytes));
}

}  // namespace cafeq::detail
