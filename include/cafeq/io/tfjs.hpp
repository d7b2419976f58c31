/// Reader of TensorFlow.js models: a model.json whose "weightsManifest" lists groups of tensors,
/// each group's bytes being its shard files one after the other.
///
/// Weights stored quantized (uint8 or uint16 with scale and min, or float16) are returned as the
/// float32 or int32 that they stand for.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cafeq/io/byte_cursor.hpp"
#include "cafeq/io/file.hpp"
#include "cafeq/io/json.hpp"
#include "cafeq/io/named_list.hpp"
#include "cafeq/model/tensor.hpp"

namespace cafeq {

/// A tensor of the manifest.
struct TfjsTensor {
  std::string name;
  ScalarType type = ScalarType::f32;  ///< of the values that it stands for
  std::vector<Index> shape;
  ScalarType stored =
      ScalarType::f32;  ///< of what the file holds: differs from type where that is quantized
  double scale = 1;
  double min = 0;
  std::size_t group = 0;
  Index offset = 0;  ///< in the group's bytes

  Index stored_bytes() const noexcept { return byte_count(stored, shape).value_or(0); }
};

namespace detail {

/// The shards of a group as one run of bytes.
class TfjsShards {
 public:
  /// `file` is the model's and names the shards relative to its directory.
  TfjsShards(const std::string& file, const Json* paths);

  Index size() const noexcept { return shards_.empty() ? 0 : shards_.back().end; }
  std::string_view last_path() const noexcept {
    return shards_.empty() ? "none" : std::string_view(shards_.back().path);
  }
  std::vector<std::string> paths() const {
    std::vector<std::string> paths;
    for (const Shard& shard : shards_) paths.push_back(shard.path);
    return paths;
  }
  /// One shard is open at a time: a model may have more of them than a process may have open files.
  void read_at(Index offset, std::span<std::byte> to) const;

 private:
  struct Shard {
    std::string path;
    Index end;
  };
  std::vector<Shard> shards_;
};

}  // namespace detail

/// A model whose tensors are read when they are asked for.
class TfjsReader {
 public:
  /// `path` is the model.json. Raises io for a file that cannot be read, corrupt for content that
  /// contradicts itself, unsupported for strings and complex numbers.
  explicit TfjsReader(const std::string& path);

  /// In the manifest's order.
  std::span<const TfjsTensor> tensors() const noexcept { return tensors_.items(); }
  /// Raises where there is none of that name.
  const TfjsTensor& tensor(std::string_view name) const { return tensors_.at(name); }
  /// The values of a tensor, of its `type`. Memory: those, and where it is quantized what the file
  /// holds of it.
  Tensor load(std::string_view name) const;
  /// Of all shards.
  Index file_bytes() const noexcept {
    Index bytes = 0;
    for (const auto& group : groups_) bytes += group.size();
    return bytes;
  }
  /// The shards' paths.
  std::vector<std::string> shards() const {
    std::vector<std::string> paths;
    for (const auto& group : groups_)
      for (const std::string& path : group.paths()) paths.push_back(path);
    return paths;
  }

 private:
  void add_group(const std::string& path, const detail::Json& group);

  std::vector<detail::TfjsShards> groups_;
  detail::NamedList<TfjsTensor> tensors_;
};

/// All tensors of the model in `directory`, by name.
inline TensorMap read_tfjs(const std::string& directory,
                           const std::string& model_file = "model.json") {
  const TfjsReader reader(message(directory, "/", model_file));
  TensorMap tensors;
  for (const TfjsTensor& tensor : reader.tensors())
    tensors.emplace(tensor.name, reader.load(tensor.name));
  return tensors;
}

namespace detail {

[[noreturn]] inline void raise_tfjs(const std::string& file, std::string_view problem) {
  raise(ErrorCode::corrupt, message(file, ": ", problem));
}

inline ScalarType tfjs_type(const std::string& file, const std::string& name,
                            const std::string* type) {
  if (type == nullptr) raise_tfjs(file, message("tensor ", name, " has no dtype"));
  if (*type == "float32") return ScalarType::f32;
  if (*type == "int32") return ScalarType::i32;
  if (*type == "bool") return ScalarType::boolean;
  if (*type == "string" || *type == "complex64")
    raise(ErrorCode::unsupported,
          message(file, ": tensor ", name, " has dtype ", *type, ", which is not a weight"));
  raise_tfjs(file, message("tensor ", name, " has the unknown dtype ", *type));
}

/// As a manifest spells it.
inline std::string_view tfjs_name_of(ScalarType type) noexcept {
  switch (type) {
    case ScalarType::f32: return "float32";
    case ScalarType::f16: return "float16";
    case ScalarType::i32: return "int32";
    case ScalarType::u16: return "uint16";
    case ScalarType::u8: return "uint8";
    default: return "bool";
  }
}

inline void read_tfjs_quantization(const std::string& file, const Json& entry, TfjsTensor& weight) {
  const std::string* stored = find_string(entry, "dtype");
  if (stored != nullptr && *stored == "float16" && weight.type == ScalarType::f32) {
    weight.stored = ScalarType::f16;
    return;
  }
  const Json* scale = find_member(entry, "scale");
  const Json* min = find_member(entry, "min");
  if (stored == nullptr || (*stored != "uint8" && *stored != "uint16") ||
      weight.type == ScalarType::boolean || scale == nullptr || !scale->is_number() ||
      min == nullptr || !min->is_number())
    raise_tfjs(file, message("tensor ", weight.name, " has an unknown quantization"));
  weight.stored = *stored == "uint8" ? ScalarType::u8 : ScalarType::u16;
  weight.scale = scale->get<double>();
  weight.min = min->get<double>();
}

inline TfjsTensor read_tfjs_weight(const std::string& file, const Json& entry) {
  TfjsTensor weight;
  const std::string* name = find_string(entry, "name");
  if (name == nullptr) raise_tfjs(file, "a tensor has no name");
  weight.name = *name;
  weight.type = weight.stored = tfjs_type(file, *name, find_string(entry, "dtype"));
  auto shape = to_sizes(find_member(entry, "shape"));
  if (!shape) raise_tfjs(file, message("tensor ", *name, " has no shape of non-negative integers"));
  weight.shape = std::move(*shape);
  if (const Json* quantization = find_member(entry, "quantization"))
    read_tfjs_quantization(file, *quantization, weight);
  if (!byte_count(weight.type, weight.shape))
    raise_tfjs(file, message("tensor ", *name, " is too large"));
  return weight;
}

inline TfjsShards::TfjsShards(const std::string& file, const Json* paths) {
  if (paths == nullptr || !paths->is_array())
    raise_tfjs(file, "a group of weightsManifest has no array of paths");
  for (const Json& path : *paths) {
    if (!path.is_string() || !is_inside(path.get_ref<const std::string&>()))
      raise_tfjs(file, message("the shard path ", printable(path),
                               " is not a file below the model's directory"));
    const InputFile shard(message(directory_of(file), "/", path.get_ref<const std::string&>()));
    Index end = 0;
    if (__builtin_add_overflow(size(), shard.size(), &end))
      raise_tfjs(file, "its shards are too large");
    shards_.push_back({shard.path(), end});
  }
}

inline void TfjsShards::read_at(Index offset, std::span<std::byte> to) const {
  Index begin = 0;
  for (const auto& [path, end] : shards_) {
    if (to.empty()) return;
    if (offset < end) {
      const auto part = to.first(std::min(to.size(), std::size_t(end - offset)));
      InputFile(path).read_at(offset - begin, part);
      to = to.subspan(part.size());
      offset += Index(part.size());
    }
    begin = end;
  }
}

template <class Stored, class To>
void dequantize_tfjs(const TfjsTensor& weight, std::span<const std::byte> from,
                     std::span<std::byte> to) {
  for (std::size_t i = 0; i * sizeof(Stored) < from.size(); ++i) {
    Stored code;
    std::memcpy(&code, from.data() + i * sizeof(Stored), sizeof code);
    double value = weight.scale * double(code) + weight.min;
    if constexpr (std::is_integral_v<To>)
      value = std::clamp(std::floor(value + 0.5), double(std::numeric_limits<To>::min()),
                         double(std::numeric_limits<To>::max()));
    const To element = To(value);
    std::memcpy(to.data() + i * sizeof(To), &element, sizeof element);
  }
}

inline void dequantize_tfjs(const TfjsTensor& weight, std::span<const std::byte> from,
                            std::span<std::byte> to) {
  const bool integer = weight.type == ScalarType::i32;
  if (weight.stored == ScalarType::f16) dequantize_tfjs<fp16, float>(weight, from, to);
  else if (weight.stored == ScalarType::u8 && integer)
    dequantize_tfjs<std::uint8_t, std::int32_t>(weight, from, to);
  else if (weight.stored == ScalarType::u8) dequantize_tfjs<std::uint8_t, float>(weight, from, to);
  else if (integer) dequantize_tfjs<std::uint16_t, std::int32_t>(weight, from, to);
  else dequantize_tfjs<std::uint16_t, float>(weight, from, to);
}

}  // namespace detail

inline TfjsReader::TfjsReader(const std::string& path) {
  const detail::Json model = detail::read_json(path);
  const detail::Json* manifest = detail::find_member(model, "weightsManifest");
  if (manifest == nullptr || !manifest->is_array())
    detail::raise_tfjs(path, "has no array weightsManifest");
  for (const detail::Json& group : *manifest) add_group(path, group);
}

inline void TfjsReader::add_group(const std::string& path, const detail::Json& group) {
  const detail::TfjsShards& shards =
      groups_.emplace_back(path, detail::find_member(group, "paths"));
  const detail::Json* entries = detail::find_member(group, "weights");
  if (entries == nullptr || !entries->is_array())
    detail::raise_tfjs(path, "a group of weightsManifest has no array of weights");
  // Every size is checked against the files, so that nothing larger than they are is ever
  // allocated.
  Index size = 0;
  for (const detail::Json& entry : *entries) {
    TfjsTensor tensor = detail::read_tfjs_weight(path, entry);
    tensor.group = groups_.size() - 1;
    tensor.offset = size;
    if (tensor.stored_bytes() > shards.size() - size)
      detail::raise_tfjs(path,
                         message("tensor ", tensor.name, " reaches beyond the ", shards.size(),
                                 " bytes of its shards (last: ", shards.last_path(), ")"));
    size += tensor.stored_bytes();
    if (const std::string name = tensor.name; !tensors_.add(std::move(tensor)))
      detail::raise_tfjs(path, message("tensor ", name, " appears twice"));
  }
  if (size != shards.size())
    detail::raise_tfjs(path, message("tensors take ", size, " of the ", shards.size(),
                                     " bytes of their shards (last: ", shards.last_path(), ")"));
}

inline Tensor TfjsReader::load(std::string_view name) const {
  const TfjsTensor& found = tensor(name);
  Tensor tensor{found.type, found.shape,
                Buffer<std::byte>(std::size_t(*byte_count(found.type, found.shape)))};
  if (found.stored == found.type) {
    groups_[found.group].read_at(found.offset, tensor.bytes);
    return tensor;
  }
  Buffer<std::byte> codes(std::size_t(found.stored_bytes()));
  groups_[found.group].read_at(found.offset, codes);
  detail::dequantize_tfjs(found, codes, tensor.bytes);
  return tensor;
}

}  // namespace cafeq
