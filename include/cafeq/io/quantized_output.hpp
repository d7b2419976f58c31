/// A quantized model in cafeq's own format (docs/reference/format.md).
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/model_output.hpp"
#include "cafeq/io/open_parts.hpp"

namespace cafeq {

/// In cafeq's format: matrices quantized, moved biases and kept tensors as they are.
class QuantizedOutput {
 public:
  /// Raises unsupported where a tensor that is kept is nothing that such a file can hold.
  QuantizedOutput(const ModelFile& model, const Plan& plan);

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
  std::vector<SafetensorsEntry> kept_{};
};

namespace detail {

inline constexpr const char* places_key = "cafeq.places";

}  // namespace detail

inline QuantizedOutput::QuantizedOutput(const ModelFile& model, const Plan& plan)
    : model_(model), plan_(plan), names_(matrix_names(plan.roles)) {
  std::map<std::string_view, const TensorInfo*> infos;
  for (const TensorInfo& tensor : model.tensors()) infos[tensor.name] = &tensor;

  for (const KeptTensor& kept : plan.kept)
    kept_.push_back(
        {kept.tensor, detail::stored_type(model, kept.tensor), infos.at(kept.tensor)->shape});
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

  auto entries = kept_;
  for (const auto& [name, job] : open.names())
    entries.push_back({name, open.find(name)->type, open.find(name)->shape});
  SafetensorsWriter writer(path, entries, metadata);
  detail::write_tensors(writer, detail::names_of(entries), open, model_, progress);
}

}  // namespace cafeq
