/// llama.cpp's imatrix in GGUF: per matrix, Σ x_j² ("NAME.in_sum2") and the number of inputs
/// ("NAME.counts"). GramFile reads it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cafeq/io/gguf_file.hpp"
#include "cafeq/model/gram_collector.hpp"

namespace cafeq {

namespace detail {

inline constexpr std::string_view imatrix_squares = ".in_sum2", imatrix_counts = ".counts";

}  // namespace detail

/// As llama.cpp's imatrix: diagonals, each reader by itself. `names` says what llama.cpp calls a
/// matrix, where that is another name; `source` is kept as what the inputs are from.
inline void write_imatrix(const std::string& path, const GramCollector& grams,
                          std::string_view source,
                          const std::map<std::string, std::string>& names = {}) {
  struct Part {
    std::string name;
    const InputGram* gram;
  };
  std::vector<Part> parts;
  const auto called = [&](const std::string& name) {
    const auto found = names.find(name);
    return found == names.end() ? name : found->second;
  };
  std::int64_t most = 0;
  for (const auto& input : grams.inputs()) {
    most = std::max(most, input.gram.count());
    parts.push_back({called(input.name), &input.gram});
    for (const std::string& reader : input.readers) parts.push_back({called(reader), &input.gram});
  }
  std::sort(parts.begin(), parts.end(),
            [](const Part& a, const Part& b) { return a.name < b.name; });

  GgufMetadata metadata;
  metadata.add("general.type", GgufValue(std::string_view("imatrix")));
  metadata.add("imatrix.datasets", GgufValue(std::vector<std::string>{std::string(source)}));
  // Counts are of inputs: one chunk has as many as there were at most.
  metadata.add("imatrix.chunk_count", GgufValue(std::uint32_t(1)));
  metadata.add("imatrix.chunk_size",
               GgufValue(std::uint32_t(std::min<std::int64_t>(most, UINT32_MAX))));
  std::vector<GgufEntry> entries;
  for (const Part& part : parts) {
    entries.push_back(
        {part.name + std::string(detail::imatrix_squares), GgufType::f32, {1, part.gram->dim()}});
    entries.push_back({part.name + std::string(detail::imatrix_counts), GgufType::f32, {1, 1}});
  }
  GgufWriter writer(path, metadata, entries);
  for (const Part& part : parts) {
    std::vector<float> squares;
    for (Index j = 0; j < part.gram->dim(); ++j) squares.push_back(float(part.gram->square(j)));
    const float count = float(part.gram->count());
    writer.write(part.name + std::string(detail::imatrix_squares),
                 std::as_bytes(std::span(squares)));
    writer.write(part.name + std::string(detail::imatrix_counts),
                 std::as_bytes(std::span(&count, 1)));
  }
  writer.commit();
}

}  // namespace cafeq
