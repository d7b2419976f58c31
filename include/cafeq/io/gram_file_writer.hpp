/// Writes Grams into files; cafeq/io/gram_file.hpp has the format and reads them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cafeq/io/json.hpp"
#include "cafeq/io/safetensors.hpp"
#include "cafeq/model/gram_collector.hpp"

namespace cafeq {

/// An input as a file lists it, before its sums are known.
struct GramEntry {
  std::string name;                    ///< of the first matrix that reads it
  std::vector<std::string> readers{};  ///< the others
  Index dim = 0;
  GramKind kind = GramKind::whole;
  std::int64_t count = 0;  ///< of inputs, over which the file has means
};

namespace detail {

inline constexpr const char* grams_key = "cafeq.grams";
inline constexpr Index grams_version = 1;
inline constexpr Index gram_dim_limit = Index(1) << 24;

inline Index gram_numbers(const GramEntry& entry) noexcept {
  return entry.kind == GramKind::diagonal ? entry.dim : entry.dim * (entry.dim + 1) / 2;
}

inline GramEntry entry_of(const GramCollector::Input& input) {
  return {input.name, input.readers, input.gram.dim(), input.gram.kind(), input.gram.count()};
}

}  // namespace detail

/// Writes such a file input by input, so that memory need not hold them all.
class GramFileWriter {
 public:
  /// What `model` says tells it from others: fingerprint_of() it.
  GramFileWriter(const std::string& path, std::span<const GramEntry> inputs,
                 const std::string& model = {})
      : inputs_(inputs.begin(), inputs.end()),
        writer_(path, entries(inputs), metadata(inputs, model)) {}

  static Index file_bytes(std::span<const GramEntry> inputs, const std::string& model = {}) {
    return SafetensorsWriter::file_bytes(entries(inputs), metadata(inputs, model));
  }

  /// Raises invalid_argument for another dimension, kind or count than was announced.
  void write(std::string_view name, const InputGram& gram) {
    const auto entry = std::find_if(inputs_.begin(), inputs_.end(),
                                    [&](const GramEntry& e) { return e.name == name; });
    if (entry == inputs_.end() || entry->dim != gram.dim() || entry->kind != gram.kind() ||
        entry->count != gram.count())
      raise(ErrorCode::invalid_argument,
            message("grams: ", name, " is not what was announced: ", gram.dim(), " entries, ",
                    gram.count(), " inputs"));
    std::vector<float> means;
    means.reserve(std::size_t(detail::gram_numbers(*entry)));
    const double n = double(std::max<std::int64_t>(1, gram.count()));
    if (gram.kind() == GramKind::diagonal)
      for (Index j = 0; j < gram.dim(); ++j) means.push_back(float(gram.square(j) / n));
    else
      for (Index i = 0; i < gram.dim(); ++i)
        for (Index j = 0; j <= i; ++j) means.push_back(float(gram.product(i, j) / n));
    writer_.write(name, std::as_bytes(std::span(means)));
  }
  void commit() { writer_.commit(); }

 private:
  static std::vector<SafetensorsEntry> entries(std::span<const GramEntry> inputs) {
    std::vector<SafetensorsEntry> all;
    for (const GramEntry& input : inputs)
      all.push_back({input.name, ScalarType::f32, {detail::gram_numbers(input)}});
    // Whatever their order: equal content gives equal files.
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
    return all;
  }
  static Metadata metadata(std::span<const GramEntry> inputs, const std::string& model) {
    detail::Json json{{"version", detail::grams_version}, {"model", model}};
    auto& list = json["inputs"] = detail::Json::object();
    for (const GramEntry& input : inputs)
      list[input.name] = {{"dim", input.dim},
                          {"kind", name_of(input.kind)},
                          {"count", input.count},
                          {"readers", input.readers}};
    return {{detail::grams_key, json.dump(-1, ' ', false, detail::Json::error_handler_t::replace)}};
  }

  std::vector<GramEntry> inputs_;
  SafetensorsWriter writer_;
};

/// All that a collector has, in a file. Equal content gives equal files.
inline void write_grams(const std::string& path, const GramCollector& grams,
                        const std::string& model = {}) {
  std::vector<GramEntry> entries;
  for (const auto& input : grams.inputs()) entries.push_back(detail::entry_of(input));
  GramFileWriter writer(path, entries, model);
  for (const auto& input : grams.inputs()) writer.write(input.name, input.gram);
  writer.commit();
}

}  // namespace cafeq
