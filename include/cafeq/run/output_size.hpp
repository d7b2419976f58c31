/// What a quantized model takes beside its quantized weights: how a size in bytes becomes bits a
/// weight.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "cafeq/io/model_file.hpp"
#include "cafeq/io/model_output.hpp"
#include "cafeq/model/plan.hpp"

namespace cafeq::detail {

/// The bytes of the tensors that a plan keeps, as they are in the model's files.
inline double kept_bytes(const ModelFile& model, const Plan& plan) {
  std::set<std::string_view> kept;
  for (const KeptTensor& tensor : plan.kept) kept.insert(tensor.tensor);

  double bytes = 0;
  for (const TensorInfo& tensor : model.tensors())
    if (kept.contains(tensor.name)) bytes += double(tensor.bytes);
  return bytes;
}

/// What an output in cafeq's format or as GGUF has beside quantized weights: kept tensors, and at
/// most what headers, names and vocabularies take. `tokenizer` is a file that a GGUF takes its
/// vocabulary from in place of the model's own.
inline double bytes_beside_weights(const ModelFile& model, const Plan& plan, bool gguf,
                                   const std::string& tokenizer = {}) {
  constexpr double a_header = 512, a_tensor = 160, a_matrix = 560, a_byte_of_its_name = 6;
  double bytes = a_header + kept_bytes(model, plan);
  for (const KeptTensor& kept : plan.kept) bytes += a_tensor + double(kept.tensor.size());
  for (const std::string& name : matrix_names(plan.roles))
    bytes += a_matrix + a_byte_of_its_name * double(name.size());
  if (!gguf) return bytes;

  std::vector<std::string> vocabularies{tokenizer};
  if (tokenizer.empty()) vocabularies = model.companions();
  for (const std::string& path : vocabularies)
    if (path == tokenizer || path.ends_with("/tokenizer.json"))
      bytes += double(std::filesystem::file_size(path));
  if (model.format() == ModelFormat::gguf) {  // its metadata stays
    bytes += double(model.file_bytes());
    for (const TensorInfo& tensor : model.tensors()) bytes -= double(tensor.bytes);
  }
  return bytes;
}

}  // namespace cafeq::detail
