/// Linear: packed weights times activations.
///
///   const Linear q{Wq, {.precision = ActivationPrecision::int8}}, k{Wk, …}, v{Wv, …};
///   const Activations x = q.prepare(h);  // the transform that the three share is undone once
///   q.multiply(x, yq); k.multiply(x, yk); v.multiply(x, yv);
#pragma once

#include <string_view>
#include <type_traits>
#include <utility>

#include "cafeq/pipeline/quantized.hpp"
#include "cafeq/product/product.hpp"
#include "cafeq/runtime/undo_transform.hpp"

namespace cafeq {

namespace detail {
template <class E>
View<E> one_row(VectorView<E> x) noexcept {
  return {x.data, 1, x.size, x.size * x.stride, x.stride};
}
}  // namespace detail

/// y = Ŵ x straight from packed codes: the transform is undone on x (or on y, for an output-side
/// transform), once a call or once for several layers; ProductOf<Q> does the rest and says with
/// which error. The same bits for any number of threads and of vectors together. Owns the quantized
/// matrix, and what undoes its transform fast.
template <Transform T, class Q>
class Linear {
 public:
  explicit Linear(Quantized<T, Q> weights, ActivationFormat format = {});

  Index in() const noexcept { return weights_.cols(); }
  Index out() const noexcept { return weights_.rows(); }
  const Quantized<T, Q>& weights() const noexcept { return weights_; }
  ActivationFormat format() const noexcept { return format_; }

  /// y ← Ŵ x for vectors x [in] and y [out]: spans, contiguous containers, or one-row or one-column
  /// matrices, float elements.
  template <class X, class Y>
    requires(!std::is_same_v<std::remove_cvref_t<X>, Activations>)
  void multiply(X&& x, Y&& y, ExecutorRef executor = {}) const {
    multiply_batch(detail::one_row(as_vector(std::forward<X>(x))),
                   detail::one_row(as_vector(std::forward<Y>(y))), executor);
  }
  /// Y ← X Ŵᵀ: one activation a row, X [n, in], Y [n, out]. Memory: two or three copies of X and a
  /// few rows of parameters a worker.
  void multiply_batch(View<const float> X, View<float> Y, ExecutorRef executor = {}) const;

  /// x [in] with the transform undone, in this layer's format: for multiply() of this layer and of
  /// all whose weights carry the same transform.
  template <class X>
  Activations prepare(X&& x, ExecutorRef executor = {}) const {
    return prepare_batch(detail::one_row(as_vector(std::forward<X>(x))), executor);
  }
  /// The same for the rows of X [n, in].
  Activations prepare_batch(View<const float> X, ExecutorRef executor = {}) const;

  /// y ← Ŵ x for one prepared vector. Activations that were laid out for other codes are laid out
  /// anew.
  template <class Y>
  void multiply(const Activations& x, Y&& y, ExecutorRef executor = {}) const {
    multiply_batch(x, detail::one_row(as_vector(std::forward<Y>(y))), executor);
  }
  /// The same for several.
  void multiply_batch(const Activations& x, View<float> Y, ExecutorRef executor = {}) const;

 private:
  Activations arrange(View<const float> X) const {
    return product_.arrange(weights_.codes(), X, format_);
  }
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

  Quantized<T, Q> weights_;
  ActivationFormat format_;
  UndoTransform<T> undo_;
  ProductOf<Q> product_;
};

template <Transform T, class Q>
Linear<T, Q>::Linear(Quantized<T, Q> weights, ActivationFormat format)
    : weights_(std::move(weights)),
      format_(format),
      undo_(weights_.transform(), weights_.side()),
      product_(weights_.codes()) {}

template <Transform T, class Q>
void Linear<T, Q>::multiply_batch(View<const float> X, View<float> Y, ExecutorRef executor) const {
  check_input(X, "multiply");
  check_result(X.rows, Y);
  multiply_batch(prepare_batch(X, executor), Y, executor);
}

template <Transform T, class Q>
Activations Linear<T, Q>::prepare_batch(View<const float> X, ExecutorRef executor) const {
  check_input(X, "prepare");
  if (weights_.side() == Side::output) return arrange(X);
  Matrix<float> inputs = to_matrix<float>(X);
  undo_(weights_.transform(), inputs.view(), executor);
  return arrange(std::as_const(inputs).view());
}

template <Transform T, class Q>
void Linear<T, Q>::multiply_batch(const Activations& x, View<float> Y, ExecutorRef executor) const {
  if (x.dim() != in())
    raise(ErrorCode::invalid_shape,
          message("multiply: x has ", x.dim(), " entries, the weights ", in(), " columns"));
  check_result(x.count(), Y);

  product_.multiply(weights_.codes(), x, format_, PowerOfTwo(weights_.exponent()), Y, executor);
  if (weights_.side() == Side::input) return;

  if (Y.rows_contiguous()) return undo_(weights_.transform(), Y, executor);
  Matrix<float> results = to_matrix<float>(Y);
  undo_(weights_.transform(), results.view(), executor);
  copy(std::as_const(results).view(), Y);
}

template <Transform T, class Q>
Linear(Quantized<T, Q>, ActivationFormat) -> Linear<T, Q>;
template <Transform T, class Q>
Linear(Quantized<T, Q>) -> Linear<T, Q>;

}  // namespace cafeq
