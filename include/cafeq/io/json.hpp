/// JSON as model files use it: parsed strictly, errors as Error, nothing thrown by the parser.
#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "cafeq/core/error.hpp"
#include "cafeq/core/numeric.hpp"
#include "cafeq/io/byte_cursor.hpp"
#include "cafeq/io/file.hpp"

namespace cafeq::detail {

using Json = nlohmann::json;

/// Raises corrupt, naming `what`, unless the text is one JSON value in UTF-8 without repeated keys
/// and no deeper than 64.
inline Json parse_json(std::string_view text, std::string_view what) {
  constexpr int depth_limit = 64;
  std::vector<std::set<std::string>> keys(depth_limit + 2);  // of the object at each depth
  std::optional<std::string> repeated;
  bool too_deep = false;
  Json value = Json::parse(
      text.begin(), text.end(),
      [&](int depth, Json::parse_event_t event, Json& parsed) {
        if (depth > depth_limit) {
          too_deep = true;
          return false;
        }
        if (event == Json::parse_event_t::object_start) keys[std::size_t(depth + 1)].clear();
        if (event == Json::parse_event_t::key &&
            !keys[std::size_t(depth)].insert(parsed.get_ref<const std::string&>()).second)
          repeated = parsed.get_ref<const std::string&>();
        return true;
      },
      false);

  if (too_deep)
    raise(ErrorCode::corrupt, message(what, ": JSON is nested more than ", depth_limit, " deep"));
  if (value.is_discarded()) raise(ErrorCode::corrupt, message(what, ": is not valid JSON"));
  if (repeated) raise(ErrorCode::corrupt, message(what, ": \"", *repeated, "\" appears twice"));
  return value;
}

/// The content of a file. Raises io where it cannot be read, and corrupt as parse_json().
inline Json read_json(const std::string& path) {
  const auto bytes = read_file(path);
  return parse_json(as_text(bytes), path);
}

/// A value as text for messages, whatever bytes its strings have.
inline std::string printable(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// The member of that name, or null where there is none or `object` is not an object.
inline const Json* find_member(const Json& object, const char* name) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(name);
  return found == object.end() ? nullptr : &*found;
}

/// The string of that name, or null where there is none or it is something else.
inline const std::string* find_string(const Json& object, const char* name) {
  const Json* member = find_member(object, name);
  return member != nullptr && member->is_string() ? &member->get_ref<const std::string&>()
                                                  : nullptr;
}

/// A whole number that is not negative and fits an Index; nothing for any other value.
inline std::optional<Index> to_size(const Json& number) {
  if (!number.is_number_unsigned()) return std::nullopt;
  const auto value = number.get<std::uint64_t>();
  if (value > std::uint64_t(std::numeric_limits<Index>::max())) return std::nullopt;
  return Index(value);
}

/// An array of such numbers; nothing for any other value, or for null.
inline std::optional<std::vector<Index>> to_sizes(const Json* array) {
  if (array == nullptr || !array->is_array()) return std::nullopt;
  std::vector<Index> sizes;
  for (const Json& number : *array) {
    const auto size = to_size(number);
    if (!size) return std::nullopt;
    sizes.push_back(*size);
  }
  return sizes;
}

}  // namespace cafeq::detail
