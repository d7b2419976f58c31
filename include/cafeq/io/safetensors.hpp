/// Reader and writer of safetensors files. Models of several files are read by
/// cafeq/io/safetensors_model.hpp and written by cafeq/io/sharded_safetensors.hpp.
///
/// A file is a 64-bit little-endian length, a JSON header of that many bytes, and the tensors'
/// bytes. The header maps each name to {"dtype", "shape", "data_offsets": [begin, end]}, relative
/// to the end of the header, and "__metadata__" to strings; the tensors cover what follows the
/// header without gap or overlap.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "cafeq/io/byte_cursor.hpp"
#include "cafeq/io/file.hpp"
#include "cafeq/io/json.hpp"
#include "cafeq/io/tensor_file_writer.hpp"
#include "cafeq/model/tensor.hpp"

namespace cafeq {

/// What "__metadata__" holds.
using Metadata = std::map<std::string, std::string, std::less<>>;

/// A safetensors file, its tensors as views of memory that this object holds: the file's pages, or
/// a copy of them.
class SafetensorsReader {
 public:
  enum class Access {
    map,   ///< pages are read when they are touched; the file must not shrink meanwhile
    read,  ///< the whole file at once
  };

  /// Raises io for a file that cannot be read, corrupt for one that breaks the format, unsupported
  /// for an unknown dtype.
  explicit SafetensorsReader(const std::string& path, Access access = Access::map);

  /// Views into this object's memory. Bytes start where the file says, so foreign files may hold
  /// tensors that are not aligned.
  const TensorViewMap& tensors() const noexcept { return tensors_; }
  const Metadata& metadata() const noexcept { return metadata_; }
  /// A copy of one tensor with aligned bytes of its own.
  Tensor load(std::string_view name) const {
    const TensorView& view = tensor_at(tensors_, name);
    return {view.type, view.shape, Buffer<std::byte>(view.bytes.begin(), view.bytes.end())};
  }
  /// Lets the tensor's pages leave memory until they are touched again. Nothing happens where the
  /// whole file was read at once.
  void release(std::string_view name) const {
    const TensorView& view = tensor_at(tensors_, name);
    if (const auto* mapped = std::get_if<MappedFile>(&file_)) mapped->release(view.bytes);
  }
  Index file_bytes() const noexcept { return Index(bytes().size()); }

 private:
  std::span<const std::byte> bytes() const noexcept {
    if (const auto* mapped = std::get_if<MappedFile>(&file_)) return mapped->bytes();
    return *std::get_if<Buffer<std::byte>>(&file_);
  }

  std::variant<Buffer<std::byte>, MappedFile> file_;  // moving either keeps its bytes in place
  TensorViewMap tensors_;
  Metadata metadata_;
};

/// A tensor to be written.
struct SafetensorsEntry {
  std::string name;
  ScalarType type;
  std::vector<Index> shape;
};

/// Writes a safetensors file: first all that is known of it, then the tensors one after the other.
///
/// In the file larger element types come first, entries as they were given among equals, and the
/// data starts at a multiple of 64, so that every tensor of a mapped file is aligned for its
/// elements.
class SafetensorsWriter : public TensorFileWriter {
 public:
  /// Raises invalid_argument for a name that is taken or not UTF-8, or for a shape of no size.
  SafetensorsWriter(const std::string& path, std::span<const SafetensorsEntry> entries,
                    const Metadata& metadata = {})
      : TensorFileWriter(path, layout(entries, metadata)) {}

  /// The size of such a file. Errors as the constructor.
  static Index file_bytes(std::span<const SafetensorsEntry> entries,
                          const Metadata& metadata = {}) {
    return layout(entries, metadata).file_bytes();
  }

 private:
  static Layout layout(std::span<const SafetensorsEntry> entries, const Metadata& metadata);
};

/// All tensors at once, in the order of their names; equal content gives equal files. Errors as
/// SafetensorsWriter.
inline void write_safetensors(const std::string& path, const TensorViewMap& tensors,
                              const Metadata& metadata = {}) {
  std::vector<SafetensorsEntry> entries;
  for (const auto& [name, tensor] : tensors) entries.push_back({name, tensor.type, tensor.shape});
  SafetensorsWriter writer(path, entries, metadata);
  for (const auto& [name, tensor] : tensors) writer.write(name, tensor.bytes);
  writer.commit();
}

namespace detail {

inline constexpr const char* safetensors_metadata = "__metadata__";
inline constexpr std::uint64_t safetensors_header_limit = 100'000'000;  // what other readers accept

/// An entry of a header.
struct PlacedSafetensorsEntry : SafetensorsEntry {
  Index begin;  // in the data
  Index end;
};

/// Reads an entry of a header that is followed by `size` bytes of data.
inline PlacedSafetensorsEntry parse_safetensors_entry(const std::string& path,
                                                      const std::string& name, const Json& entry,
                                                      Index size) {
  const auto fail = [&](std::string_view problem) {
    raise(ErrorCode::corrupt, message(path, ": tensor ", name, ": ", problem));
  };
  const std::string* type_name = find_string(entry, "dtype");
  if (type_name == nullptr) fail("has no dtype");
  const auto type = scalar_type_named(*type_name);
  if (!type)
    raise(ErrorCode::unsupported, message(path, ": tensor ", name, ": unknown dtype ", *type_name));

  auto shape = to_sizes(find_member(entry, "shape"));
  if (!shape) fail("has no shape of non-negative integers");
  const auto offsets = to_sizes(find_member(entry, "data_offsets"));
  if (!offsets || offsets->size() != 2) fail("has no data_offsets of two non-negative integers");

  const Index begin = (*offsets)[0];
  const Index end = (*offsets)[1];
  if (begin > end || end > size)
    fail(message("data_offsets [", begin, ", ", end, "] are outside of the ", size,
                 " bytes of data"));
  if (entry.size() != 3) fail("has members other than dtype, shape and data_offsets");
  if (byte_count(*type, *shape) != end - begin)
    fail(message(describe(*type, *shape), " does not take ", end - begin, " bytes"));
  return {{name, *type, std::move(*shape)}, begin, end};
}

inline Metadata parse_safetensors_metadata(const std::string& path, const Json& entries) {
  Metadata metadata;
  if (!entries.is_object())
    raise(ErrorCode::corrupt, message(path, ": ", safetensors_metadata, " is not an object"));
  for (const auto& item : entries.items()) {
    if (!item.value().is_string())
      raise(ErrorCode::corrupt,
            message(path, ": ", safetensors_metadata, ": ", item.key(), " is not a string"));
    metadata.emplace(item.key(), item.value().get_ref<const std::string&>());
  }
  return metadata;
}

struct SafetensorsContent {
  TensorViewMap tensors{};
  Metadata metadata{};
};

inline SafetensorsContent parse_safetensors(const std::string& path,
                                            std::span<const std::byte> file) {
  ByteCursor cursor(path, file);
  const auto header_bytes = cursor.number<std::uint64_t>("the length of the header");
  if (header_bytes > safetensors_header_limit)
    cursor.fail(message("its header claims ", header_bytes, " bytes"));
  const std::string_view text = as_text(cursor.take(header_bytes, "the header"));
  if (!text.starts_with('{')) cursor.fail("its header is not a JSON object");
  const Json header = parse_json(text, path);

  SafetensorsContent content;
  const auto data = file.subspan(cursor.position());
  std::vector<PlacedSafetensorsEntry> entries;
  for (const auto& item : header.items()) {
    if (item.key() == safetensors_metadata)
      content.metadata = parse_safetensors_metadata(path, item.value());
    else
      entries.push_back(
          parse_safetensors_entry(path, item.key(), item.value(), Index(data.size())));
  }

  // Sorted by their places each tensor must begin where the one before it ends.
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  Index end = 0;
  for (auto& entry : entries) {
    if (entry.begin != end)
      cursor.fail(
          message("tensor ", entry.name,
                  entry.begin < end ? " overlaps the one before it" : " leaves a gap before it",
                  " at byte ", entry.begin, " of the data"));
    end = entry.end;
    const auto span = data.subspan(std::size_t(entry.begin), std::size_t(entry.end - entry.begin));
    content.tensors.emplace(std::move(entry.name),
                            TensorView{entry.type, std::move(entry.shape), span});
  }
  if (end != Index(data.size()))
    cursor.fail(message("tensors cover ", end, " of the ", data.size(), " bytes of data"));
  return content;
}

/// Whether a text is UTF-8: only then it is the same after a way through JSON.
inline bool is_utf8(const std::string& text) {
  const Json parsed =
      Json::parse(Json(text).dump(-1, ' ', false, Json::error_handler_t::ignore), nullptr, false);
  return parsed.is_string() && parsed.get_ref<const std::string&>() == text;
}

}  // namespace detail

inline SafetensorsReader::SafetensorsReader(const std::string& path, Access access) {
  if (access == Access::map) file_ = MappedFile(path);
  else file_ = read_file(path);
  auto content = detail::parse_safetensors(path, bytes());
  tensors_ = std::move(content.tensors);
  metadata_ = std::move(content.metadata);
}

inline TensorFileWriter::Layout SafetensorsWriter::layout(std::span<const SafetensorsEntry> entries,
                                                          const Metadata& metadata) {
  std::vector<SafetensorsEntry> order(entries.begin(), entries.end());
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return bytes_of(a.type) > bytes_of(b.type);
  });

  detail::Json header = detail::Json::object();
  for (const auto& [key, value] : metadata) {
    if (!detail::is_utf8(key) || !detail::is_utf8(value))
      raise(ErrorCode::invalid_argument, message("metadata: ", key, " is not UTF-8"));
    header[detail::safetensors_metadata][key] = value;
  }

  Layout layout;
  for (const auto& [name, type, shape] : order) {
    const auto bytes = byte_count(type, shape);
    if (name == detail::safetensors_metadata || !detail::is_utf8(name))
      raise(ErrorCode::invalid_argument,
            message("entries: ", name, " cannot name a tensor of a safetensors file"));
    if (!bytes)
      raise(ErrorCode::invalid_argument,
            message("entries: ", name, ": ", detail::describe(type, shape), " has no size"));
    const Index begin = layout.append(name, *bytes);
    header[name] = {{"dtype", std::string(name_of(type))},
                    {"shape", shape},
                    {"data_offsets", {begin, begin + *bytes}}};
  }

  // Spaces fill the header up, so that the data begins at a multiple of the alignment.
  const std::string text = header.dump();
  const std::uint64_t size =
      std::uint64_t(ceil_div(Index(text.size()) + 8, Index(alignment)) * Index(alignment)) - 8;
  if (size > detail::safetensors_header_limit)
    raise(ErrorCode::invalid_argument,
          message("entries: their header of ", size, " bytes is longer than readers accept"));

  detail::append_number(layout.header, size);
  layout.header += text;
  layout.header.resize(std::size_t(size) + 8, ' ');
  return layout;
}

}  // namespace cafeq
