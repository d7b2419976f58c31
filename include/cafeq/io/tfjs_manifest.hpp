/// The list of tensors in the model.json of a TensorFlow.js model.
///
/// Its "weightsManifest" has entries with "paths", the files that hold the entry's bytes one after
/// the other, and "weights", the tensors that lie in them.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/json.hpp"
#include "cafeq/model/tensor.hpp"

namespace cafeq {

/// A tensor of the manifest.
struct TfjsTensor {
  std::string name;
  ScalarType type = ScalarType::f32;  ///< of the values that it stands for
  std::vector<Index> shape;
  ScalarType stored = ScalarType::f32;  ///< of what the file holds: differs from `type` where that
                                        ///< is quantized
  double scale = 1;                     ///< a value is scale · stored + min
  double min = 0;
  std::size_t entry = 0;  ///< of the manifest
  Index offset = 0;       ///< in the bytes of that entry

  Index stored_bytes() const noexcept { return byte_count(stored, shape).value_or(0); }
};

namespace detail {

[[noreturn]] inline void raise_tfjs(const std::string& file, std::string_view problem) {
  raise(ErrorCode::corrupt, message(file, ": ", problem));
}

/// The type that a manifest names so. Raises unsupported for what no matrix is made of.
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

/// A type as a manifest spells it.
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

/// Reads how the values of a tensor are quantized.
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

/// Reads what a manifest says of a tensor, but where it lies.
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

}  // namespace detail
}  // namespace cafeq
