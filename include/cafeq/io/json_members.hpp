/// The members of a configuration in JSON, checked as they are read.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/complete_config.hpp"
#include "cafeq/io/json.hpp"

namespace cafeq::detail {

/// The members of a configuration, each of which has one of several names. A member that is null
/// counts as missing, one of another type or beyond its limit is corrupt.
class JsonConfig {
 public:
  using Names = std::initializer_list<const char*>;

  /// `object` must outlive this view of it; `where` is for messages.
  JsonConfig(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) raise(ErrorCode::corrupt, message(where_, ": is not a JSON object"));
  }

  Index count(Names names, Index limit = count_limit) const {
    return get<Index>(names, count_up_to(limit),
                      [&](const Json& value) {
                        const auto number = to_size(value);
                        return number && *number <= limit ? number : std::nullopt;
                      })
        .value_or(0);
  }
  std::optional<double> number(Names names, double limit = 1e18) const {
    return get<double>(names, message("a number from 0 to ", limit), [&](const Json& value) {
      const double number = value.is_number() ? value.get<double>() : -1;
      return number >= 0 && number <= limit ? std::optional(number) : std::nullopt;
    });
  }
  std::optional<bool> flag(Names names) const {
    return get<bool>(names, "true or false", [](const Json& value) {
      return value.is_boolean() ? std::optional(value.get<bool>()) : std::nullopt;
    });
  }
  std::optional<std::string> text(Names names) const {
    return get<std::string>(names, "a string", [](const Json& value) {
      return value.is_string() ? std::optional(value.get<std::string>()) : std::nullopt;
    });
  }
  std::optional<std::vector<Index>> counts(Names names) const {
    return get<std::vector<Index>>(names, "an array of whole numbers",
                                   [](const Json& value) { return to_sizes(&value); });
  }
  std::optional<std::vector<std::string>> texts(Names names) const {
    return get<std::vector<std::string>>(names, "an array of strings", [](const Json& value) {
      return each<std::string>(value, [](const Json& text) { return text.is_string(); });
    });
  }
  /// As many numbers above 0. Raises corrupt where there are none, or others.
  std::vector<double> required_numbers(const char* name, Index count) const {
    const auto values = get<std::vector<double>>(
        {name}, message("an array of ", count, " numbers above 0"), [&](const Json& value) {
          auto all = each<double>(value, [](const Json& number) {
            return number.is_number() && number.get<double>() > 0;
          });
          return all && Index(all->size()) == count ? all : std::nullopt;
        });
    if (!values) fail(name);
    return *values;
  }
  /// Raises corrupt where there is none, or where it is 0.
  double required_number(const char* name) const {
    const double value = number({name}).value_or(0);
    if (value == 0) fail(name);
    return value;
  }
  /// The member, or one without members where there is none.
  JsonConfig object(const char* name) const {
    static const Json nothing = Json::object();
    const Json* member = find_member(object_, name);
    return {member == nullptr || member->is_null() ? nothing : *member,
            message(where_, ": ", name)};
  }
  bool empty() const noexcept { return object_.empty(); }
  [[noreturn]] void fail(const char* missing) const {
    raise(ErrorCode::corrupt, message(where_, ": does not say ", missing));
  }

 private:
  template <class T, class Accept>
  static std::optional<std::vector<T>> each(const Json& array, Accept accept) {
    if (!array.is_array()) return std::nullopt;
    std::vector<T> all;
    for (const Json& element : array) {
      if (!accept(element)) return std::nullopt;
      all.push_back(element.get<T>());
    }
    return all;
  }
  template <class T, class Convert>
  std::optional<T> get(Names names, std::string_view expected, Convert convert) const {
    for (const char* name : names) {
      const Json* member = find_member(object_, name);
      if (member == nullptr || member->is_null()) continue;
      std::optional<T> value = convert(*member);
      if (!value) raise_config(where_, name, printable(*member), expected);
      return value;
    }
    return std::nullopt;
  }

  const Json& object_;
  std::string where_;
};

}  // namespace cafeq::detail
