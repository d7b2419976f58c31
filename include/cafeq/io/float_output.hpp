/// A quantized model written back as floats, in the format of the model that it came from.
#pragma once

#include <sys/stat.h>

#include <cerrno>
#include <cmath>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "cafeq/io/gguf_file_type.hpp"
#include "cafeq/io/model_output.hpp"
#include "cafeq/io/open_parts.hpp"
#include "cafeq/io/sharded_safetensors.hpp"

namespace cafeq {

/// Ŵ written back, in the elements and the layout of the model's own file. Blocks of GGUF, which
/// could not hold Ŵ without loss, become fp16: its 2⁻¹¹ is little beside any quantizer's error, and
/// half as much as fp32. Only where a weight is beyond its range the tensor is fp32. A
/// TensorFlow.js model becomes safetensors.
class FloatOutput {
 public:
  FloatOutput(const ModelFile& model, const Plan& plan)
      : model_(model), plan_(plan), names_(matrix_names(plan.roles)) {}

  template <class Arch = DefaultArch>
  void write_part(const std::string& path, const Job& job, const JobResult& result,
                  ExecutorRef executor) const;
  /// A directory for safetensors, which must not be there and which the model's configuration and
  /// tokenizer are copied into; a file for the others.
  template <class F>
  void assemble(const std::string& path, const PartStore& parts, const Metadata& about,
                F&& progress) const;
  /// About the size of all files.
  Index bytes() const;

 private:
  template <class F>
  void assemble_gguf(const std::string& path, const GgufReader& file,
                     const detail::OpenParts& parts, F&& progress) const;
  template <class F>
  void assemble_directory(const std::string& path, const detail::OpenParts& parts,
                          const Metadata& about, F&& progress) const;

  const ModelFile& model_;
  const Plan& plan_;
  std::vector<std::string> names_;  // of matrices
};

namespace detail {

inline bool within_fp16(const Tensor& tensor) {
  const auto values = tensor.values<float>();
  return std::all_of(values.begin(), values.end(), [](float x) { return std::abs(x) <= fp16_max; });
}

}  // namespace detail

template <class Arch>
void FloatOutput::write_part(const std::string& path, const Job& job, const JobResult& result,
                             ExecutorRef executor) const {
  TensorMap tensors = detail::rebuilt_tensors<Arch>(model_, plan_, job, result, executor);
  if (const auto* file = model_.as<GgufReader>())
    for (auto& [name, tensor] : tensors)
      if (detail::is_blocks(file->tensor(name)) && detail::within_fp16(tensor))
        tensor = detail::converted<fp16>(tensor.view(), name);
  TensorViewMap views;
  for (const auto& [name, tensor] : tensors) views.emplace(name, tensor.view());
  write_safetensors(path, views, detail::errors_metadata(plan_, names_, result));
}

template <class F>
void FloatOutput::assemble(const std::string& path, const PartStore& parts, const Metadata& about,
                           F&& progress) const {
  const detail::OpenParts open(plan_, parts);
  if (const auto* file = model_.as<GgufReader>()) return assemble_gguf(path, *file, open, progress);
  const auto* file = model_.as<Llama2cReader>();
  if (file == nullptr) return assemble_directory(path, open, about, progress);

  std::vector<std::string> names;
  for (const auto& tensor : file->tensors()) names.push_back(tensor.name);
  Llama2cWriter writer(path, file->header());
  detail::write_tensors(writer, names, open, model_, progress);
}

template <class F>
void FloatOutput::assemble_gguf(const std::string& path, const GgufReader& file,
                                const detail::OpenParts& parts, F&& progress) const {
  std::vector<GgufEntry> entries;
  std::vector<std::string> names;
  for (const GgufTensor& tensor : file.tensors()) {
    entries.push_back(tensor);
    names.push_back(tensor.name);
    if (const TensorView* part = parts.find(tensor.name); part != nullptr)
      entries.back().type = detail::gguf_type_of(part->type);
  }

  // What is not in a part stays as it is, byte for byte.
  GgufMetadata metadata = file.metadata();
  detail::set_file_type(metadata, entries);
  GgufWriter writer(path, metadata, entries);
  const auto kept = [&](const std::string& name) {
    return LoadedTensor{{ScalarType::u8, {}, file.tensor(name).data}};
  };
  detail::write_tensors(writer, names, parts, model_, kept, progress);
}

inline Index FloatOutput::bytes() const {
  std::set<std::string_view> changed;
  for (const Job& job : plan_.jobs) changed.insert(job.tensors.begin(), job.tensors.end());
  const auto* gguf = model_.as<GgufReader>();
  Index bytes = 0;
  for (const TensorInfo& tensor : model_.tensors()) {
    bytes -= tensor.bytes;
    if (gguf != nullptr)
      bytes += changed.contains(tensor.name) && detail::is_blocks(gguf->tensor(tensor.name))
                   ? *byte_count(ScalarType::f16, tensor.shape)
                   : tensor.bytes;
    else {
      const auto entry = detail::stored_entry(model_, tensor);
      bytes += *byte_count(entry.type, entry.shape);
    }
  }
  for (const std::string& path : model_.companions())
    bytes += Index(std::filesystem::file_size(path));
  return model_.file_bytes() + bytes;
}

template <class F>
void FloatOutput::assemble_directory(const std::string& path, const detail::OpenParts& parts,
                                     const Metadata& about, F&& progress) const {
  if (::mkdir(path.c_str(), 0777) != 0) detail::raise_system(path, "create", errno);
  for (const std::string& companion : model_.companions()) {
    AtomicFile copy(message(path, "/", detail::name_in_directory(companion)));
    copy.write(read_file(companion));
    copy.commit();
  }

  std::vector<SafetensorsEntry> entries;
  for (const TensorInfo& tensor : model_.tensors()) {
    const TensorView* part = parts.find(tensor.name);
    entries.push_back(part != nullptr ? SafetensorsEntry{tensor.name, part->type, tensor.shape}
                                      : detail::stored_entry(model_, tensor));
  }
  ShardedSafetensorsWriter writer(path, entries, about);
  detail::write_tensors(writer, detail::names_of(entries), parts, model_, progress);
}

}  // namespace cafeq
