/// Activations for packed weights, and what every Linear does with them whatever its codes are.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

#include "cafeq/kernel/packed_product.hpp"
#include "cafeq/pipeline/quantized.hpp"
#include "cafeq/runtime/undo_transform.hpp"

namespace cafeq {

enum class ActivationPrecision {
  fp32,  ///< as they are; under a trellis rounded to int16, one step a vector
  int8,  ///< rounded to −127 … 127 steps of absmax/127, one step for every `group` entries: a third
         ///< of the time
};

struct ActivationFormat {
  ActivationPrecision precision = ActivationPrecision::fp32;
  Index group = 128;  ///< entries that share a step (int8), per_row for one step a vector; under a
                      ///< trellis always 64
};

namespace detail {
template <class E>
View<E> one_row(VectorView<E> x) noexcept {
  return {x.data, 1, x.size, x.size * x.stride, x.stride};
}
}  // namespace detail

/// Activations with a transform undone, laid out for packed codes: made by Linear::prepare(), read
/// by every Linear whose weights carry the same transform.
class Activations {
 public:
  /// X [n, dim], the transform undone already, for weights of `bits` bits.
  Activations(View<const float> X, int bits, ActivationFormat format) {
    if (format.group < 0)
      raise(ErrorCode::invalid_argument,
            message("activations: group is ", format.group, ", must be positive or per_row"));
    const Index group = std::max<Index>(1, format.group == per_row ? X.cols : format.group);
    format_ = format;
    if (format.precision == ActivationPrecision::fp32)
      packed_.emplace<kernel::PackedActivations<float>>(X, bits);
    else packed_.emplace<kernel::PackedActivations<std::int8_t>>(X, bits, group);
  }

  Index count() const noexcept { return values().rows; }
  Index dim() const noexcept { return values().cols; }
  ActivationFormat format() const noexcept { return format_; }
  /// What the weights are multiplied by: the transformed activations, rounded where they are int8.
  View<const float> values() const noexcept {
    return std::visit([](const auto& x) { return x.values(); }, packed_);
  }

 private:
  template <Transform T, class Q>
  friend class Linear;

  ActivationFormat format_;
  std::variant<kernel::PackedActivations<float>, kernel::PackedActivations<std::int8_t>> packed_;
};

namespace detail {

/// What a layer offers. Derived has two functions of its own, in which the transform does not
/// occur:
///   arrange(X)                         activations as it multiplies them
///   multiply_arranged(x, Y, executor)  Y ← X X̂ᵀ 2^exponent
template <class Derived, Transform T, class Q>
class LinearBase {
 public:
  Index in() const noexcept { return weights_.cols(); }
  Index out() const noexcept { return weights_.rows(); }
  const Quantized<T, Q>& weights() const noexcept { return weights_; }
  ActivationFormat format() const noexcept { return format_; }

  /// y ← Ŵ x for vectors x [in] and y [out]: spans, contiguous containers, or one-row or one-column
  /// matrices, float elements.
  template <class X, class Y>
    requires(!std::is_same_v<std::remove_cvref_t<X>, Activations>)
  void multiply(X&& x, Y&& y, ExecutorRef executor = {}) const {
    multiply_batch(one_row(as_vector(std::forward<X>(x))), one_row(as_vector(std::forward<Y>(y))),
                   executor);
  }
  /// Y ← X Ŵᵀ: one activation a row, X [n, in], Y [n, out]. Memory: two or three copies of X and a
  /// few rows of parameters a worker.
  void multiply_batch(View<const float> X, View<float> Y, ExecutorRef executor = {}) const {
    check_input(X, "multiply");
    check_result(X.rows, Y);
    multiply_batch(prepare_batch(X, executor), Y, executor);
  }

  /// x [in] with the transform undone, in this layer's format: for multiply() of this layer and of
  /// all whose weights carry the same transform.
  template <class X>
  Activations prepare(X&& x, ExecutorRef executor = {}) const {
    return prepare_batch(one_row(as_vector(std::forward<X>(x))), executor);
  }
  /// The same for the rows of X [n, in].
  Activations prepare_batch(View<const float> X, ExecutorRef executor = {}) const {
    check_input(X, "prepare");
    if (weights_.side() == Side::output) return self().arrange(X);
    Matrix<float> inputs = to_matrix<float>(X);
    undo_(weights_.transform(), inputs.view(), executor);
    return self().arrange(std::as_const(inputs).view());
  }

  /// y ← Ŵ x for one prepared vector. Activations that were laid out for other codes are laid out
  /// anew.
  template <class Y>
  void multiply(const Activations& x, Y&& y, ExecutorRef executor = {}) const {
    multiply_batch(x, one_row(as_vector(std::forward<Y>(y))), executor);
  }
  /// The same for several.
  void multiply_batch(const Activations& x, View<float> Y, ExecutorRef executor = {}) const {
    if (x.dim() != in())
      raise(ErrorCode::invalid_shape,
            message("multiply: x has ", x.dim(), " entries, the weights ", in(), " columns"));
    check_result(x.count(), Y);
    self().multiply_arranged(x, Y, executor);
    if (weights_.side() == Side::input) return;
    if (Y.rows_contiguous()) return undo_(weights_.transform(), Y, executor);
    Matrix<float> results = to_matrix<float>(Y);
    undo_(weights_.transform(), results.view(), executor);
    copy(std::as_const(results).view(), Y);
  }

 protected:
  LinearBase(Quantized<T, Q> weights, ActivationFormat format)
      : weights_(std::move(weights)),
        format_(format),
        undo_(weights_.transform(), weights_.side()) {}

  Quantized<T, Q> weights_;
  ActivationFormat format_;

 private:
  const Derived& self() const noexcept { return static_cast<const Derived&>(*this); }

  void check_input(View<const float> X, std::string_view what) const {
    check_view(X, "x");
    if (X.cols != in())
      raise(ErrorCode::invalid_shape,
            message(what, ": x has ", X.cols, " entries, the weights ", in(), " columns"));
  }
  void check_result(Index count, View<float> Y) const {
    check_view(Y, "y");
    if (Y.cols != out() || Y.rows != count)
      raise(ErrorCode::invalid_shape,
            message("multiply: y is ", Y.rows, " x ", Y.cols, ", expected ", count, " x ", out()));
  }

  UndoTransform<T> undo_;
};

}  // namespace detail

}  // namespace cafeq
