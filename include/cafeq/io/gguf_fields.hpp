/// The fields of a GGUF file's metadata that describe its model, checked as they are read.
#pragma once

#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cafeq/io/complete_config.hpp"
#include "cafeq/io/gguf_metadata.hpp"

namespace cafeq::detail {

/// The fields of one architecture, whose names begin with its own.
class GgufConfig {
 public:
  GgufConfig(const GgufMetadata& metadata, std::string_view architecture)
      : metadata_(metadata), prefix_(message(architecture, ".")) {}

  /// 0 where there is no such field, or where it holds a number for each layer.
  Index count(std::string_view name, Index limit = count_limit) const {
    const GgufValue* field = metadata_.find(prefix_ + std::string(name));
    if (field == nullptr || field->type() == GgufValueType::array) return 0;
    const auto number = field->to<Index>();
    if (!number || *number < 0 || *number > limit) fail(name, *field, count_up_to(limit));
    return *number;
  }
  double number(std::string_view name, double otherwise = 0) const {
    const GgufValue* field = metadata_.find(prefix_ + std::string(name));
    if (field == nullptr) return otherwise;
    const auto number = field->to<double>();
    if (!number || !(*number >= 0) || std::isinf(*number)) fail(name, *field, "a number from 0");
    return *number;
  }
  bool has(std::string_view name) const {
    return metadata_.find(prefix_ + std::string(name)) != nullptr;
  }
  /// Nothing where there is no such field, or where it holds something else.
  std::optional<std::string_view> text(std::string_view name) const {
    return metadata_.get<std::string_view>(prefix_ + std::string(name));
  }
  std::optional<std::vector<bool>> flags(std::string_view name) const {
    return metadata_.get<std::vector<bool>>(prefix_ + std::string(name));
  }

 private:
  [[noreturn]] void fail(std::string_view name, const GgufValue& field,
                         std::string_view expected) const {
    const auto number = field.to<double>();
    raise_config("metadata", prefix_ + std::string(name), number ? message(*number) : "no number",
                 expected);
  }

  const GgufMetadata& metadata_;
  std::string prefix_;
};

}  // namespace cafeq::detail
