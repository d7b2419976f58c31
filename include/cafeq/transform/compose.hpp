/// a * b: apply a, then b. M = M_a·M_b; of specs, a is fitted to W and b to what a makes of W.
#pragma once

#include <algorithm>
#include <optional>
#include <utility>

#include "cafeq/transform/transform.hpp"

namespace cafeq {

/// The product of two transforms of one dimension.
template <Transform A, Transform B>
class Composed {
 public:
  Composed(A first, B second) : first_(std::move(first)), second_(std::move(second)) {
    if (first_.dim() != second_.dim())
      raise(ErrorCode::invalid_shape, message("a * b: a has dimension ", Index(first_.dim()),
                                              " but b has ", Index(second_.dim())));
  }

  Index dim() const noexcept { return first_.dim(); }
  const A& first() const noexcept { return first_; }
  const B& second() const noexcept { return second_; }

  template <class E>
  void apply(View<E> X, Op op = Op::forward) const {
    detail::check_columns(X.cols, dim(), "a * b");
    // (M_a M_b)⁻¹ = M_b⁻¹ M_a⁻¹, and so for the transpose.
    const bool first_is_first = op == Op::forward || op == Op::inverse_transpose;

    // Rows run through both while they are in cache; what is not row by row in memory is left to
    // the two.
    const Index step = X.rows_contiguous()
                           ? std::clamp<Index>(panel_elements / std::max<Index>(1, X.cols), 4, 64)
                           : std::max<Index>(1, X.rows);
    for (Index i = 0; i < X.rows; i += step) {
      const View<E> rows = X.row_block(i, std::min(step, X.rows - i));
      if (first_is_first) first_.apply(rows, op);
      second_.apply(rows, op);
      if (!first_is_first) first_.apply(rows, op);
    }
  }
  bool is_orthogonal() const noexcept { return first_.is_orthogonal() && second_.is_orthogonal(); }
  std::int64_t storage_bits() const noexcept {
    return first_.storage_bits() + second_.storage_bits();
  }

 private:
  static constexpr Index panel_elements = 65536;  // 256 KiB of floats

  A first_;
  B second_;
};

namespace detail {

/// Whether fitting a spec reads more of W than its shape; a spec says no by `static constexpr bool
/// depends_on_weights = false`.
template <TransformSpec S>
consteval bool depends_on_weights() {
  if constexpr (Transform<S>) return false;
  else if constexpr (requires { S::depends_on_weights; }) return S::depends_on_weights;
  else return true;
}

}  // namespace detail

/// The product of two specs, at least one of which waits for a matrix.
template <TransformSpec A, TransformSpec B>
struct ComposedSpec {
  static constexpr bool depends_on_weights =
      detail::depends_on_weights<A>() || detail::depends_on_weights<B>();
  A first;
  B second;

  std::optional<Error> fault(Index rows, Index cols) const {
    if (auto fault = fault_of(first, rows, cols)) return fault;
    return fault_of(second, rows, cols);
  }

  /// W of any element type. Memory: one copy of W in floats, unless b does not look at the weights.
  template <class T>
  Composed<FittedTransform<A>, FittedTransform<B>> fit(View<T> weights,
                                                       ExecutorRef executor = {}) const {
    const View<const T> W = weights;
    auto a = detail::fit_to_weights(first, W, executor);
    if constexpr (!detail::depends_on_weights<B>()) {
      return {std::move(a), detail::fit_to_weights(second, W, executor)};
    } else {
      auto transformed = detail::normalized(W, executor);
      apply_right(a, transformed.view(), Op::forward, executor);
      auto b = fit_transform(second, std::as_const(transformed).view(), executor);
      return {std::move(a), std::move(b)};
    }
  }
  std::int64_t storage_bits(Index dim) const
    requires(PlansStorage<A> && PlansStorage<B>)
  {
    return first.storage_bits(dim) + second.storage_bits(dim);
  }
};

template <class A, class B>
  requires TransformSpec<A> && TransformSpec<B>
auto operator*(A a, B b) {
  if constexpr (Transform<A> && Transform<B>) return Composed<A, B>(std::move(a), std::move(b));
  else return ComposedSpec<A, B>{std::move(a), std::move(b)};
}

}  // namespace cafeq
