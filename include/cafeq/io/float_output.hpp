/// A quantized model written back as floats, in the format of the model that it came from.
#pragma once

#include <sys/stat.h>

#include <cerrno>
#include <string>
#include <vector>

#include "cafeq/io/model_output.hpp"
#include "cafeq/io/open_parts.hpp"
#include "cafeq/io/sharded_safetensors.hpp"

namespace cafeq {

/// Ŵ written back, in the elements and the layout of the model's own file, blocks of GGUF as fp32;
/// a TensorFlow.js model becomes safetensors.
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

template <class Arch>
void FloatOutput::write_part(const std::string& path, const Job& job, const JobResult& result,
                             ExecutorRef executor) const {
  const TensorMap tensors = detail::rebuilt_tensors<Arch>(model_, plan_, job, result, executor);
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
    if (const TensorView* part = parts.find(tensor.name);
        part != nullptr && part->type == ScalarType::f32)
      entries.back().type = GgufType::f32;
  }

  // What is not in a part stays as it is, byte for byte.
  GgufWriter writer(path, file.metadata(), entries);
  const auto kept = [&](const std::string& name) {
    return LoadedTensor{{ScalarType::u8, {}, file.tensor(name).data}};
  };
  detail::write_tensors(writer, names, parts, model_, kept, progress);
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
