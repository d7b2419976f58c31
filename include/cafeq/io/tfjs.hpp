/// Reader of TensorFlow.js models: a model.json whose "weightsManifest" lists groups of tensors, each group's bytes being its shard files
/// one after the other.
///
/// Weights stored quantized (uint8 or uint16 with scale and min, or float16) are returned as the float32 or int32 that they stand for.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cafeq/io/file.hpp"
#include "cafeq/io/json.hpp"
#include "cafeq/io/tensor.hpp"

namespace cafeq {

namespace detail {

struct TfjsWeight {
  std::string name;
  ScalarType type = ScalarType::f32;
  std::vector<Index> shape;
  ScalarType stored = ScalarType::f32;  // differs from type where the file is quantized
  double scale = 1;
  double min = 0;
};

[[noreturn]] inline void raise_tfjs(const std::string& file, std::string_view problem) {
  raise(ErrorCode::corrupt, message(file, ": ", problem));
}

inline ScalarType tfjs_type(const std::string& file, const std::string& name, const std::string* type) {
  if (type == nullptr) raise_tfjs(file, message("tensor ", name, " has no dtype"));
  if (*type == "float32") return ScalarType::f32;
  if (*type == "int32") return ScalarType::i32;
  if (*type == "bool") return ScalarType::boolean;
  if (*type == "string" || *type == "complex64")
    raise(ErrorCode::unsupported, message(file, ": tensor ", name, " has dtype ", *type, ", which is not a weight"));
  raise_tfjs(file, message("tensor ", name, " has the unknown dtype ", *type));
}

inline void read_tfjs_quantization(const std::string& file, const Json& entry, TfjsWeight& weight) {
  const std::string* stored = find_string(entry, "dtype");
  if (stored != nullptr && *stored == "float16" && weight.type == ScalarType::f32) {
    weight.stored = ScalarType::f16;
    return;
  }
  const Json* scale = find_member(entry, "scale");
  const Json* min = find_member(entry, "min");
  if (stored == nullptr || (*stored != "uint8" && *stored != "uint16") || weight.type == ScalarType::boolean || scale == nullptr ||
      !scale->is_number() || min == nullptr || !min->is_number())
    raise_tfjs(file, message("tensor ", weight.name, " has an unknown quantization"));
  weight.stored = *stored == "uint8" ? ScalarType::u8 : ScalarType::u16;
  weight.scale = scale->get<double>();
  weight.min = min->get<double>();
}

inline TfjsWeight read_tfjs_weight(const std::string& file, const Json& entry) {
  TfjsWeight weight;
  const std::string* name = find_string(entry, "name");
  if (name == nullptr) raise_tfjs(file, "a tensor has no name");
  weight.name = *name;
  weight.type = weight.stored = tfjs_type(file, *name, find_string(entry, "dtype"));
  auto shape = to_sizes(find_member(entry, "shape"));
  if (!shape) raise_tfjs(file, message("tensor ", *name, " has no shape of non-negative integers"));
  weight.shape = std::move(*shape);
  if (const Json* quantization = find_member(entry, "quantization")) read_tfjs_quantization(file, *quantization, weight);
  if (!byte_count(weight.type, weight.shape)) raise_tfjs(file, message("tensor ", *name, " is too large"));
  return weight;
}

/// A shard is named relative to the model and may not lead out of its directory.
inline bool is_inside(std::string_view path) {
  if (path.empty() || path.front() == '/' || path.find('\\') != path.npos || path.find('\0') != path.npos) return false;
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    if (path.substr(begin, end - begin) == "..") return false;
    begin = end + 1;
  }
  return true;
}

/// The shards of a group as one run of bytes.
class TfjsShards {
 public:
  TfjsShards(const std::string& directory, const std::string& file, const Json* paths) {
    if (paths == nullptr || !paths->is_array()) raise_tfjs(file, "a group of weightsManifest has no array of paths");
    for (const Json& path : *paths) {
      if (!path.is_string() || !is_inside(path.get_ref<const std::string&>()))
        raise_tfjs(file, message("the shard path ", path.dump(-1, ' ', false, Json::error_handler_t::replace),
                                 " is not a file below the model's directory"));
      const InputFile shard(message(directory, "/", path.get_ref<const std::string&>()));
      if (__builtin_add_overflow(size_, shard.size(), &size_)) raise_tfjs(file, "its shards are too large");
      paths_.push_back(shard.path());
    }
  }

  Index size() const noexcept { return size_; }
  std::string_view last_path() const noexcept { return paths_.empty() ? "none" : std::string_view(paths_.back()); }

  void read(std::span<std::byte> to) {
    while (!to.empty()) {
      if (remaining_ == 0) {
        if (next_ == paths_.size()) raise(ErrorCode::io, message(last_path(), ": ends ", to.size(), " bytes early"));
        shard_.emplace(paths_[next_++]);  // one at a time: a model may have more shards than a process may have open files
        remaining_ = std::size_t(shard_->size());
        continue;
      }
      const auto count = std::min(to.size(), remaining_);
      shard_->read(to.first(count));
      remaining_ -= count;
      to = to.subspan(count);
    }
  }

 private:
  std::vector<std::string> paths_;
  Index size_ = 0;
  std::size_t next_ = 0;
  std::optional<InputFile> shard_;
  std::size_t remaining_ = 0;  // of the open shard
};

template <class Stored, class To>
void dequantize_tfjs(const TfjsWeight& weight, std::span<const std::byte> from, std::span<std::byte> to) {
  for (std::size_t i = 0; i * sizeof(Stored) < from.size(); ++i) {
    Stored code;
    std::memcpy(&code, from.data() + i * sizeof(Stored), sizeof code);
    double value = weight.scale * double(code) + weight.min;
    if constexpr (std::is_integral_v<To>)
      value = std::clamp(std::floor(value + 0.5), double(std::numeric_limits<To>::min()), double(std::numeric_limits<To>::max()));
    const To element = To(value);
    std::memcpy(to.data() + i * sizeof(To), &element, sizeof element);
  }
}

inline Tensor read_tfjs_tensor(const TfjsWeight& weight, TfjsShards& shards) {
  Tensor tensor{weight.type, weight.shape, Buffer<std::byte>(std::size_t(*byte_count(weight.type, weight.shape)))};
  if (weight.stored == weight.type) {
    shards.read(tensor.bytes);
    return tensor;
  }
  Buffer<std::byte> codes(std::size_t(*byte_count(weight.stored, weight.shape)));
  shards.read(codes);
  const bool integer = weight.type == ScalarType::i32;
  if (weight.stored == ScalarType::f16) dequantize_tfjs<fp16, float>(weight, codes, tensor.bytes);
  else if (weight.stored == ScalarType::u8 && integer) dequantize_tfjs<std::uint8_t, std::int32_t>(weight, codes, tensor.bytes);
  else if (weight.stored == ScalarType::u8) dequantize_tfjs<std::uint8_t, float>(weight, codes, tensor.bytes);
  else if (integer) dequantize_tfjs<std::uint16_t, std::int32_t>(weight, codes, tensor.bytes);
  else dequantize_tfjs<std::uint16_t, float>(weight, codes, tensor.bytes);
  return tensor;
}

}  // namespace detail

/// All tensors of the model in `directory`, by name. Memory: the tensors, and once more the largest one that is stored quantized.
/// Raises io for a file that cannot be read, corrupt for content that contradicts itself, unsupported for strings and complex numbers.
inline TensorMap read_tfjs(const std::string& directory, const std::string& model_file = "model.json") {
  const std::string file = message(directory, "/", model_file);
  const auto text = read_file(file);
  const detail::Json model = detail::parse_json({reinterpret_cast<const char*>(text.data()), text.size()}, file);
  const detail::Json* manifest = detail::find_member(model, "weightsManifest");
  if (manifest == nullptr || !manifest->is_array()) detail::raise_tfjs(file, "has no array weightsManifest");

  TensorMap tensors;
  for (const detail::Json& group : *manifest) {
    detail::TfjsShards shards(directory, file, detail::find_member(group, "paths"));
    const detail::Json* entries = detail::find_member(group, "weights");
    if (entries == nullptr || !entries->is_array()) detail::raise_tfjs(file, "a group of weightsManifest has no array of weights");

    // Every size is checked against the files before anything is allocated for it.
    std::vector<detail::TfjsWeight> weights;
    Index size = 0;
    for (const detail::Json& entry : *entries) {
      weights.push_back(detail::read_tfjs_weight(file, entry));
      const detail::TfjsWeight& weight = weights.back();
      if (!tensors.try_emplace(weight.name).second) detail::raise_tfjs(file, message("tensor ", weight.name, " appears twice"));
      if (__builtin_add_overflow(size, *byte_count(weight.stored, weight.shape), &size) || size > shards.size())
        detail::raise_tfjs(file, message("tensor ", weight.name, " reaches beyond the ", shards.size(), " bytes of its shards (last: ",
                                         shards.last_path(), ")"));
    }
    if (size != shards.size())
      detail::raise_tfjs(file, message("tensors take ", size, " of the ", shards.size(), " bytes of their shards (last: ",
                                       shards.last_path(), ")"));
    for (const auto& weight : weights) tensors.find(weight.name)->second = detail::read_tfjs_tensor(weight, shards);
  }
  return tensors;
}

}  // namespace cafeq
