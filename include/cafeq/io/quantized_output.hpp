/// A quantized model in cafeq's own format (docs/reference/format.md).
#pragma once

#include <algorithm>
#include <map>
#include <set>
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
  /// At most the size of the file: numbers in the descriptions of matrices are counted with all the
  /// digits that they may have.
  Index bytes() const;

 private:
  Metadata own_metadata() const;
  std::vector<SafetensorsEntry> all_kept() const;

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

/// Of the file, but for its matrices.
inline Metadata QuantizedOutput::own_metadata() const {
  Metadata metadata{{detail::version_key, message(quantized_file_version)}};
  if (!blocks_.empty()) metadata[detail::blocks_key] = blocks_.dump();
  return metadata;
}

/// Also the biases that pairs move.
inline std::vector<SafetensorsEntry> QuantizedOutput::all_kept() const {
  std::set<std::string_view> of_matrices, moved;
  for (const Step& step : plan_.steps)
    for (const std::size_t m : step.matrices) of_matrices.insert(plan_.place(m).tensor);
  for (const Job& job : plan_.jobs)
    for (const std::string& tensor : job.tensors)
      if (!of_matrices.contains(tensor)) moved.insert(tensor);

  auto entries = kept_;
  for (const TensorInfo& info : model_.tensors())
    if (moved.contains(info.name)) entries.push_back(detail::stored_entry(model_, info));
  for (const auto& file : files_)
    entries.push_back({file.tensor(), ScalarType::u8, {file.bytes()}});
  return entries;
}

inline Index QuantizedOutput::bytes() const {
  // Of a matrix the description, the place, and the entries of four tensors, all of them with
  // its name and numbers of many digits; and the sizes of a transform's blocks, which are of 8 or
  // more unless there are so few lines that larger ones would cost too much.
  constexpr Index recipe = 512, description = 300, place = 100, entry = 95;
  const auto block_sizes = [](Index lines, Index length) {
    return Index(double(length) * std::clamp(64.0 / double(lines), 0.25, 1.0));
  };
  Index bytes = SafetensorsWriter::file_bytes(all_kept(), own_metadata()) + recipe +
                Index(alignment) + Index(plan_.storage_bits() / 8);
  for (const Step& step : plan_.steps)
    for (const std::size_t m : step.matrices) {
      const MatrixPlace& W = plan_.place(m);
      const Index name = Index(names_[m].size());
      bytes += description + name + 4 * (entry + name) +
               std::max(block_sizes(W.out, W.in), block_sizes(W.in, W.out));
      if (names_[m] != W.tensor || W.transposed || W.slice >= 0)
        bytes += place + name + Index(W.tensor.size());
    }
  return bytes;
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
  metadata.merge(own_metadata());
  metadata[detail::matrices_key] = matrices.dump();
  if (!places.empty()) metadata[detail::places_key] = places.dump();

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
