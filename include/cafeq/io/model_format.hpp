/// Which format a model has, by its content; by its name only where the content says nothing.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <span>
#include <string>

#include "cafeq/io/byte_cursor.hpp"
#include "cafeq/io/file.hpp"
#include "cafeq/io/gguf_file.hpp"
#include "cafeq/io/json.hpp"
#include "cafeq/io/llama2c.hpp"
#include "cafeq/io/path.hpp"
#include "cafeq/io/safetensors_model.hpp"
#include "cafeq/io/stored_matrix.hpp"

namespace cafeq {

enum class ModelFormat {
  safetensors,
  gguf,
  llama2c,
  tfjs,
  quantized,  ///< cafeq's own
};

namespace detail {

/// Whether a file of `size` bytes begins with a length that is not longer than itself, and JSON.
inline bool begins_like_safetensors(std::span<const std::byte> head, Index size) {
  std::uint64_t header_bytes = 0;
  if (head.size() <= sizeof header_bytes) return false;
  std::memcpy(&header_bytes, head.data(), sizeof header_bytes);
  return header_bytes <= std::uint64_t(size) - sizeof header_bytes &&
         char(head[sizeof header_bytes]) == '{';
}

/// Whether a file begins with llama2.c's magic number, or with seven sizes that a model may have.
inline bool begins_like_llama2c(std::span<const std::byte> head) {
  constexpr std::size_t header_bytes = 7 * sizeof(std::int32_t);
  if (head.size() < header_bytes) return false;
  ByteCursor cursor("", head);
  if (ByteCursor(cursor).number<std::uint32_t>("the header") == llama2c_magic) return true;
  Llama2cHeader header = read_llama2c_sizes(cursor);
  header.vocabulary = std::abs(header.vocabulary);
  return llama2c_problem(header).empty();
}

/// Whether a safetensors file is one of cafeq's own. Raises as SafetensorsReader.
inline ModelFormat format_of_safetensors(const std::string& path) {
  return SafetensorsReader(path).metadata().contains(version_key) ? ModelFormat::quantized
                                                                  : ModelFormat::safetensors;
}

/// What an index or a manifest lists, or nothing where it is neither.
inline std::optional<ModelFormat> format_of_json(const std::string& path) {
  const Json json = read_json(path);
  if (find_member(json, "weight_map") != nullptr) return ModelFormat::safetensors;
  if (find_member(json, "weightsManifest") != nullptr) return ModelFormat::tfjs;
  return std::nullopt;
}

/// The format of a file. Where the content says nothing the name counts, so that the reader of that
/// format can tell what is wrong.
inline std::optional<ModelFormat> format_of_file(const std::string& path) {
  if (path.ends_with(".json")) return format_of_json(path);

  const InputFile file(path);
  std::array<std::byte, 64> bytes;
  const auto head = std::span(bytes).first(std::min(bytes.size(), std::size_t(file.size())));
  file.read_at(0, head);

  if (as_text(head).starts_with(gguf_magic)) return ModelFormat::gguf;
  if (begins_like_safetensors(head, file.size())) return format_of_safetensors(path);
  if (begins_like_llama2c(head)) return ModelFormat::llama2c;

  if (path.ends_with(safetensors_suffix)) return ModelFormat::safetensors;
  if (path.ends_with(".gguf")) return ModelFormat::gguf;
  return std::nullopt;
}

/// The format of what lies in a directory.
inline std::optional<ModelFormat> format_of_directory(const std::string& path) {
  const auto names = names_in(path);
  for (const std::string& name : names)
    if (name.ends_with(safetensors_suffix) || name == safetensors_index)
      return ModelFormat::safetensors;
  return std::binary_search(names.begin(), names.end(), "model.json")
             ? std::optional(ModelFormat::tfjs)
             : std::nullopt;
}

/// The format of the model at `path`. Raises unsupported where it is none that is understood, and
/// io where it cannot be read.
inline ModelFormat format_of(const std::string& path) {
  const auto format = is_directory(path) ? format_of_directory(path) : format_of_file(path);
  if (!format)
    raise(ErrorCode::unsupported,
          message(path,
                  ": is no model that is understood: a safetensors file, its index or a directory "
                  "of them, a GGUF file, a llama2.c checkpoint, or a TensorFlow.js model.json or "
                  "its directory"));
  return *format;
}

}  // namespace detail
}  // namespace cafeq
