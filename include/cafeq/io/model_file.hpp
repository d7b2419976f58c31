/// A model in any of the formats that this floor reads, as one class.
#pragma once

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "cafeq/io/gguf_config.hpp"
#include "cafeq/io/gguf_file.hpp"
#include "cafeq/io/json_config.hpp"
#include "cafeq/io/llama2c.hpp"
#include "cafeq/io/llama2c_config.hpp"
#include "cafeq/io/load_tensor.hpp"
#include "cafeq/io/model_format.hpp"
#include "cafeq/io/path.hpp"
#include "cafeq/io/quantized_model.hpp"
#include "cafeq/io/safetensors_model.hpp"
#include "cafeq/io/tfjs.hpp"
#include "cafeq/model/model.hpp"

namespace cafeq {

/// The file or the directory of a model. Models ModelReader.
class ModelFile {
 public:
  /// `path`: a safetensors file, an index of several or a directory with them (see
  /// SafetensorsModel); a GGUF file; a llama2.c checkpoint; a TensorFlow.js model.json or its
  /// directory; a file in cafeq's own format, as the model that was quantized (see
  /// QuantizedModelReader). The content decides which. Raises unsupported where it is none of
  /// these, else as the format's reader.
  explicit ModelFile(const std::string& path);

  const std::string& path() const noexcept { return path_; }
  ModelFormat format() const noexcept { return ModelFormat(reader_.index()); }
  /// What the file itself says, or the config.json beside or in it; empty where there is none.
  const ModelConfig& config() const noexcept { return config_; }
  /// In the file's order.
  std::span<const TensorInfo> tensors() const noexcept { return tensors_; }
  /// The size of all files that hold tensors.
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
  /// Llama2cReader, TfjsReader, QuantizedModelReader.
  template <class R>
  const R* as() const noexcept {
    return std::get_if<R>(&reader_);
  }
  /// Paths of all files that it is read from: those with tensors, and the configuration beside
  /// them.
  std::vector<std::string> files() const;
  /// What lies beside the weights of a Hugging Face model and belongs to it: paths of the
  /// configuration, the tokenizer and so on.
  std::vector<std::string> companions() const;
  /// The content of the companion of that file name ("tokenizer.json"), beside the weights or in a
  /// file of cafeq's; nothing where there is none.
  std::optional<std::string> companion(std::string_view name) const;
  /// Keys and values of a GGUF model, which take the place of companions, also of one that was
  /// quantized since; null where it has none.
  const GgufMetadata* metadata() const noexcept {
    if (const auto* model = as<QuantizedModelReader>()) return model->metadata();
    const auto* file = as<GgufReader>();
    return file == nullptr ? nullptr : &file->metadata();
  }

 private:
  // In the order of ModelFormat.
  using Reader =
      std::variant<SafetensorsModel, GgufReader, Llama2cReader, TfjsReader, QuantizedModelReader>;
  static Reader open(const std::string& path);

  std::string path_;
  Reader reader_;
  ModelConfig config_;
  std::vector<TensorInfo> tensors_;
};

static_assert(ModelReader<ModelFile>);

namespace detail {

inline constexpr std::string_view config_name = "config.json";
/// Where the configuration of a Hugging Face model lies, if it has one.
inline std::string config_path(const SafetensorsModel& model) {
  return message(model.directory(), "/", config_name);
}

/// What each format says of the model's layers; TensorFlow.js says nothing.
inline ModelConfig config_of(const SafetensorsModel& model) {
  const std::string path = config_path(model);
  if (kind_of(path) != S_IFREG) return {};
  const auto text = read_file(path);
  return config_from_json(as_text(text), path);
}
inline ModelConfig config_of(const GgufReader& file) { return config_from_gguf(file); }
inline ModelConfig config_of(const Llama2cReader& file) {
  return config_from_llama2c(file.header());
}
inline ModelConfig config_of(const TfjsReader&) { return {}; }
inline ModelConfig config_of(const QuantizedModelReader& model) {
  if (model.metadata() != nullptr) return config_from_gguf(*model.metadata());
  const auto text = model.companion(config_name);
  return text ? config_from_json(*text, model.file().path() + ": config.json") : ModelConfig{};
}

/// Raises unsupported for one of several files that hold a model together.
inline GgufReader open_whole_gguf(const std::string& path) {
  GgufReader file(path);
  if (const auto parts = file.metadata().get<Index>("split.count"); parts && *parts > 1)
    raise(ErrorCode::unsupported,
          message(path, ": is one of ", *parts, " parts of a GGUF file; merge them first"));
  return file;
}

/// Whether a file of that name holds weights, in whatever format, or lists files that do: such
/// files do not belong beside the weights that take their place.
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

inline std::optional<std::string> ModelFile::companion(std::string_view name) const {
  if (const auto* model = as<QuantizedModelReader>()) return model->companion(name);
  for (const std::string& path : companions())
    if (detail::name_in_directory(path) == name) {
      const auto bytes = read_file(path);
      return std::string(as_text(bytes));
    }
  return std::nullopt;
}

inline ModelFile::Reader ModelFile::open(const std::string& path) {
  switch (detail::format_of(path)) {
    case ModelFormat::safetensors: return SafetensorsModel(path);
    case ModelFormat::gguf: return detail::open_whole_gguf(path);
    case ModelFormat::llama2c: return Llama2cReader(path);
    case ModelFormat::quantized: return QuantizedModelReader(path);
    case ModelFormat::tfjs: break;
  }
  return TfjsReader(detail::is_directory(path) ? path + "/model.json" : path);
}

}  // namespace cafeq
