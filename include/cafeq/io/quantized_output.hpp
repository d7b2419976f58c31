/// A quantized model in cafeq's own format (docs/reference/format.md).
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/embedded_files.hpp"
#include "cafeq/io/model_output.hpp"
#include "cafeq/io/open_parts.hpp"

namespace cafeq {

/// In cafeq's format: matrices quantized, moved biases and kept tensors as they are, and what lies
/// beside the weights.
class QuantizedOutput {
 public:
  /// `tokenizer` is that of a llama2.c checkpoint (see to_gguf_model()); others have their own.
  /// Raises unsupported where a tensor that is kept is nothing that such a file can hold,
  /// invalid_argument for a tokenizer of a model that has one.
  QuantizedOutput(const ModelFile& model, const Plan& plan, const std::string& tokenizer = {});

  template <class Arch = DefaultArch>
  void write_part(const std::string& path, const Job& job, const JobResult& result,
                  ExecutorRef executor) const;
  /// One file. `progress(bytes)` is called as they are written.
  template <class F>
  void assemble(const std::string& path, const PartStore& parts, const Metadata& about,
                F&& progress) const;

 private:
  const ModelFile& model_;
  const Plan& plan_;
  std::vector<std::string> names_;  // of matrices
  std::vector<detail::EmbeddedFile> files_;
  std::vector<SafetensorsEntry> kept_{};
  detail::Json blocks_ = detail::Json::object();  // which of those are in blocks of GGUF
};

inline QuantizedOutput::QuantizedOutput(const ModelFile& model, const Plan& plan,
                                        const std::string& tokenizer)
    : model_(model),
      plan_(plan),
      names_(matrix_names(plan.roles)),
      files_(detail::embedded_files(model, tokenizer)) {
  std::map<std::string_view, const TensorInfo*> infos;
  for (const TensorInfo& tensor : model.tensors()) infos[tensor.name] = &tensor;

  const auto* gguf = model.as<GgufReader>();
  for (const KeptTensor& kept : plan.kept) {
    const TensorInfo& info = *infos.at(kept.tensor);
    kept_.push_back(detail::stored_entry(model, info));
    if (gguf != nullptr && detail::is_blocks(gguf->tensor(info.name)))
      blocks_[info.name] = {{"type", info.type}, {"shape", info.shape}};
  }
}

template <class Arch>
void QuantizedOutput::write_part(const std::string& path, const Job&, const JobResult& result,
                                 ExecutorRef) const {
  QuantizedFileWriter writer;
  for (const auto& part : result.matrices)
    writer.add(names_[part.matrix], *part.quantized.matrix.quantized());
  for (auto& [name, tensor] : detail::moved_biases<Arch>(model_, plan_, result))
    writer.add_tensor(name, std::move(tensor));
  writer.write(path, detail::errors_metadata(plan_, names_, result));
}

template <class F>
void QuantizedOutput::assemble(const std::string& path, const PartStore& parts,
                               const Metadata& about, F&& progress) const {
  const detail::OpenParts open(plan_, parts);

  // Of each matrix how it is stored; and where it belongs, unless it is a tensor as it lies.
  detail::Json matrices = detail::Json::object(), places = detail::Json::object();
  for (const auto& reader : open.readers())
    matrices.update(detail::parse_json(reader.metadata().at(detail::matrices_key), path));
  for (std::size_t m = 0; m < names_.size(); ++m) {
    const MatrixPlace& place = plan_.place(m);
    if (!matrices.contains(names_[m]) ||
        (names_[m] == place.tensor && !place.transposed && place.slice < 0))
      continue;
    places[names_[m]] = {
        {"tensor", place.tensor}, {"begin", place.begin}, {"transposed", place.transposed}};
    if (place.slice >= 0) places[names_[m]]["slice"] = place.slice;
  }

  Metadata metadata = about;
  metadata[detail::version_key] = message(quantized_file_version);
  metadata[detail::matrices_key] = matrices.dump();
  if (!places.empty()) metadata[detail::places_key] = places.dump();
  if (!blocks_.empty()) metadata[detail::blocks_key] = blocks_.dump();

  auto entries = kept_;
  for (const auto& [name, job] : open.names())
    entries.push_back({name, open.find(name)->type, open.find(name)->shape});
  const auto tensors = detail::names_of(entries);
  for (const auto& file : files_)
    entries.push_back({file.tensor(), ScalarType::u8, {file.bytes()}});

  SafetensorsWriter writer(path, entries, metadata);
  for (const auto& file : files_) {
    if (file.path.empty()) writer.write(file.tensor(), std::as_bytes(std::span(file.content)));
    else writer.write(file.tensor(), read_file(file.path));
  }
  detail::write_tensors(writer, tensors, open, model_, progress);
}

}  // namespace cafeq
