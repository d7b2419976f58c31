/// Elements of tensors as the `model` floor takes them, from where they lie in a file. Internal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

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

/// Elements of a type of GGUF: floats as they are, blocks decoded to fp32.
inline LoadedTensor load_blocks(GgufType type, const std::vector<Index>& shape,
                                std::span<const std::byte> bytes) {
  switch (type) {
    case GgufType::f32: return load_elements({ScalarType::f32, shape, bytes});
    case GgufType::f16: return load_elements({ScalarType::f16, shape, bytes});
    case GgufType::bf16: return load_elements({ScalarType::bf16, shape, bytes});
    default: break;
  }

  Tensor decoded{ScalarType::f32, shape,
                 Buffer<std::byte>(std::size_t(*byte_count(ScalarType::f32, shape)))};
  const std::span weights(reinterpret_cast<float*>(decoded.bytes.data()),
                          decoded.bytes.size() / sizeof(float));
  // Rows are whole blocks and lie one behind the other, so that all of them are one long row.
  gguf::dequantize_row(type, bytes, weights);
  return owned(std::move(decoded));
}

}  // namespace cafeq::detail
