/// A model some of whose matrices are replaced in memory.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cafeq/core/copy.hpp"
#include "cafeq/io/model_file.hpp"
#include "cafeq/model/load_matrix.hpp"

namespace cafeq::accuracy {

/// Models ModelReader.
class Overlay {
 public:
  /// Keeps a reference to the file.
  explicit Overlay(const ModelFile& file) : file_(file) {}

  void replace(const MatrixPlace& place, View<const float> W) {
    const TensorView& tensor = file_.load(place.tensor).view;
    const bool is_new = !changed_.contains(place.tensor);
    Floats& floats = changed_[place.tensor];
    if (is_new) {
      floats.shape = tensor.shape;
      cafeq::detail::with_elements(tensor, place.tensor, [&](auto elements) {
        floats.values.assign(elements.begin(), elements.end());
      });
    }
    copy(W, cafeq::detail::matrix_in(std::span(floats.values), tensor.shape, place));
    file_.release(place.tensor);
  }

  std::span<const TensorInfo> tensors() const noexcept { return file_.tensors(); }
  const ModelConfig& config() const noexcept { return file_.config(); }
  LoadedTensor load(std::string_view name) const {
    const auto found = changed_.find(name);
    if (found == changed_.end()) return file_.load(name);
    return {TensorView{ScalarType::f32, found->second.shape,
                       std::as_bytes(std::span(found->second.values))}};
  }
  void release(std::string_view name) const {
    if (!changed_.contains(name)) file_.release(name);
  }

 private:
  struct Floats {
    std::vector<Index> shape;
    std::vector<float> values;
  };

  const ModelFile& file_;
  std::map<std::string, Floats, std::less<>> changed_;
};

static_assert(ModelReader<Overlay>);

}  // namespace cafeq::accuracy
