/// A quantized model as a file: in cafeq's format, or Ŵ in the format of the model that it came
/// from.
#pragma once

#include <sys/stat.h>

#include <cerrno>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cafeq/io/model_parts.hpp"
#include "cafeq/io/sharded_safetensors.hpp"

namespace cafeq {

namespace detail {
class OpenParts;
}

/// Errors of a job's matrices and pairs by name, kept in its part so that a resumed run can report
/// them.
struct PartErrors {
  struct Sums {
    double error = 0;
    double norm = 0;
  };
  std::map<std::string, Sums> matrices;  ///< ‖W − Ŵ‖², ‖W‖²
  std::map<std::string, double> pairs;   ///< relative, by the name of the first matrix
};

/// What writes the results of a plan: a part a job, from any thread, then the whole from all parts.
///   write_part(path, job, result, executor)     one safetensors file with what the job has made
///   assemble(path, parts, about, progress)      the file, or directory, that is asked for; `about`
///                                               joins its metadata where it has any, and
///                                               progress(bytes) is called as they are written
template <class O>
concept ModelOutput =
    requires(const O& output, const std::string& path, const Job& job, const JobResult& result,
             const PartStore& parts, const Metadata& about, void (*progress)(double)) {
      output.write_part(path, job, result, ExecutorRef{});
      output.assemble(path, parts, about, progress);
    };

/// The name of each matrix of a plan in a quantized file: that of its tensor where it is all of it,
/// else with role and expert behind it.
inline std::vector<std::string> matrix_names(const ModelRoles& roles);

/// In cafeq's format: matrices quantized, moved biases and kept tensors as they are.
class QuantizedOutput {
 public:
  /// Raises unsupported where a tensor that is kept is nothing that such a file can hold.
  QuantizedOutput(const ModelFile& model, const Plan& plan);

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

/// Ŵ written back, in the elements and the layout of the model's own file, blocks of GGUF as fp32;
/// a TensorFlow.js model becomes safetensors.
class FloatOutput {
 public:
  FloatOutput(const ModelFile& model, const Plan& plan)
      : model_(model), plan_(plan), names_(matrix_names(plan.roles)) {}

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

/// What a part says of its errors.
inline PartErrors part_errors(const std::string& path);

namespace detail {

inline constexpr const char* errors_key = "cafeq.errors";
inline constexpr const char* places_key = "cafeq.places";

inline Metadata errors_metadata(const Plan& plan, const std::vector<std::string>& names,
                                const JobResult& result) {
  Json matrices = Json::object(), pairs = Json::object();
  for (const auto& part : result.matrices)
    if (part.quantized.squared_norm > 0)
      matrices[names[part.matrix]] = {part.quantized.squared_error, part.quantized.squared_norm};
  for (const auto& [pair, error] : result.pairs) pairs[names[plan.roles.pairs[pair].first]] = error;
  return {{errors_key, Json{{"matrices", matrices}, {"pairs", pairs}}.dump()}};
}

/// The parts of all jobs, mapped.
class OpenParts {
 public:
  OpenParts(const Plan& plan, const PartStore& store) {
    for (std::size_t job = 0; job < plan.jobs.size(); ++job) {
      readers_.emplace_back(store.path(job));
      for (const auto& item : readers_.back().tensors()) part_of_[item.first] = job;
    }
  }
  const std::vector<SafetensorsReader>& readers() const noexcept { return readers_; }
  const TensorView* find(std::string_view name) const {
    const auto found = part_of_.find(name);
    return found == part_of_.end() ? nullptr : &tensor_at(readers_[found->second].tensors(), name);
  }
  void release(std::string_view name) const {
    if (const auto found = part_of_.find(name); found != part_of_.end())
      readers_[found->second].release(name);
  }
  const std::map<std::string, std::size_t, std::less<>>& names() const noexcept { return part_of_; }

 private:
  std::vector<SafetensorsReader> readers_;
  std::map<std::string, std::size_t, std::less<>> part_of_;
};

/// Writes all tensors of `names`, from the parts or else `kept(name)`, and lets their pages leave
/// memory.
template <class Writer, class Kept, class F>
void write_tensors(Writer& writer, std::span<const std::string> names, const OpenParts& parts,
                   const ModelFile& model, Kept&& kept, F&& progress) {
  for (const std::string& name : names) {
    if (const TensorView* part = parts.find(name)) {
      writer.write(name, part->bytes);
      progress(double(part->bytes.size()));
      parts.release(name);
    } else {
      const LoadedTensor tensor = kept(name);
      writer.write(name, tensor.view.bytes);
      progress(double(tensor.view.bytes.size()));
      model.release(name);
    }
  }
  writer.commit();
}
template <class Writer, class F>
void write_tensors(Writer& writer, std::span<const std::string> names, const OpenParts& parts,
                   const ModelFile& model, F&& progress) {
  write_tensors(
      writer, names, parts, model,
      [&](const std::string& name) { return stored_tensor(model, name); }, progress);
}

inline std::vector<std::string> names_of(std::span<const SafetensorsEntry> entries) {
  std::vector<std::string> names;
  for (const auto& entry : entries) names.push_back(entry.name);
  return names;
}

}  // namespace detail

inline std::vector<std::string> matrix_names(const ModelRoles& roles) {
  std::map<std::string_view, std::map<Index, int>> matrices_of;  // in each slice of each tensor
  for (const auto& matrix : roles.matrices) ++matrices_of[matrix.place.tensor][matrix.place.slice];
  std::vector<std::string> names;
  for (const auto& [role, layer, expert, module, place, bias, note] : roles.matrices) {
    const auto& slices = matrices_of[place.tensor];
    std::string name = place.tensor;
    if (slices.size() > 1) name += message(":", place.slice);
    if (slices.at(place.slice) > 1) name += message(":", name_of(role));
    names.push_back(std::move(name));
  }
  return names;
}

inline PartErrors part_errors(const std::string& path) {
  const SafetensorsReader part(path);
  PartErrors errors;
  const auto found = part.metadata().find(detail::errors_key);
  if (found == part.metadata().end()) return errors;
  const auto json = detail::parse_json(found->second, path);
  for (const auto& item : json.at("matrices").items())
    errors.matrices[item.key()] = {item.value()[0].get<double>(), item.value()[1].get<double>()};
  for (const auto& item : json.at("pairs").items())
    errors.pairs[item.key()] = item.value().get<double>();
  return errors;
}

inline QuantizedOutput::QuantizedOutput(const ModelFile& model, const Plan& plan)
    : model_(model), plan_(plan), names_(matrix_names(plan.roles)) {
  std::map<std::string_view, const TensorInfo*> infos;
  for (const TensorInfo& tensor : model.tensors()) infos[tensor.name] = &tensor;
  for (const KeptTensor& kept : plan.kept)
    kept_.push_back({kept.tensor, stored_type(model, kept.tensor), infos.at(kept.tensor)->shape});
}

inline void QuantizedOutput::write_part(const std::string& path, const Job&,
                                        const JobResult& result, ExecutorRef) const {
  QuantizedFileWriter writer;
  for (const auto& part : result.matrices)
    writer.add(names_[part.matrix], *part.quantized.matrix.quantized());
  for (auto& [name, tensor] : moved_biases(model_, plan_, result))
    writer.add_tensor(name, std::move(tensor));
  writer.write(path, detail::errors_metadata(plan_, names_, result));
}

template <class F>
void QuantizedOutput::assemble(const std::string& path, const PartStore& parts,
                               const Metadata& about, F&& progress) const {
  const detail::OpenParts open(plan_, parts);
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

inline void FloatOutput::write_part(const std::string& path, const Job& job,
                                    const JobResult& result, ExecutorRef executor) const {
  const TensorMap tensors = rebuilt_tensors(model_, plan_, job, result, executor);
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
    entries.push_back({tensor.name, part != nullptr ? part->type : stored_type(model_, tensor.name),
                       tensor.shape});
  }
  ShardedSafetensorsWriter writer(path, entries, about);
  detail::write_tensors(writer, detail::names_of(entries), parts, model_, progress);
}

}  // namespace cafeq
