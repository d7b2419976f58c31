/// A model in memory, and what is measured of it once other weights have taken the place of its
/// own.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/model/model.hpp"

namespace cafeq::example {

/// By name; vectors have one row.
using Tensors = std::map<std::string, Matrix<float>, std::less<>>;

/// Tensors as a file would have them. Models ModelReader.
class TensorModel {
 public:
  TensorModel(Tensors tensors, ModelConfig config)
      : values_(std::move(tensors)), config_(std::move(config)) {
    for (const auto& [name, matrix] : values_)
      infos_.push_back({name, "F32", shape_of(matrix), matrix.size() * Index(sizeof(float))});
  }

  const Tensors& values() const noexcept { return values_; }
  std::span<const TensorInfo> tensors() const noexcept { return infos_; }
  const ModelConfig& config() const noexcept { return config_; }
  LoadedTensor load(std::string_view name) const {
    const Matrix<float>& matrix = values_.find(name)->second;
    return {TensorView{ScalarType::f32, shape_of(matrix),
                       std::as_bytes(std::span(matrix.data(), std::size_t(matrix.size())))}};
  }
  void release(std::string_view) const noexcept {}

 private:
  static std::vector<Index> shape_of(const Matrix<float>& matrix) {
    return matrix.rows() == 1 ? std::vector{matrix.cols()}
                              : std::vector{matrix.rows(), matrix.cols()};
  }

  Tensors values_;
  ModelConfig config_;
  std::vector<TensorInfo> infos_;
};

static_assert(ModelReader<TensorModel>);

struct Quality {
  std::optional<double> perplexity{};
  std::optional<double> mean_cosine{};  ///< between embeddings and those of fp32
};

struct Subject {
  std::string name;
  std::vector<TensorModel> parts;  ///< each with a plan of its own
  std::function<Quality(const Tensors&)>
      measure;  ///< with these tensors, those of all parts together
};

inline Quality fp32_quality(const Subject& subject) {
  Tensors all;
  for (const TensorModel& part : subject.parts)
    all.insert(part.values().begin(), part.values().end());
  return subject.measure(all);
}

}  // namespace cafeq::example
