/// Matrices and biases of a model, from where they lie in its tensors.
#pragma once

#include <algorithm>
#include <span>
#include <string_view>
#include <vector>

#include "cafeq/core/executor.hpp"
#include "cafeq/core/matrix.hpp"
#include "cafeq/model/model.hpp"
#include "cafeq/model/roles.hpp"

namespace cafeq {

namespace detail {

/// f(elements) with the elements of a loaded tensor as a span of their own type.
template <class F>
decltype(auto) with_elements(const TensorView& tensor, std::string_view name, F&& f) {
  switch (tensor.type) {
    case ScalarType::f32: return f(tensor.values<float>(name));
    case ScalarType::f16: return f(tensor.values<fp16>(name));
    case ScalarType::bf16: return f(tensor.values<bf16>(name));
    case ScalarType::f64: return f(tensor.values<double>(name));
    default:
      raise(ErrorCode::unsupported, message(name, ": its elements are ", name_of(tensor.type)));
  }
}

/// The matrix [out, in] that lies at a place of a tensor.
template <class T>
View<T> matrix_in(std::span<T> elements, const std::vector<Index>& shape,
                  const MatrixPlace& place) noexcept {
  const Index rows = shape[shape.size() - 2], cols = shape.back();
  const View<T> tensor{elements.data() + std::max<Index>(0, place.slice) * rows * cols, rows, cols,
                       cols, 1};
  return (place.transposed ? tensor.transposed() : tensor).row_block(place.begin, place.out);
}

/// f(W) with the matrix [out, in] that lies there, as a view of its own elements.
template <ModelReader R, class F>
void with_matrix(const R& reader, const MatrixPlace& place, F&& f) {
  const LoadedTensor loaded = reader.load(place.tensor);
  with_elements(loaded.view, place.tensor,
                [&](auto elements) { f(matrix_in(elements, loaded.view.shape, place)); });
}

}  // namespace detail

/// The same in floats.
template <ModelReader R>
Matrix<float> load_matrix(const R& reader, const MatrixPlace& place, ExecutorRef executor = {}) {
  Matrix<float> W(place.out, place.in);
  detail::with_matrix(reader, place, [&](auto stored) {
    executor.parallel_for(place.out, 64, [&](Index begin, Index end, Index) {
      copy(stored.row_block(begin, end - begin), W.view().row_block(begin, end - begin));
    });
  });
  return W;
}

/// Some of its rows in floats, evenly spread; all of them where it has no more than `count`.
template <ModelReader R>
Matrix<float> load_rows(const R& reader, const MatrixPlace& place, Index count) {
  Matrix<float> sample(std::min(count, place.out), place.in);
  detail::with_matrix(reader, place, [&](auto stored) {
    for (Index i = 0; i < sample.rows(); ++i)
      copy(stored.row_block(i * place.out / sample.rows(), 1), sample.view().row_block(i, 1));
  });
  return sample;
}

/// The bias of a matrix in floats; empty where it has none.
template <ModelReader R>
std::vector<float> load_bias(const R& reader, const MatrixRole& matrix) {
  std::vector<float> bias;
  if (!matrix.bias) return bias;
  const LoadedTensor loaded = reader.load(matrix.bias->tensor);
  const Index slice = std::max<Index>(0, matrix.bias->slice) * loaded.view.shape.back();
  detail::with_elements(loaded.view, matrix.bias->tensor, [&](auto elements) {
    for (const auto x :
         elements.subspan(std::size_t(slice + matrix.bias->begin), std::size_t(matrix.place.out)))
      bias.push_back(float(x));
  });
  return bias;
}

}  // namespace cafeq
