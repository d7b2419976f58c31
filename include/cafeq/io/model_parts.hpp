/// What a file holds of the results of a plan's jobs.
#pragma once

#include <algorithm>
#include <cstring>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "cafeq/io/model_file.hpp"
#include "cafeq/io/part_store.hpp"
#include "cafeq/io/quantized_file.hpp"
#include "cafeq/model/quantize_model.hpp"

namespace cafeq::detail {

/// What GGUF calls elements that it can hold as they are.
inline GgufType gguf_type_of(ScalarType type) noexcept {
  return type == ScalarType::f16    ? GgufType::f16
         : type == ScalarType::bf16 ? GgufType::bf16
                                    : GgufType::f32;
}
/// Whether elements of GGUF are no floats.
inline bool is_blocks(const GgufTensor& tensor) noexcept {
  return is_known(tensor.type) && gguf_type_info(tensor.type).weights > 1;
}
/// The shape of a tensor of blocks, its rows being bytes.
inline std::vector<Index> block_bytes(const GgufTensor& tensor) {
  std::vector<Index> shape = tensor.shape;
  shape.back() = gguf_row_bytes(tensor.type, shape.back()).value();
  return shape;
}

/// A tensor of a model as a safetensors file can hold it: what is no safetensors already is decoded
/// where it is quantized, but blocks of GGUF stay bytes.
inline LoadedTensor stored_tensor(const ModelFile& model, std::string_view name) {
  if (const auto* file = model.as<SafetensorsModel>()) return {file->tensor(name).view};
  if (const auto* file = model.as<TfjsReader>()) return owned(file->load(name));
  if (const auto* file = model.as<GgufReader>(); file != nullptr && is_blocks(file->tensor(name)))
    return {{ScalarType::u8, block_bytes(file->tensor(name)), file->tensor(name).data}};
  return model.load(name);
}
/// Its type and shape there, without reading any. Raises unsupported for elements of GGUF that this
/// library does not know.
inline SafetensorsEntry stored_entry(const ModelFile& model, const TensorInfo& info) {
  if (const auto* file = model.as<SafetensorsModel>())
    return {info.name, file->tensor(info.name).view.type, info.shape};
  if (const auto* file = model.as<TfjsReader>())
    return {info.name, file->tensor(info.name).type, info.shape};
  const auto* file = model.as<GgufReader>();
  if (file == nullptr)
    return {info.name, scalar_type_named(info.type).value_or(ScalarType::f32), info.shape};

  check_loadable(info);
  const GgufTensor& tensor = file->tensor(info.name);
  if (is_blocks(tensor)) return {info.name, ScalarType::u8, block_bytes(tensor)};
  return {info.name,
          tensor.type == GgufType::f16    ? ScalarType::f16
          : tensor.type == GgufType::bf16 ? ScalarType::bf16
                                          : ScalarType::f32,
          info.shape};
}

/// The tensors of a job with Ŵ in place of W, in the elements that they have in the model's file.
template <class Arch = DefaultArch>
TensorMap rebuilt_tensors(const ModelFile& model, const Plan& plan, const Job& job,
                          const JobResult& result, ExecutorRef executor = {});

/// Only the biases that its pairs have moved.
template <class Arch = DefaultArch>
TensorMap moved_biases(const ModelFile& model, const Plan& plan, const JobResult& result);

/// The same elements in another type.
template <class To>
Tensor converted(const TensorView& tensor, std::string_view name) {
  Tensor result{scalar_type_of<To>, tensor.shape, {}};
  with_elements(tensor, name, [&](auto elements) {
    result.bytes.resize(elements.size() * sizeof(To));
    auto* to = result.bytes.data();
    for (const auto x : elements) {
      const To element(static_cast<float>(x));
      std::memcpy(to, &element, sizeof element);
      to += sizeof element;
    }
  });
  return result;
}

template <class F>
void with_mutable_elements(Tensor& tensor, std::string_view name, F&& f) {
  with_elements(tensor.view(), name, [&](auto elements) {
    using T = std::remove_const_t<typename decltype(elements)::element_type>;
    f(std::span<T>(reinterpret_cast<T*>(tensor.bytes.data()), elements.size()));
  });
}

template <class Arch>
TensorMap rebuilt_tensors(const ModelFile& model, const Plan& plan, const Job& job,
                          const JobResult& result, ExecutorRef executor) {
  std::set<std::string_view>
      replaced;  // by its matrices as a whole, so that nothing of it is read again
  for (const auto& part : result.matrices) replaced.insert(plan.place(part.matrix).tensor);
  TensorMap tensors;
  for (const std::string& name : job.tensors) {
    const auto [view, owner] = model.load(name);
    Tensor tensor{view.type, view.shape, Buffer<std::byte>(view.bytes.size())};
    if (!replaced.contains(name))
      std::copy(view.bytes.begin(), view.bytes.end(), tensor.bytes.begin());
    tensors.emplace(name, std::move(tensor));
  }
  for (const auto& part : result.matrices) {
    const MatrixPlace& place = plan.place(part.matrix);
    Tensor& tensor = tensors.at(place.tensor);
    with_mutable_elements(tensor, place.tensor, [&](auto elements) {
      part.quantized.matrix.dequantize(matrix_in(elements, tensor.shape, place), executor);
    });
  }
  for (const MovedBias& bias : result.biases) {
    const BiasPlace& place = *plan.roles.matrices[bias.matrix].bias;
    Tensor& tensor = tensors.at(place.tensor);
    with_mutable_elements(tensor, place.tensor, [&](auto elements) {
      using T = typename decltype(elements)::element_type;
      const Index begin = std::max<Index>(0, place.slice) * tensor.shape.back() + place.begin;
      for (std::size_t i = 0; i < bias.values.size(); ++i)
        elements[std::size_t(begin) + i] = T(bias.values[i]);
    });
  }
  return tensors;
}

template <class Arch>
TensorMap moved_biases(const ModelFile& model, const Plan& plan, const JobResult& result) {
  Job moved;
  for (const auto& bias : result.biases)
    moved.tensors.push_back(plan.roles.matrices[bias.matrix].bias->tensor);
  return rebuilt_tensors<Arch>(model, plan, moved, {{}, result.biases, {}});
}

}  // namespace cafeq::detail
