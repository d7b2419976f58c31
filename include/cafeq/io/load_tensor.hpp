/// The tensors of every format as the `model` floor sees them: listed as TensorInfo, loaded as
/// LoadedTensor.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "cafeq/io/gguf_file.hpp"
#include "cafeq/io/llama2c.hpp"
#include "cafeq/io/load_elements.hpp"
#include "cafeq/io/quantized_model.hpp"
#include "cafeq/io/safetensors_model.hpp"
#include "cafeq/io/tfjs.hpp"
#include "cafeq/model/model.hpp"

namespace cafeq::detail {

inline TensorInfo tensor_info(const SafetensorsTensor& tensor) {
  return tensor_info(tensor.name, tensor.view);
}
inline TensorInfo tensor_info(const Llama2cTensor& tensor) {
  return tensor_info(tensor.name, tensor.view);
}
inline TensorInfo tensor_info(const GgufTensor& tensor) {
  const auto known = gguf_type_info(std::uint32_t(tensor.type));
  return {.name = tensor.name,
          .type = known ? std::string(known->name) : message(std::uint32_t(tensor.type)),
          .shape = tensor.shape,
          .bytes = tensor.bytes,
          .loadable = known.has_value()};
}
inline TensorInfo tensor_info(const TfjsTensor& tensor) {
  return {.name = tensor.name,
          .type = std::string(tfjs_name_of(tensor.stored)),
          .shape = tensor.shape,
          .bytes = tensor.stored_bytes(),
          .loadable = tensor.type == ScalarType::f32};
}

inline const TensorInfo& tensor_info(const TensorInfo& tensor) { return tensor; }

inline LoadedTensor load_tensor(const SafetensorsModel& model, std::string_view name) {
  const SafetensorsTensor& tensor = model.tensor(name);
  check_loadable(tensor_info(tensor));
  return load_elements(tensor.view);
}
inline LoadedTensor load_tensor(const Llama2cReader& file, std::string_view name) {
  return load_elements(file.tensor(name).view);
}
inline LoadedTensor load_tensor(const GgufReader& file, std::string_view name) {
  const GgufTensor& tensor = file.tensor(name);
  check_loadable(tensor_info(tensor));
  return load_blocks(tensor.type, tensor.shape, tensor.data);
}
inline LoadedTensor load_tensor(const TfjsReader& file, std::string_view name) {
  check_loadable(tensor_info(file.tensor(name)));
  return owned(file.load(name));
}
inline LoadedTensor load_tensor(const QuantizedModelReader& model, std::string_view name) {
  return model.load(name);
}

}  // namespace cafeq::detail
