/// A quantized model as a GGUF file that llama.cpp runs.
///
/// Matrices become blocks of the types that the plan's recipes name (GgufRecipe). A GGUF model
/// keeps its metadata, and byte for byte what is not quantized. Of other models norms and biases
/// become F32, and matrices that are kept F32 or F16 as they are; BF16 becomes F16 where that holds
/// all its values.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "cafeq/io/gguf_file_type.hpp"
#include "cafeq/io/gguf_model.hpp"
#include "cafeq/io/gguf_recipe.hpp"
#include "cafeq/io/model_output.hpp"
#include "cafeq/io/open_parts.hpp"

namespace cafeq {

class GgufOutput {
 public:
  /// `tokenizer` and errors as to_gguf_model(). Raises invalid_argument where the plan names no
  /// type for a matrix, or several for those of one tensor.
  GgufOutput(const ModelFile& model, const Plan& plan, const std::string& tokenizer = {});

  template <class Arch = DefaultArch>
  void write_part(const std::string& path, const Job& job, const JobResult& result,
                  ExecutorRef executor) const;
  /// One file. Memory: one kept tensor at a time, where its elements change or its rows move.
  template <class F>
  void assemble(const std::string& path, const PartStore& parts, const Metadata& about,
                F&& progress) const;
  /// The size of the file.
  Index bytes() const;

 private:
  /// A tensor as the file will have it.
  struct Kept {
    GgufEntry entry;
    std::span<const std::byte> bytes;
    std::shared_ptr<const Tensor> owner{};  // of the bytes, unless they are the model's
  };

  void set_types();
  void add_blocks(TensorMap& tensors, const MatrixResult& part) const;
  LoadedTensor prepared(const detail::GgufSource& source, LoadedTensor loaded) const;
  Kept kept(const detail::GgufSource& source) const;
  GgufEntry entry(const detail::GgufSource& source) const;
  GgufEntry entry_of_that_size(const detail::GgufSource& source) const;
  GgufMetadata metadata(std::span<const GgufEntry> entries) const;

  const ModelFile& model_;
  const Plan& plan_;
  detail::GgufModel gguf_;
  std::vector<std::string> names_;  // of matrices
  std::map<std::string, const detail::GgufSource*>
      sources_{};  // of the model's tensors, but those that are not written
  std::map<std::string, const TensorInfo*> infos_{};  // of the model's tensors
  std::map<std::string, GgufType> types_{};           // of those that are quantized
};

namespace detail {

inline bool fits_fp16(std::span<const bf16> elements) noexcept {
  return std::all_of(elements.begin(), elements.end(),
                     [](bf16 x) { return float(fp16(float(x))) == float(x); });
}

/// Rows of rotary pairs from half-split to interleaved order, whatever a row holds.
inline Tensor interleaved(const TensorView& tensor, Index heads) {
  Tensor result{tensor.type, tensor.shape, Buffer<std::byte>(tensor.bytes.size())};
  const Index dims = tensor.shape.front() / heads;
  const std::size_t row_bytes = tensor.bytes.size() / std::size_t(heads * dims);
  const Rotary halves{dims, Rotary::Pairing::half_split},
      neighbours{dims, Rotary::Pairing::interleaved};
  const auto move_row = [&](Index from, Index to) {
    std::memcpy(result.bytes.data() + std::size_t(to) * row_bytes,
                tensor.bytes.data() + std::size_t(from) * row_bytes, row_bytes);
  };
  for (Index head = 0; head < heads; ++head)
    for (Index i = 0; i < halves.pairs(); ++i) {
      const auto [x, y] = halves.pair(i);
      const auto [to_x, to_y] = neighbours.pair(i);
      move_row(head * dims + x, head * dims + to_x);
      move_row(head * dims + y, head * dims + to_y);
    }
  return result;
}

}  // namespace detail

inline GgufOutput::GgufOutput(const ModelFile& model, const Plan& plan,
                              const std::string& tokenizer)
    : model_(model),
      plan_(plan),
      gguf_(detail::to_gguf_model(model, tokenizer)),
      names_(matrix_names(plan.roles)) {
  for (const detail::GgufSource& source : gguf_.tensors) sources_.emplace(source.tensor, &source);
  for (const TensorInfo& tensor : model.tensors()) infos_.emplace(tensor.name, &tensor);
  set_types();
}

inline void GgufOutput::set_types() {
  for (const Step& step : plan_.steps)
    for (const std::size_t m : step.matrices) {
      const MatrixPlace& place = plan_.place(m);
      const auto* recipe = step.recipe.as<GgufRecipe>();
      if (recipe == nullptr)
        raise(ErrorCode::invalid_argument,
              message("plan: names no type of GGUF for ", place.tensor));
      if (place.transposed)
        raise(ErrorCode::unsupported,
              message(place.tensor, ": is stored [in, out], which GGUF does not know"));
      const GgufType type = recipe->type_for(place.in);
      if (types_.emplace(place.tensor, type).first->second != type)
        raise(ErrorCode::invalid_argument,
              message("plan: names several types for the matrices of ", place.tensor));
    }
}

template <class Arch>
void GgufOutput::write_part(const std::string& path, const Job&, const JobResult& result,
                            ExecutorRef) const {
  TensorMap tensors;  // of the model, as the file will have them
  for (const MatrixResult& part : result.matrices) add_blocks(tensors, part);
  for (auto& [name, bias] : detail::moved_biases<Arch>(model_, plan_, result))
    tensors.emplace(name, std::move(bias));
  std::vector<LoadedTensor> written;
  TensorViewMap views;
  for (auto& [name, tensor] : tensors) {
    const auto source = sources_.find(name);
    if (source == sources_.end()) continue;
    written.push_back(prepared(*source->second, detail::owned(std::move(tensor))));
    views.emplace(source->second->name, written.back().view);
  }
  write_safetensors(path, views, detail::errors_metadata(plan_, names_, result));
}

/// The rows of one matrix, in their place among those of its tensor.
inline void GgufOutput::add_blocks(TensorMap& tensors, const MatrixResult& part) const {
  const EncodedRows& blocks = *part.quantized.matrix.rows();
  const MatrixPlace& place = plan_.place(part.matrix);
  const auto& shape = infos_.at(place.tensor)->shape;
  const Index rows = shape[shape.size() - 2], row_bytes = blocks.row_bytes;
  const auto [entry, is_new] = tensors.try_emplace(place.tensor);
  if (is_new) {
    const Index all_rows = *element_count(shape) / shape.back();
    entry->second = {ScalarType::u8,
                     {all_rows, row_bytes},
                     Buffer<std::byte>(std::size_t(all_rows * row_bytes))};
  }
  const Index first = std::max<Index>(0, place.slice) * rows + place.begin;
  std::copy(blocks.bytes.begin(), blocks.bytes.end(),
            entry->second.bytes.begin() + first * row_bytes);
}

/// In the elements and the order of rows that the file has. Blocks come as bytes and stay so.
inline LoadedTensor GgufOutput::prepared(const detail::GgufSource& source,
                                         LoadedTensor loaded) const {
  if (model_.format() == ModelFormat::gguf) return loaded;
  const ScalarType type = loaded.view.type;
  const bool to_fp16 = type == ScalarType::bf16 && loaded.view.shape.size() > 1 &&
                       detail::fits_fp16(loaded.view.values<bf16>(source.tensor));
  const bool to_fp32 =
      type == ScalarType::f64 || (loaded.view.shape.size() == 1 && type != ScalarType::f32);
  if (to_fp16) loaded = detail::owned(detail::converted<fp16>(loaded.view, source.tensor));
  if (to_fp32) loaded = detail::owned(detail::converted<float>(loaded.view, source.tensor));
  return source.interleaved_heads > 0
             ? detail::owned(detail::interleaved(loaded.view, source.interleaved_heads))
             : loaded;
}

inline GgufOutput::Kept GgufOutput::kept(const detail::GgufSource& source) const {
  if (!source.values.empty())
    return {{source.name, GgufType::f32, {Index(source.values.size())}},
            std::as_bytes(std::span(source.values))};
  if (const auto* file = model_.as<GgufReader>())
    return {file->tensor(source.tensor), file->tensor(source.tensor).data};
  const auto [view, owner] = prepared(source, model_.load(source.tensor));
  return {{source.name, detail::gguf_type_of(view.type), view.shape}, view.bytes, owner};
}

inline GgufEntry GgufOutput::entry(const detail::GgufSource& source) const {
  const auto type = types_.find(source.tensor);
  return type == types_.end()
             ? kept(source).entry
             : GgufEntry{source.name, type->second, infos_.at(source.tensor)->shape};
}

/// The same without reading any tensor: fp16 stands for bf16 too.
inline GgufEntry GgufOutput::entry_of_that_size(const detail::GgufSource& source) const {
  if (model_.format() == ModelFormat::gguf || types_.contains(source.tensor) ||
      !source.values.empty())
    return entry(source);
  const TensorInfo& info = *infos_.at(source.tensor);
  const bool halves = info.shape.size() > 1 && (info.type == "F16" || info.type == "BF16");
  return {source.name, halves ? GgufType::f16 : GgufType::f32, info.shape};
}

inline GgufMetadata GgufOutput::metadata(std::span<const GgufEntry> entries) const {
  GgufMetadata metadata = gguf_.metadata;
  detail::set_file_type(metadata, entries);
  metadata.add("general.quantization_version", GgufValue(std::uint32_t(2)));
  return metadata;
}

inline Index GgufOutput::bytes() const {
  std::vector<GgufEntry> entries;
  for (const detail::GgufSource& source : gguf_.tensors)
    entries.push_back(entry_of_that_size(source));
  return GgufWriter::file_bytes(metadata(entries), entries);
}

template <class F>
void GgufOutput::assemble(const std::string& path, const PartStore& parts, const Metadata&,
                          F&& progress) const {
  const detail::OpenParts open(plan_, parts);
  std::vector<GgufEntry> entries;
  for (const detail::GgufSource& source : gguf_.tensors) entries.push_back(entry(source));
  GgufWriter writer(path, metadata(entries), entries);
  const auto write = [&](const std::string& name, std::span<const std::byte> bytes) {
    writer.write(name, bytes);
    progress(double(bytes.size()));
  };
  for (const detail::GgufSource& source : gguf_.tensors) {
    if (const TensorView* part = open.find(source.name)) {
      write(source.name, part->bytes);
      open.release(source.name);
    } else {
      const Kept tensor = kept(source);
      write(source.name, tensor.bytes);
      if (!source.tensor.empty()) model_.release(source.tensor);
    }
  }
  writer.commit();
}

}  // namespace cafeq
