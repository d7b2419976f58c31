/// Reader of TensorFlow.js models: a model.json that lists tensors (cafeq/io/tfjs_manifest.hpp),
/// and the shard files that hold their bytes.
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

#include "cafeq/io/file.hpp"
#include "cafeq/io/json.hpp"
#include "cafeq/io/named_list.hpp"
#include "cafeq/io/path.hpp"
#include "cafeq/io/tfjs_manifest.hpp"
#include "cafeq/model/tensor.hpp"

namespace cafeq {

namespace detail {

/// The shards of an entry of the manifest as one run of bytes.
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
  /// The size of all shards.
  Index file_bytes() const noexcept {
    Index bytes = 0;
    for (const auto& shards : entries_) bytes += shards.size();
    return bytes;
  }
  /// The shards' paths.
  std::vector<std::string> shards() const {
    std::vector<std::string> paths;
    for (const auto& shards : entries_)
      for (const std::string& path : shards.paths()) paths.push_back(path);
    return paths;
  }

 private:
  void add_entry(const std::string& path, const detail::Json& entry);

  std::vector<detail::TfjsShards> entries_;  // of the manifest
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

inline TfjsShards::TfjsShards(const std::string& file, const Json* paths) {
  if (paths == nullptr || !paths->is_array())
    raise_tfjs(file, "an entry of weightsManifest has no array of paths");
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

/// Writes scale · code + min for every code, rounded where the values are integers.
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

/// The same for the types that the manifest says.
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
  for (const detail::Json& entry : *manifest) add_entry(path, entry);
}

inline void TfjsReader::add_entry(const std::string& path, const detail::Json& entry) {
  const detail::TfjsShards& shards =
      entries_.emplace_back(path, detail::find_member(entry, "paths"));
  const detail::Json* weights = detail::find_member(entry, "weights");
  if (weights == nullptr || !weights->is_array())
    detail::raise_tfjs(path, "an entry of weightsManifest has no array of weights");

  // Every size is checked against the files, so that nothing larger than they are is ever
  // allocated.
  Index size = 0;
  for (const detail::Json& weight : *weights) {
    TfjsTensor tensor = detail::read_tfjs_weight(path, weight);
    tensor.entry = entries_.size() - 1;
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
    entries_[found.entry].read_at(found.offset, tensor.bytes);
    return tensor;
  }

  Buffer<std::byte> codes(std::size_t(found.stored_bytes()));
  entries_[found.entry].read_at(found.offset, codes);
  detail::dequantize_tfjs(found, codes, tensor.bytes);
  return tensor;
}

}  // namespace cafeq
