/// The parts that the jobs of a plan have left, and how a whole file is put together from them.
/// Internal.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cafeq/io/model_parts.hpp"

namespace cafeq::detail {

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
  /// A tensor that a job has made, or null.
  const TensorView* find(std::string_view name) const {
    const auto found = part_of_.find(name);
    return found == part_of_.end() ? nullptr : &tensor_at(readers_[found->second].tensors(), name);
  }
  /// Lets the pages of a tensor leave memory.
  void release(std::string_view name) const {
    if (const auto found = part_of_.find(name); found != part_of_.end())
      readers_[found->second].release(name);
  }
  /// Of all tensors that are in parts, each with its job.
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
/// The same where the others are those of the model, as safetensors hold them.
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

}  // namespace cafeq::detail
