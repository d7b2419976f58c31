/// The tensors of every format as the `model` floor sees them: listed as TensorInfo, loaded as
/// LoadedTensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "cafeq/io/gguf_file.hpp"
#include "cafeq/io/llama2c.hpp"
#include "cafeq/io/safetensors_model.hpp"
#include "cafeq/io/tfjs.hpp"
#include "cafeq/model/model.hpp"
#include "cafeq/quant/gguf.hpp"

namespace cafeq::detail {

/// A tensor whose elements the file spells as ScalarType does.
inline TensorInfo tensor_info(const std::string& name, const TensorView& view) {
  return {.name = name,
          .type = std::string(name_of(view.type)),
          .shape = view.shape,
          .bytes = Index(view.bytes.size()),
          .loadable = is_element(view.type)};
}
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

/// Raises unsupported for a tensor whose elements are no floating-point numbers.
inline void check_loadable(const TensorInfo& tensor) {
  if (!tensor.loadable)
    raise(ErrorCode::unsupported, message("tensor ", tensor.name, " is of type ", tensor.type,
                                          ", not of floating-point numbers"));
}

inline LoadedTensor owned(Tensor tensor) {
  const auto owner = std::make_shared<const Tensor>(std::move(tensor));
  return {owner->view(), owner};
}

/// The elements in place, or a copy where the bytes are not aligned for them.
inline LoadedTensor load_elements(const TensorView& view) {
  if (std::uintptr_t(view.bytes.data()) % std::uintptr_t(bytes_of(view.type)) == 0) return {view};
  return owned({view.type, view.shape, Buffer<std::byte>(view.bytes.begin(), view.bytes.end())});
}

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
  switch (tensor.type) {
    case GgufType::f32: return load_elements({ScalarType::f32, tensor.shape, tensor.data});
    case GgufType::f16: return load_elements({ScalarType::f16, tensor.shape, tensor.data});
    case GgufType::bf16: return load_elements({ScalarType::bf16, tensor.shape, tensor.data});
    default: break;
  }

  Tensor decoded{ScalarType::f32, tensor.shape,
                 Buffer<std::byte>(std::size_t(*byte_count(ScalarType::f32, tensor.shape)))};
  const std::span weights(reinterpret_cast<float*>(decoded.bytes.data()),
                          decoded.bytes.size() / sizeof(float));
  // Rows are whole blocks and lie one behind the other, so that all of them are one long row.
  gguf::dequantize_row(tensor.type, tensor.data, weights);
  return owned(std::move(decoded));
}
inline LoadedTensor load_tensor(const TfjsReader& file, std::string_view name) {
  check_loadable(tensor_info(file.tensor(name)));
  return owned(file.load(name));
}

}  // namespace cafeq::detail
