/// Reader and writer of GGUF files, version 3, little-endian: metadata, then tensors in formats
/// that llama.cpp runs.
///
/// "GGUF", u32 version, u64 number of tensors, u64 number of fields; each field: name, u32 type,
/// value; each tensor: name (below 64 bytes), u32 rank, u64 sizes from the fastest to the slowest,
/// u32 type, u64 offset. The data starts at the next multiple of `general.alignment` (32 where it
/// is not given) and holds the tensors in the order of their list, each at such a multiple. A
/// string is a u64 length and its bytes. Shapes of this header are [.., rows, cols]: slowest
/// dimension first, as everywhere in the library.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/byte_cursor.hpp"
#include "cafeq/io/file.hpp"
#include "cafeq/io/gguf_metadata.hpp"
#include "cafeq/io/named_list.hpp"
#include "cafeq/io/tensor_file_writer.hpp"
#include "cafeq/quant/gguf_type.hpp"

namespace cafeq {

/// A tensor as it is listed at the head of a file.
struct GgufEntry {
  std::string name;
  GgufType type;  ///< any number that a file holds: gguf_type_info() may not know it
  std::vector<Index> shape;
  Index bytes = 0;  ///< a writer needs it only where the type is not known; else the shape says it
};

/// A tensor of a mapped file. Where its type is not known, `data` is everything up to the next
/// tensor.
struct GgufTensor : GgufEntry {
  std::span<const std::byte> data;
};

/// A mapped GGUF file: its metadata, and its tensors as views of its pages.
class GgufReader {
 public:
  /// Raises io for a file that cannot be read, unsupported for another version or byte order,
  /// corrupt for one that breaks the format.
  explicit GgufReader(const std::string& path);

  const GgufMetadata& metadata() const noexcept { return metadata_; }
  /// In the file's order.
  std::span<const GgufTensor> tensors() const noexcept { return tensors_.items(); }
  /// Raises where there is none of that name.
  const GgufTensor& tensor(std::string_view name) const { return tensors_.at(name); }
  /// Null where there is none of that name.
  const GgufTensor* find(std::string_view name) const noexcept { return tensors_.find(name); }
  /// Lets the tensor's pages leave memory until they are touched again.
  void release(std::string_view name) const { file_.release(tensor(name).data); }
  Index file_bytes() const noexcept { return Index(file_.bytes().size()); }

 private:
  MappedFile file_;
  GgufMetadata metadata_;
  detail::NamedList<GgufTensor> tensors_;
};

/// Writes a GGUF file: first all that is known of it, then the tensors one after the other.
class GgufWriter : public TensorFileWriter {
 public:
  /// Fields are written as they are and in their order. Raises invalid_argument for what the format
  /// cannot hold.
  GgufWriter(const std::string& path, const GgufMetadata& metadata,
             std::span<const GgufEntry> entries)
      : TensorFileWriter(path, layout(metadata, entries)) {}

  /// The size of such a file. Errors as the constructor.
  static Index file_bytes(const GgufMetadata& metadata, std::span<const GgufEntry> entries) {
    return layout(metadata, entries).file_bytes();
  }
  /// A whole file with these fields and no tensor.
  static std::string without_tensors(const GgufMetadata& metadata) {
    return layout(metadata, {}).header;
  }

 private:
  static Layout layout(const GgufMetadata& metadata, std::span<const GgufEntry> entries);
};

namespace detail {

/// The bytes of a tensor, or nothing where the type is unknown, rows are not whole blocks, a size
/// is negative, or the number does not fit an Index.
inline std::optional<Index> gguf_bytes(GgufType type, std::span<const Index> shape) noexcept {
  const auto rows = element_count(shape.first(shape.empty() ? 0 : shape.size() - 1));
  const Index cols = shape.empty() ? 1 : shape.back();
  if (!rows || cols < 0 || !gguf_type_info(std::uint32_t(type))) return std::nullopt;
  auto bytes = gguf_row_bytes(type, cols);
  if (bytes && __builtin_mul_overflow(*bytes, *rows, &*bytes)) return std::nullopt;
  return bytes;
}

inline constexpr std::string_view gguf_magic = "GGUF";
inline constexpr std::uint32_t gguf_version = 3;
inline constexpr std::size_t gguf_rank_limit = 4;
inline constexpr std::size_t gguf_name_limit = 63;
inline constexpr std::size_t gguf_field_name_limit = 65535;
inline constexpr std::string_view gguf_alignment_field = "general.alignment";
/// No file has more, and padding is not to be a way to ask for memory.
inline constexpr Index gguf_alignment_limit = 1 << 20;

/// The alignment of a file's tensors. Raises `code`, naming `file`, where the field for it says
/// something else than an alignment.
inline Index gguf_alignment(const GgufMetadata& metadata, ErrorCode code, std::string_view file) {
  const GgufValue* field = metadata.find(gguf_alignment_field);
  if (field == nullptr) return 32;
  const auto value = field->type() == GgufValueType::u32 ? field->to<Index>() : std::nullopt;
  if (!value || !is_power_of_two(*value) || *value > gguf_alignment_limit)
    raise(code, message(file, ": ", gguf_alignment_field, " is not a power of two up to ",
                        gguf_alignment_limit, " as u32"));
  return *value;
}

inline bool is_known(GgufType type) noexcept {
  return gguf_type_info(std::uint32_t(type)).has_value();
}

/// Steps over the magic and the version, which must be the ones that this reader knows.
inline void read_gguf_version(ByteCursor& cursor) {
  if (as_text(cursor.take(gguf_magic.size(), "the magic")) != gguf_magic)
    cursor.fail("does not begin with GGUF");
  const auto version = cursor.number<std::uint32_t>("the version");
  if (version == gguf_version) return;
  const bool swapped = (version & 0xffffu) == 0 && version != 0;
  raise(ErrorCode::unsupported, swapped ? message(cursor.file(), ": is a big-endian GGUF file")
                                        : message(cursor.file(), ": is GGUF version ", version,
                                                  ", expected ", gguf_version));
}

/// Reads the fields.
inline GgufMetadata read_gguf_metadata(ByteCursor& cursor, std::uint64_t count) {
  GgufMetadata metadata;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::string name(cursor.text("the name of a field"));
    if (name.empty() || name.size() > gguf_field_name_limit)
      cursor.fail(message("field ", i, " has a name of ", name.size(), " bytes"));
    const GgufValueType type = read_gguf_value_type(cursor);
    if (!metadata.add(name, GgufValue::read(cursor, type)))
      cursor.fail(message("field ", name, " appears twice"));
  }
  return metadata;
}

/// Why a GGUF file cannot have such a tensor; empty where it can.
inline std::string gguf_problem(const GgufEntry& entry) {
  if (entry.name.empty() || entry.name.size() > gguf_name_limit)
    return message("has a name of ", entry.name.size(), " bytes");
  if (entry.shape.size() > gguf_rank_limit)
    return message("has ", entry.shape.size(), " dimensions, at most ", gguf_rank_limit,
                   " are allowed");
  if (!element_count(entry.shape)) return "has a negative dimension, or too many elements";
  if (is_known(entry.type) && !gguf_bytes(entry.type, entry.shape))
    return message("has rows that are no whole ", gguf_type_info(entry.type).name,
                   " blocks, or too many of them");
  return {};
}

/// What the list at the head of a file says of a tensor: all but its bytes.
struct ListedGgufTensor {
  GgufTensor tensor;
  std::uint64_t offset;  // in the data
};

/// Reads one tensor of the list.
inline ListedGgufTensor read_gguf_tensor(ByteCursor& cursor) {
  GgufTensor tensor{};
  tensor.name = cursor.text("the name of a tensor");

  const auto rank = cursor.number<std::uint32_t>("a rank");
  ByteCursor sizes(cursor.file(),
                   cursor.take(std::uint64_t(rank) * sizeof(Index), "the dimensions of a tensor"));
  // Sizes are unsigned in the file. One that is too large becomes negative, which is refused below.
  while (sizes.remaining() > 0) tensor.shape.push_back(sizes.number<Index>("a dimension"));
  std::reverse(tensor.shape.begin(), tensor.shape.end());

  tensor.type = GgufType(cursor.number<std::uint32_t>("a tensor type"));
  const auto offset = cursor.number<std::uint64_t>("an offset");
  if (const std::string problem = gguf_problem(tensor); !problem.empty())
    cursor.fail(message("tensor ", tensor.name, " ", problem));
  return {std::move(tensor), offset};
}

/// Gives each tensor its bytes. Raises corrupt where tensors overlap, are not aligned, or reach
/// beyond the data.
inline NamedList<GgufTensor> place_gguf_tensors(const ByteCursor& cursor,
                                                std::vector<ListedGgufTensor> listed,
                                                std::span<const std::byte> data, Index multiple) {
  NamedList<GgufTensor> tensors;
  std::uint64_t end = 0;
  for (std::size_t i = 0; i < listed.size(); ++i) {
    GgufTensor& tensor = listed[i].tensor;
    const std::uint64_t offset = listed[i].offset;
    const auto fail = [&](std::string_view problem) {
      cursor.fail(message("tensor ", tensor.name, " ", problem));
    };

    const std::string start = message("starts at byte ", offset, " of the data, ");
    if (offset % std::uint64_t(multiple) != 0) fail(message(start, "no multiple of ", multiple));
    if (offset < end) fail(message(start, "inside of the tensor before it, which ends at ", end));
    if (offset > data.size()) fail(message(start, "which has ", data.size()));

    // Only the next tensor tells where one of an unknown type ends.
    const std::uint64_t next =
        i + 1 < listed.size() ? std::clamp<std::uint64_t>(listed[i + 1].offset, offset, data.size())
                              : data.size();
    tensor.bytes =
        is_known(tensor.type) ? *gguf_bytes(tensor.type, tensor.shape) : Index(next - offset);
    if (std::uint64_t(tensor.bytes) > data.size() - offset)
      fail(message(start, "which has ", data.size(), ", and takes ", tensor.bytes));

    tensor.data = data.subspan(std::size_t(offset), std::size_t(tensor.bytes));
    end = offset + tensor.data.size();
    if (!tensors.add(tensor)) fail("appears twice");
  }
  return tensors;
}

/// What a file holds.
struct GgufContent {
  GgufMetadata metadata;
  NamedList<GgufTensor> tensors{};
};

inline GgufContent parse_gguf(const std::string& path, std::span<const std::byte> file) {
  ByteCursor cursor(path, file);
  read_gguf_version(cursor);
  const auto tensor_count = cursor.number<std::uint64_t>("the number of tensors");
  const auto field_count = cursor.number<std::uint64_t>("the number of fields");
  GgufContent content{read_gguf_metadata(cursor, field_count)};

  std::vector<ListedGgufTensor> listed;
  for (std::uint64_t i = 0; i < tensor_count; ++i) listed.push_back(read_gguf_tensor(cursor));

  const Index multiple = gguf_alignment(content.metadata, ErrorCode::corrupt, path);
  const auto data_offset = std::size_t(ceil_div(Index(cursor.position()), multiple) * multiple);
  content.tensors = place_gguf_tensors(cursor, std::move(listed),
                                       file.subspan(std::min(data_offset, file.size())), multiple);
  return content;
}

}  // namespace detail

inline GgufReader::GgufReader(const std::string& path) : file_(path) {
  auto content = detail::parse_gguf(path, file_.bytes());
  metadata_ = std::move(content.metadata);
  tensors_ = std::move(content.tensors);
}

inline TensorFileWriter::Layout GgufWriter::layout(const GgufMetadata& metadata,
                                                   std::span<const GgufEntry> entries) {
  const Index multiple = detail::gguf_alignment(metadata, ErrorCode::invalid_argument, "metadata");
  Layout layout{std::string(detail::gguf_magic)};
  detail::append_number(layout.header, detail::gguf_version);
  detail::append_number(layout.header, std::uint64_t(entries.size()));
  detail::append_number(layout.header, std::uint64_t(metadata.fields().size()));

  for (const auto& [name, value] : metadata.fields()) {
    if (name.empty() || name.size() > detail::gguf_field_name_limit)
      raise(ErrorCode::invalid_argument,
            message("metadata: a field has a name of ", name.size(), " bytes"));
    detail::append_text(layout.header, name);
    detail::append_number(layout.header, value.type());
    layout.header.append(value.encoded());
  }

  for (const GgufEntry& entry : entries) {
    if (const std::string problem = detail::gguf_problem(entry); !problem.empty())
      raise(ErrorCode::invalid_argument, message("tensor ", entry.name, " ", problem));
    detail::append_text(layout.header, entry.name);
    detail::append_number(layout.header, std::uint32_t(entry.shape.size()));
    for (auto size = entry.shape.rbegin(); size != entry.shape.rend(); ++size)
      detail::append_number(layout.header, *size);
    detail::append_number(layout.header, entry.type);
    const Index bytes =
        detail::is_known(entry.type) ? *detail::gguf_bytes(entry.type, entry.shape) : entry.bytes;
    detail::append_number(layout.header, layout.append(entry.name, bytes));
    layout.pad(multiple);
  }

  layout.header.resize(std::size_t(ceil_div(Index(layout.header.size()), multiple) * multiple));
  return layout;
}

}  // namespace cafeq
