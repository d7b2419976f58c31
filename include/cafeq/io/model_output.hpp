/// A quantized model as a file: in cafeq's format, or Ŵ in the format of the model that it came from.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "cafeq/io/model_parts.hpp"

namespace cafeq {

/// Errors of a job's matrices and pairs by name, kept in its part so that a resumed run can report them.
struct PartErrors {
  struct Sums {
    double error = 0;
    double norm = 0;
  };
  std::map<std::string, Sums> matrices;  ///< ‖W − Ŵ‖², ‖W‖²
  std::map<std::string, double> pairs;   ///< relative, by the name of the first matrix
};

/// The name of each matrix of a plan in a quantized file: that of its tensor where it is all of it, else with role and expert behind it.
inline std::vector<std::string> matrix_names(const ModelRoles& roles);

/// In cafeq's format: matrices quantized, moved biases and kept tensors as they are.
class QuantizedOutput {
 public:
  QuantizedOutput(const ModelFile& model, const Plan& plan) : model_(model), plan_(plan), names_(matrix_names(plan.roles)) {}

  void write_part(const std::string& path, const Job& job, const JobResult& result, ExecutorRef executor) const;
  /// One file. `progress(bytes)` is called as they are written.
  template <class F>
  void assemble(const std::string& path, const PartStore& parts, const Metadata& about, F&& progress) const;

 private:
  const ModelFile& model_;
  const Plan& plan_;
  std::vector<std::string> names_;
};

/// Ŵ written back, in the elements and the layout of the model's own file; a TensorFlow.js model becomes safetensors.
class FloatOutput {
 public:
  FloatOutput(const ModelFile& model, const Plan& plan) : model_(model), plan_(plan) {}

  void write_part(const std::string& path, const Job& job, const JobResult& result, ExecutorRef executor) const;
  /// A directory for safetensors, which the model's configuration and tokenizer are copied into; a file for the others.
  template <class F>
  void assemble(const std::string& path, const PartStore& parts, const Metadata& about, F&& progress) const;

 private:
  const ModelFile& model_;
  const Plan& plan_;
};

/// What a part says of its errors.
inline PartErrors part_errors(const std::string& path);

namespace detail {

inline constexpr const char* errors_key = "cafeq.errors";
inline constexpr const char* places_key = "cafeq.places";

inline Metadata errors_metadata(const Plan& plan, const std::vector<std::string>& names, const JobResult& result) {
  Json matrices = Json::object(), pairs = Json::object();
  for (const auto& part : result.matrices)
    if (part.squared_norm > 0) matrices[names[part.matrix]] = {part.squared_error, part.squared_norm};
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
    if (const auto found = part_of_.find(name); found != part_of_.end()) readers_[found->second].release(name);
  }
  const std::map<std::string, std::size_t, std::less<>>& names() const noexcept { return part_of_; }

 private:
  std::vector<SafetensorsReader> readers_;
  std::map<std::string, std::size_t, std::less<>> part_of_;
};

/// Writes all tensors of `names`, from the parts or else from the model, whose pages leave memory behind it.
template <class Writer, class Names, class F>
void write_tensors(Writer& writer, const Names& names, const OpenParts& parts, const ModelFile& model, F&& progress) {
  for (const auto& name : names) {
    if (const TensorView* part = parts.find(name)) {
      writer.write(name, part->bytes);
      progress(double(part->bytes.size()));
      parts.release(name);
    } else {
      const LoadedTensor kept = stored_tensor(model, name);
      writer.write(name, kept.view.bytes);
      progress(double(kept.view.bytes.size()));
      model.release(name);
    }
  }
}

}  // namespace detail

inline std::vector<std::string> matrix_names(const ModelRoles& roles) {
  std::map<std::string_view, int> matrices_of;
  for (const auto& matrix : roles.matrices) ++matrices_of[matrix.place.tensor];
  std::vector<std::string> names;
  for (const auto& matrix : roles.matrices) {
    std::string name = matrix.place.tensor;
    if (matrices_of[name] > 1 && matrix.place.slice >= 0) name += message(":", matrix.place.slice);
    const bool packed = std::any_of(roles.matrices.begin(), roles.matrices.end(), [&](const MatrixRole& other) {
      return other.place.tensor == matrix.place.tensor && other.place.slice == matrix.place.slice && other.place.begin != matrix.place.begin;
    });
    if (packed) name += message(":", name_of(matrix.role));
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
  for (const auto& item : json.at("matrices").items()) errors.matrices[item.key()] = {item.value()[0].get<double>(), item.value()[1].get<double>()};
  for (const auto& item : json.at("pairs").items()) errors.pairs[item.key()] = item.value().get<double>();
  return errors;
}

inline void QuantizedOutput::write_part(const std::string& path, const Job& job, const JobResult& result, ExecutorRef executor) const {
  QuantizedFileWriter writer;
  for (const auto& part : result.matrices) writer.add(names_[part.matrix], std::get<AnyQuantized>(part.quantized));
  if (!result.biases.empty()) {
    Job biases;
    for (const auto& bias : result.biases) {
      const std::string& tensor = plan_.roles.matrices[bias.matrix].bias->tensor;
      if (std::find(biases.tensors.begin(), biases.tensors.end(), tensor) == biases.tensors.end()) biases.tensors.push_back(tensor);
    }
    for (auto& [name, tensor] : rebuilt_tensors(model_, plan_, biases, {{}, result.biases, {}}, executor)) writer.add_tensor(name, std::move(tensor));
  }
  (void)job;
  writer.write(path, detail::errors_metadata(plan_, names_, result));
}

template <class F>
void QuantizedOutput::assemble(const std::string& path, const PartStore& parts, const Metadata& about, F&& progress) const {
  const detail::OpenParts open(plan_, parts);
  detail::Json matrices = detail::Json::object(), places = detail::Json::object();
  for (const auto& reader : open.readers()) matrices.update(detail::parse_json(reader.metadata().at(detail::matrices_key), path));
  for (std::size_t m = 0; m < names_.size(); ++m) {
    const MatrixPlace& place = plan_.place(m);
    if (!matrices.contains(names_[m]) || (names_[m] == place.tensor && !place.transposed && place.slice < 0)) continue;
    places[names_[m]] = {{"tensor", place.tensor}, {"begin", place.begin}, {"transposed", place.transposed}};
    if (place.slice >= 0) places[names_[m]]["slice"] = place.slice;
  }
  std::vector<SafetensorsEntry> entries;
  std::vector<std::string> names;
  const auto add = [&](const std::string& name, const TensorView& view) {
    entries.push_back({name, view.type, view.shape});
    names.push_back(name);
  };
  for (const auto& kept : plan_.kept)
    if (open.find(kept.tensor) == nullptr) add(kept.tensor, stored_tensor(model_, kept.tensor).view);
  for (const auto& item : open.names()) add(item.first, *open.find(item.first));

  Metadata metadata = about;
  metadata[detail::version_key] = message(quantized_file_version);
  metadata[detail::matrices_key] = matrices.dump();
  if (!places.empty()) metadata[detail::places_key] = places.dump();
  SafetensorsWriter writer(path, entries, metadata);
  detail::write_tensors(writer, names, open, model_, progress);
  writer.commit();
}

inline void FloatOutput::write_part(const std::string& path, const Job& job, const JobResult& result, ExecutorRef executor) const {
  const TensorMap tensors = rebuilt_tensors(model_, plan_, job, result, executor);
  TensorViewMap views;
  for (const auto& [name, tensor] : tensors) views.emplace(name, tensor.view());
  write_safetensors(path, views, detail::errors_metadata(plan_, matrix_names(plan_.roles), result));
}

template <class F>
void FloatOutput::assemble(const std::string& path, const PartStore& parts, const Metadata& about, F&& progress) const {
  const detail::OpenParts open(plan_, parts);
  std::vector<std::string> names;
  for (const auto& tensor : model_.tensors()) names.push_back(tensor.name);
  const auto view_of = [&](const std::string& name) {
    const TensorView* part = open.find(name);
    return part != nullptr ? *part : stored_tensor(model_, name).view;
  };
  if (const auto* file = model_.as<Llama2cReader>()) {
    Llama2cWriter writer(path, file->header());
    detail::write_tensors(writer, names, open, model_, progress);
    return writer.commit();
  }
  if (const auto* file = model_.as<GgufReader>()) {
    std::vector<GgufEntry> entries;
    for (const std::string& name : names) {
      const TensorView view = view_of(name);
      const GgufType type = view.type == ScalarType::f16 ? GgufType::f16 : view.type == ScalarType::bf16 ? GgufType::bf16 : GgufType::f32;
      entries.push_back({name, type, view.shape});
    }
    GgufWriter writer(path, file->metadata(), entries);
    detail::write_tensors(writer, names, open, model_, progress);
    return writer.commit();
  }
  std::vector<SafetensorsEntry> entries;
  for (const std::string& name : names) entries.push_back({name, view_of(name).type, view_of(name).shape});
  if (::mkdir(path.c_str(), 0777) != 0 && errno != EEXIST) detail::raise_system(path, "create", errno);
  for (const std::string& companion : model_.companions()) {
    AtomicFile copy(message(path, "/", detail::name_in_directory(companion)));
    copy.write(read_file(companion));
    copy.commit();
  }
  ShardedSafetensorsWriter writer(path, entries, about);
  detail::write_tensors(writer, names, open, model_, progress);
  writer.commit();
}

}  // namespace cafeq
