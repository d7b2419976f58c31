/// A model in any of the formats that this floor reads, as one class.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "cafeq/io/gguf.hpp"
#include "cafeq/io/llama2c.hpp"
#include "cafeq/io/model_config.hpp"
#include "cafeq/io/sharded_safetensors.hpp"
#include "cafeq/io/tfjs.hpp"
#include "cafeq/model/model.hpp"
#include "cafeq/quant/gguf.hpp"

namespace cafeq {

enum class ModelFormat { safetensors, gguf, llama2c, tfjs };

/// Models ModelReader.
class ModelFile {
 public:
  /// `path`: a safetensors file, an index of several or a directory with them (see
  /// SafetensorsModel); a GGUF file; a llama2.c checkpoint; a TensorFlow.js model.json or its
  /// directory. The content decides which. Raises unsupported where it is none of these, else as
  /// the format's reader.
  explicit ModelFile(const std::string& path);

  const std::string& path() const noexcept { return path_; }
  ModelFormat format() const noexcept { return ModelFormat(reader_.index()); }
  /// Of the file itself, or of the config.json beside safetensors; empty where neither says
  /// anything.
  const ModelConfig& config() const noexcept { return config_; }
  /// In the file's order.
  std::span<const TensorInfo> tensors() const noexcept { return tensors_; }
  /// Of all files that hold tensors.
  Index file_bytes() const noexcept {
    return std::visit([](const auto& reader) { return reader.file_bytes(); }, reader_);
  }

  /// fp32, fp16, bf16 and fp64 elements where they lie in the file, or an aligned copy where they
  /// are not aligned there; other formats decoded to fp32. Raises invalid_argument where there is
  /// none of that name, unsupported for what is not made of floating-point numbers.
  LoadedTensor load(std::string_view name) const;
  /// The tensor's pages leave memory until it is loaded again. Views stay valid.
  void release(std::string_view name) const;

  /// The reader of the format, null where the model has another one: SafetensorsModel, GgufReader,
  /// Llama2cReader, TfjsReader.
  template <class R>
  const R* as() const noexcept {
    return std::get_if<R>(&reader_);
  }
  /// Paths of all that it is read from: the files with tensors, and the configuration beside them.
  std::vector<std::string> files() const;
  /// What lies beside the weights of a Hugging Face model and belongs to it: paths of the
  /// configuration, the tokenizer and so on.
  std::vector<std::string> companions() const;

 private:
  using Reader = std::variant<SafetensorsModel, GgufReader, Llama2cReader,
                              TfjsReader>;  // in the order of ModelFormat
  static Reader open(const std::string& path);

  std::string path_;
  Reader reader_;
  ModelConfig config_;
  std::vector<TensorInfo> tensors_;
};

static_assert(ModelReader<ModelFile>);

namespace detail {

inline std::string config_path(const SafetensorsModel& model) {
  return model.directory() + "/config.json";
}

inline TensorInfo tensor_info(const SafetensorsTensor& tensor) {
  return {tensor.name, std::string(name_of(tensor.view.type)), tensor.view.shape,
          Index(tensor.view.bytes.size())};
}
inline TensorInfo tensor_info(const GgufTensor& tensor) {
  const auto known = gguf_type_info(std::uint32_t(tensor.type));
  return {tensor.name, known ? std::string(known->name) : message(std::uint32_t(tensor.type)),
          tensor.shape, tensor.bytes};
}
inline TensorInfo tensor_info(const Llama2cTensor& tensor) {
  return {tensor.name, std::string(name_of(tensor.view.type)), tensor.view.shape,
          Index(tensor.view.bytes.size())};
}
inline TensorInfo tensor_info(const TfjsTensor& tensor) {
  return {tensor.name, std::string(tfjs_name_of(tensor.stored)), tensor.shape,
          tensor.stored_bytes()};
}

inline ModelConfig config_of(const SafetensorsModel& model) {
  const std::string path = config_path(model);
  if (kind_of(path) != S_IFREG) return {};
  const auto text = read_file(path);
  return config_from_json(as_text(text), path);
}
inline ModelConfig config_of(const GgufReader& file) { return config_from_gguf(file.metadata()); }
inline ModelConfig config_of(const Llama2cReader& file) {
  return config_from_llama2c(file.header());
}
inline ModelConfig config_of(const TfjsReader&) { return {}; }

inline LoadedTensor owned(Tensor tensor) {
  const auto owner = std::make_shared<const Tensor>(std::move(tensor));
  return {owner->view(), owner};
}

/// In place, or a copy where the bytes are not aligned for the elements.
inline LoadedTensor load_elements(const TensorView& view) {
  if (std::uintptr_t(view.bytes.data()) % std::uintptr_t(bytes_of(view.type)) == 0) return {view};
  return owned({view.type, view.shape, Buffer<std::byte>(view.bytes.begin(), view.bytes.end())});
}

[[noreturn]] inline void raise_not_weights(std::string_view name, std::string_view type) {
  raise(ErrorCode::unsupported,
        message("tensor ", name, " is of type ", type, ", not of floating-point numbers"));
}

inline LoadedTensor load_tensor(const SafetensorsModel& model, std::string_view name) {
  const TensorView& view = model.tensor(name).view;
  if (view.type != ScalarType::f16 && view.type != ScalarType::bf16 &&
      view.type != ScalarType::f32 && view.type != ScalarType::f64)
    raise_not_weights(name, name_of(view.type));
  return load_elements(view);
}
inline LoadedTensor load_tensor(const GgufReader& file, std::string_view name) {
  const GgufTensor& tensor = file.tensor(name);
  if (!is_known(tensor.type)) raise_not_weights(name, tensor_info(tensor).type);
  if (tensor.type == GgufType::f32)
    return load_elements({ScalarType::f32, tensor.shape, tensor.data});
  if (tensor.type == GgufType::f16)
    return load_elements({ScalarType::f16, tensor.shape, tensor.data});
  if (tensor.type == GgufType::bf16)
    return load_elements({ScalarType::bf16, tensor.shape, tensor.data});
  Tensor decoded{ScalarType::f32, tensor.shape,
                 Buffer<std::byte>(std::size_t(*byte_count(ScalarType::f32, tensor.shape)))};
  const std::span weights(reinterpret_cast<float*>(decoded.bytes.data()),
                          decoded.bytes.size() / sizeof(float));
  gguf::dequantize_row(tensor.type, tensor.data,
                       weights);  // rows are whole blocks, so all of them are one long row
  return owned(std::move(decoded));
}
inline LoadedTensor load_tensor(const Llama2cReader& file, std::string_view name) {
  return load_elements(file.tensor(name).view);
}
inline LoadedTensor load_tensor(const TfjsReader& file, std::string_view name) {
  const TfjsTensor& tensor = file.tensor(name);
  if (tensor.type != ScalarType::f32) raise_not_weights(name, tfjs_name_of(tensor.type));
  return owned(file.load(name));
}

inline bool begins_like_safetensors(std::span<const std::byte> head, Index size) {
  std::uint64_t header_bytes = 0;
  if (head.size() <= sizeof header_bytes) return false;
  std::memcpy(&header_bytes, head.data(), sizeof header_bytes);
  return header_bytes <= std::uint64_t(size) - sizeof header_bytes &&
         char(head[sizeof header_bytes]) == '{';
}

inline bool begins_like_llama2c(std::span<const std::byte> head) {
  constexpr std::size_t header_bytes = 7 * sizeof(std::int32_t);
  if (head.size() < header_bytes) return false;
  ByteCursor cursor("", head);
  if (ByteCursor(cursor).number<std::uint32_t>("the header") == llama2c_magic) return true;
  Llama2cHeader header = read_llama2c_sizes(cursor);
  header.vocabulary = std::abs(header.vocabulary);
  return llama2c_problem(header).empty();
}

inline std::optional<ModelFormat> format_of_json(const std::string& path) {
  const auto text = read_file(path);
  const Json json = parse_json(as_text(text), path);
  if (find_member(json, "weight_map") != nullptr) return ModelFormat::safetensors;
  if (find_member(json, "weightsManifest") != nullptr) return ModelFormat::tfjs;
  return std::nullopt;
}

/// By content, and only where that says nothing by name, so that the format's reader tells what is
/// wrong.
inline std::optional<ModelFormat> format_of_file(const std::string& path) {
  if (path.ends_with(".json")) return format_of_json(path);
  const InputFile file(path);
  std::array<std::byte, 64> bytes;
  const auto head = std::span(bytes).first(std::min(bytes.size(), std::size_t(file.size())));
  file.read_at(0, head);
  if (as_text(head).starts_with(gguf_magic)) return ModelFormat::gguf;
  if (begins_like_safetensors(head, file.size())) return ModelFormat::safetensors;
  if (begins_like_llama2c(head)) return ModelFormat::llama2c;
  if (path.ends_with(safetensors_suffix)) return ModelFormat::safetensors;
  if (path.ends_with(".gguf")) return ModelFormat::gguf;
  return std::nullopt;
}

inline std::optional<ModelFormat> format_of_directory(const std::string& path) {
  const auto names = names_in(path);
  for (const std::string& name : names)
    if (name.ends_with(safetensors_suffix) || name == safetensors_index)
      return ModelFormat::safetensors;
  return std::binary_search(names.begin(), names.end(), "model.json")
             ? std::optional(ModelFormat::tfjs)
             : std::nullopt;
}

inline GgufReader open_whole_gguf(const std::string& path) {
  GgufReader file(path);
  if (const auto parts = file.metadata().get<Index>("split.count"); parts && *parts > 1)
    raise(ErrorCode::unsupported,
          message(path, ": is one of ", *parts, " parts of a GGUF file; merge them first"));
  return file;
}

/// Weights of a model, in whatever format, and their lists.
inline bool holds_weights(std::string_view name) noexcept {
  constexpr std::array<std::string_view, 10> suffixes{
      safetensors_suffix, ".index.json", ".bin", ".pt", ".pth", ".ckpt", ".h5",
      ".msgpack",         ".onnx",       ".gguf"};
  return std::any_of(suffixes.begin(), suffixes.end(),
                     [&](std::string_view suffix) { return name.ends_with(suffix); });
}

}  // namespace detail

inline ModelFile::ModelFile(const std::string& path) : path_(path), reader_(open(path)) {
  std::visit(
      [&](const auto& reader) {
        config_ = detail::config_of(reader);
        for (const auto& tensor : reader.tensors()) tensors_.push_back(detail::tensor_info(tensor));
      },
      reader_);
}

inline LoadedTensor ModelFile::load(std::string_view name) const {
  return std::visit([&](const auto& reader) { return detail::load_tensor(reader, name); }, reader_);
}

inline void ModelFile::release(std::string_view name) const {
  std::visit(
      [&](const auto& reader) {
        if constexpr (requires { reader.release(name); }) reader.release(name);
      },
      reader_);
}

inline std::vector<std::string> ModelFile::files() const {
  std::vector<std::string> paths;
  if (const auto* model = as<SafetensorsModel>()) {
    for (const std::string& name : model->files())
      paths.push_back(message(model->directory(), "/", name));
    if (detail::kind_of(detail::config_path(*model)) == S_IFREG)
      paths.push_back(detail::config_path(*model));
    return paths;
  }
  if (const auto* model = as<TfjsReader>()) paths = model->shards();
  paths.push_back(detail::is_directory(path_) ? path_ + "/model.json" : path_);
  return paths;
}

inline std::vector<std::string> ModelFile::companions() const {
  const auto* model = as<SafetensorsModel>();
  std::vector<std::string> paths;
  if (model == nullptr || detail::kind_of(detail::config_path(*model)) != S_IFREG) return paths;
  for (const std::string& name : detail::names_in(model->directory())) {
    const std::string companion = message(model->directory(), "/", name);
    if (name.front() != '.' && !detail::holds_weights(name) &&
        detail::kind_of(companion) == S_IFREG)
      paths.push_back(companion);
  }
  return paths;
}

inline ModelFile::Reader ModelFile::open(const std::string& path) {
  const bool directory = detail::is_directory(path);
  const auto format = directory ? detail::format_of_directory(path) : detail::format_of_file(path);
  if (!format)
    raise(ErrorCode::unsupported,
          message(path,
                  ": is no model that is understood: a safetensors file, its index or a directory "
                  "of them, a GGUF file, a "
                  "llama2.c checkpoint, or a TensorFlow.js model.json or its directory"));
  switch (*format) {
    case ModelFormat::safetensors: return SafetensorsModel(path);
    case ModelFormat::gguf: return detail::open_whole_gguf(path);
    case ModelFormat::llama2c: return Llama2cReader(path);
    case ModelFormat::tfjs: break;
  }
  return TfjsReader(directory ? path + "/model.json" : path);
}

}  // namespace cafeq
