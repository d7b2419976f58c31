/// Reader and writer of the safetensors format.
///
/// A file is a 64-bit little-endian length, a JSON header of that many bytes, and the tensors' bytes. The header maps each name to
/// {"dtype", "shape", "data_offsets": [begin, end]}, relative to the end of the header, and "__metadata__" to strings; the tensors cover
/// what follows the header without gap or overlap.
#pragma once

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "cafeq/io/file.hpp"
#include "cafeq/io/json.hpp"
#include "cafeq/io/tensor.hpp"

namespace cafeq {

using Metadata = std::map<std::string, std::string, std::less<>>;

/// A safetensors file, its tensors as views of memory that this object holds: the file's pages, or a copy of them.
class SafetensorsReader {
 public:
  enum class Access {
    map,   ///< pages are read when they are touched; the file must not shrink meanwhile
    read,  ///< the whole file at once
  };

  /// Raises io for a file that cannot be read, corrupt for one that breaks the format, unsupported for an unknown dtype.
  explicit SafetensorsReader(const std::string& path, Access access = Access::map);

  /// Views into this object's memory. Bytes start where the file says, so foreign files may hold tensors that are not aligned.
  const TensorViewMap& tensors() const noexcept { return tensors_; }
  const Metadata& metadata() const noexcept { return metadata_; }
  /// A copy of one tensor with aligned bytes of its own.
  Tensor load(std::string_view name) const {
    const TensorView& view = tensor_at(tensors_, name);
    return {view.type, view.shape, Buffer<std::byte>(view.bytes.begin(), view.bytes.end())};
  }

 private:
  std::span<const std::byte> bytes() const noexcept {
    if (const auto* mapped = std::get_if<MappedFile>(&content_)) return mapped->bytes();
    return *std::get_if<Buffer<std::byte>>(&content_);
  }

  std::variant<Buffer<std::byte>, MappedFile> content_;  // moving either keeps its bytes in place
  TensorViewMap tensors_;
  Metadata metadata_;
};

/// Writes the tensors so that the file appears whole or not at all: under a temporary name, synced, then renamed over `path`. Larger
/// element types come first, names in order among equals, and the data starts at a multiple of 64, so that every tensor of a mapped file
/// is aligned for its elements; equal content gives equal files. Raises invalid_argument for a tensor whose bytes do not fit its shape or
/// a name that is not UTF-8, io where the file cannot be written; then nothing is left behind and an existing file is as it was.
inline void write_safetensors(const std::string& path, const TensorViewMap& tensors, const Metadata& metadata = {});

namespace detail {

inline constexpr const char* safetensors_metadata = "__metadata__";
inline constexpr std::uint64_t safetensors_header_limit = 100'000'000;  // what other readers accept

struct SafetensorsEntry {
  std::string name;
  ScalarType type;
  std::vector<Index> shape;
  Index begin;
  Index end;
};

inline SafetensorsEntry parse_safetensors_entry(const std::string& path, const std::string& name, const Json& entry, Index size) {
  const auto fail = [&](std::string_view problem) { raise(ErrorCode::corrupt, message(path, ": tensor ", name, ": ", problem)); };
  const std::string* type_name = find_string(entry, "dtype");
  if (type_name == nullptr) fail("has no dtype");
  const auto type = scalar_type_named(*type_name);
  if (!type) raise(ErrorCode::unsupported, message(path, ": tensor ", name, ": unknown dtype ", *type_name));
  auto shape = to_sizes(find_member(entry, "shape"));
  if (!shape) fail("has no shape of non-negative integers");
  const auto offsets = to_sizes(find_member(entry, "data_offsets"));
  if (!offsets || offsets->size() != 2) fail("has no data_offsets of two non-negative integers");
  const Index begin = (*offsets)[0];
  const Index end = (*offsets)[1];
  if (begin > end || end > size) fail(message("data_offsets [", begin, ", ", end, "] are outside of the ", size, " bytes of data"));
  if (entry.size() != 3) fail("has members other than dtype, shape and data_offsets");
  if (byte_count(*type, *shape) != end - begin) fail(message(describe(*type, *shape), " does not take ", end - begin, " bytes"));
  return {name, *type, std::move(*shape), begin, end};
}

inline void parse_safetensors_metadata(const std::string& path, const Json& entries, Metadata& metadata) {
  if (!entries.is_object()) raise(ErrorCode::corrupt, message(path, ": ", safetensors_metadata, " is not an object"));
  for (const auto& item : entries.items()) {
    if (!item.value().is_string())
      raise(ErrorCode::corrupt, message(path, ": ", safetensors_metadata, ": ", item.key(), " is not a string"));
    metadata.emplace(item.key(), item.value().get_ref<const std::string&>());
  }
}

/// Text survives a round trip through JSON only if it is UTF-8.
inline bool is_utf8(const std::string& text) {
  const Json parsed = Json::parse(Json(text).dump(-1, ' ', false, Json::error_handler_t::ignore), nullptr, false);
  return parsed.is_string() && parsed.get_ref<const std::string&>() == text;
}

}  // namespace detail

inline SafetensorsReader::SafetensorsReader(const std::string& path, Access access) {
  if (access == Access::map) content_ = MappedFile(path);
  else content_ = read_file(path);
  const auto file = bytes();
  const auto fail = [&](std::string_view problem) { raise(ErrorCode::corrupt, message(path, ": ", problem)); };

  std::uint64_t header_size = 0;
  if (file.size() < sizeof header_size) fail(message("has ", file.size(), " bytes, too few for a safetensors file"));
  std::memcpy(&header_size, file.data(), sizeof header_size);
  if (header_size > detail::safetensors_header_limit || header_size > file.size() - sizeof header_size)
    fail(message("its header claims ", header_size, " bytes of a file of ", file.size()));
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + sizeof header_size, std::size_t(header_size));
  if (text.empty() || text.front() != '{') fail("its header is not a JSON object");
  const detail::Json header = detail::parse_json(text, path);

  const auto data = file.subspan(sizeof header_size + std::size_t(header_size));
  std::vector<detail::SafetensorsEntry> entries;
  for (const auto& item : header.items()) {
    if (item.key() == detail::safetensors_metadata) detail::parse_safetensors_metadata(path, item.value(), metadata_);
    else entries.push_back(detail::parse_safetensors_entry(path, item.key(), item.value(), Index(data.size())));
  }

  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
  Index end = 0;
  for (auto& entry : entries) {
    if (entry.begin != end)
      fail(message("tensor ", entry.name, entry.begin < end ? " overlaps the one before it" : " leaves a gap before it", " at byte ",
                   entry.begin, " of the data"));
    end = entry.end;
    const auto span = data.subspan(std::size_t(entry.begin), std::size_t(entry.end - entry.begin));
    tensors_.emplace(std::move(entry.name), TensorView{entry.type, std::move(entry.shape), span});
  }
  if (end != Index(data.size())) fail(message("tensors cover ", end, " of the ", data.size(), " bytes of data"));
}

inline void write_safetensors(const std::string& path, const TensorViewMap& tensors, const Metadata& metadata) {
  std::vector<const TensorViewMap::value_type*> order;
  for (const auto& item : tensors) {
    const auto& [name, tensor] = item;
    if (name == detail::safetensors_metadata || !detail::is_utf8(name))
      raise(ErrorCode::invalid_argument, message("tensors: ", name, " cannot name a tensor of a safetensors file"));
    if (byte_count(tensor.type, tensor.shape) != Index(tensor.bytes.size()))
      raise(ErrorCode::invalid_argument,
            message("tensors: ", name, ": ", describe(tensor.type, tensor.shape), " does not take ", tensor.bytes.size(), " bytes"));
    order.push_back(&item);
  }
  std::stable_sort(order.begin(), order.end(),
                   [](const auto* a, const auto* b) { return bytes_of(a->second.type) > bytes_of(b->second.type); });

  detail::Json header = detail::Json::object();
  for (const auto& [key, value] : metadata) {
    if (!detail::is_utf8(key) || !detail::is_utf8(value))
      raise(ErrorCode::invalid_argument, message("metadata: ", key, " is not UTF-8"));
    header[detail::safetensors_metadata][key] = value;
  }
  Index end = 0;
  for (const auto* item : order) {
    const auto& [name, tensor] = *item;
    const Index begin = end;
    end += Index(tensor.bytes.size());
    header[name] = {{"dtype", std::string(name_of(tensor.type))},
                    {"shape", tensor.shape},
                    {"data_offsets", {begin, end}}};
  }
  std::string text = header.dump();
  text.resize(std::size_t(ceil_div(Index(text.size()) + 8, Index(alignment)) * Index(alignment)) - 8, ' ');
  const std::uint64_t header_size = text.size();
  if (header_size > detail::safetensors_header_limit)
    raise(ErrorCode::invalid_argument, message("tensors: their header of ", header_size, " bytes is longer than readers accept"));

  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&header_size, 1)));
  file.write(std::as_bytes(std::span(text)));
  for (const auto* item : order) file.write(item->second.bytes);
  file.commit();
}

}  // namespace cafeq
