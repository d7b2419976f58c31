/// Sensitivities in files, for any engine that measures them. JSON:
///   {"format": "cafeq sensitivities", "version": 1, "model": FINGERPRINT,
///    "matrices": [{"tensor": NAME, "first_row": i, "rows": n, "sensitivity": α}, ...]}
/// `model` is fingerprint_of() the model, or left out; `slice` is the number of an expert in a
/// tensor that stacks them; other members say how they were found.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/json.hpp"
#include "cafeq/model/sensitivities.hpp"

namespace cafeq {

namespace detail {

inline constexpr std::string_view sensitivities_format = "cafeq sensitivities";
inline constexpr Index sensitivities_version = 1;

inline Sensitivity sensitivity_in(const Json& json, std::string_view path) {
  const std::string* tensor = find_string(json, "tensor");
  const auto fail = [&](std::string_view problem) {
    raise(ErrorCode::corrupt,
          message(path, ": sensitivities: ", tensor ? *tensor : "a matrix", ": ", problem));
  };
  const auto optional = [&](const char* name, Index usual) -> Index {
    const Json* member = find_member(json, name);
    if (member == nullptr) return usual;
    const auto number = to_size(*member);
    if (!number) fail(message(name, " is no whole number"));
    return *number;
  };
  if (tensor == nullptr) fail("has no tensor");
  if (find_member(json, "rows") == nullptr) fail("rows are not given");
  const Json* value = find_member(json, "sensitivity");
  if (value == nullptr || !value->is_number()) fail("sensitivity is no number");
  return {.tensor = *tensor,
          .slice = optional("slice", -1),
          .first_row = optional("first_row", 0),
          .rows = optional("rows", 0),
          .value = value->get<double>()};
}

}  // namespace detail

/// Raises io where the file cannot be read, corrupt where it breaks the format, unsupported where
/// it is another one.
inline Sensitivities read_sensitivities(const std::string& path) {
  const auto json = detail::read_json(path);
  const std::string* format = detail::find_string(json, "format");
  if (format == nullptr || *format != detail::sensitivities_format)
    raise(ErrorCode::unsupported, message(path, ": holds no sensitivities: its format is not \"",
                                          detail::sensitivities_format, "\""));
  const detail::Json* number = detail::find_member(json, "version");
  const auto version = number == nullptr ? std::nullopt : detail::to_size(*number);
  if (!version) raise(ErrorCode::corrupt, message(path, ": sensitivities: has no version"));
  if (*version != detail::sensitivities_version)
    raise(ErrorCode::unsupported,
          message(path, ": is version ", *version, " of sensitivities, expected ",
                  detail::sensitivities_version));
  const detail::Json* matrices = detail::find_member(json, "matrices");
  if (matrices == nullptr || !matrices->is_array())
    raise(ErrorCode::corrupt, message(path, ": sensitivities: has no list of matrices"));
  std::vector<Sensitivity> all;
  for (const detail::Json& matrix : *matrices) all.push_back(detail::sensitivity_in(matrix, path));
  const std::string* model = detail::find_string(json, "model");
  if (const std::string fault = detail::sensitivities_fault(all); !fault.empty())
    raise(ErrorCode::corrupt, message(path, ": ", fault));
  return Sensitivities(std::move(all), model ? *model : "");
}

/// As such a file has them.
inline nlohmann::ordered_json to_json(const Sensitivities& sensitivities) {
  nlohmann::ordered_json json{{"format", detail::sensitivities_format},
                              {"version", detail::sensitivities_version}};
  if (!sensitivities.model().empty()) json["model"] = sensitivities.model();
  auto& list = json["matrices"] = nlohmann::ordered_json::array();
  for (const Sensitivity& matrix : sensitivities.all()) {
    nlohmann::ordered_json entry{{"tensor", matrix.tensor}};
    if (matrix.slice >= 0) entry["slice"] = matrix.slice;
    entry["first_row"] = matrix.first_row;
    entry["rows"] = matrix.rows;
    entry["sensitivity"] = matrix.value;
    list.push_back(std::move(entry));
  }
  return json;
}

}  // namespace cafeq
