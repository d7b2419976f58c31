/// What tells a model from others of its shape.
#pragma once

#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>

#include "cafeq/model/load_matrix.hpp"

namespace cafeq {

/// 16 hexadecimal digits: FNV-1a over names, types and shapes of all tensors in the file's order,
/// and the values of those of one dimension (gains and biases, which any training changes) up to
/// 65,536 elements. The same model in another format has another one.
template <ModelReader R>
std::string fingerprint_of(const R& model) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  const auto add = [&](std::span<const std::byte> bytes) {
    for (const std::byte byte : bytes) hash = (hash ^ std::uint64_t(byte)) * 0x100000001b3u;
  };
  const auto add_text = [&](std::string_view text) {
    add(std::as_bytes(std::span(text)));
    add(std::as_bytes(std::span("", 1)));  // its end
  };
  constexpr Index most = 65536;
  for (const TensorInfo& tensor : model.tensors()) {
    add_text(tensor.name);
    add_text(tensor.type);
    for (const Index size : tensor.shape) add_text(message(size));
    if (tensor.shape.size() != 1 || !tensor.loadable || tensor.shape[0] > most) continue;
    add(model.load(tensor.name).view.bytes);
    model.release(tensor.name);
  }
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

}  // namespace cafeq
