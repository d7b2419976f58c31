/// What a run knows of the inputs of a model's matrices. Internal.
#pragma once

#include <functional>
#include <set>
#include <span>
#include <string>

#include "cafeq/io/gram_file.hpp"
#include "cafeq/io/model_file.hpp"
#include "cafeq/model/find_roles.hpp"

namespace cafeq::detail {

using TensorNames = std::set<std::string, std::less<>>;

/// All matrices that read one of these inputs.
inline TensorNames readers_of(std::span<const GramEntry> inputs) {
  TensorNames names;
  for (const GramEntry& input : inputs) {
    names.insert(input.name);
    names.insert(input.readers.begin(), input.readers.end());
  }
  return names;
}

/// Matrices of a model whose inputs a file has. Raises invalid_shape for inputs of another
/// dimension than their matrix reads, invalid_argument where it has those of none.
inline TensorNames known_inputs(const GramFile& file, const ModelFile& model) {
  TensorNames names;
  for (const MatrixRole& matrix : find_roles(model.tensors(), model.config()).matrices) {
    const GramEntry* input = file.find(matrix.place.tensor);
    if (input == nullptr) continue;
    if (input->dim != matrix.place.in)
      raise(ErrorCode::invalid_shape,
            message("metric: ", file.path(), ": ", input->name, " has ", input->dim,
                    " inputs, and ", matrix.place.tensor, " reads ", matrix.place.in));
    if (input->count > 0) names.insert(matrix.place.tensor);
  }
  if (names.empty())
    raise(ErrorCode::invalid_argument,
          message("metric: ", file.path(), ": has inputs of no matrix of ", model.path()));
  return names;
}

/// The metric of what a matrix reads.
inline Metric metric_of(const GramFile& file, const MatrixRole& matrix) {
  const std::string& name = matrix.place.tensor;
  const GramEntry* input = file.find(name);
  if (input == nullptr || input->dim != matrix.place.in)
    raise(ErrorCode::corrupt, message(file.path(), ": has no inputs of ", name));
  return file.load(*input).metric();
}

}  // namespace cafeq::detail
