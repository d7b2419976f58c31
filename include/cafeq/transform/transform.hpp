/// What a transform is: an invertible [dim, dim] matrix M that is applied, undone and stored
/// without being formed.
///
/// `W M` is quantized and `M⁻¹` is undone. A transform implements one operation, X ← X·op(M) on
/// rows in place; the left side is the right side of the transposed view. Specs (a BlockHadamard
/// with no dimension yet, a dual scaling, a learned block-diagonal) become transforms by fit().
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "cafeq/core/executor.hpp"
#include "cafeq/core/fault.hpp"
#include "cafeq/core/matrix.hpp"
#include "cafeq/core/scale.hpp"

namespace cafeq {

/// Which matrix made of M is meant.
enum class Op {
  forward,            ///< M
  inverse,            ///< M⁻¹
  transpose,          ///< Mᵀ
  inverse_transpose,  ///< M⁻ᵀ
};

constexpr Op transposed(Op op) noexcept {
  switch (op) {
    case Op::forward: return Op::transpose;
    case Op::inverse: return Op::inverse_transpose;
    case Op::transpose: return Op::forward;
    default: return Op::inverse;
  }
}

/// A transform of known dimension.
///   dim()                 rows and columns of M
///   apply(X, op)          X ← X·op(M), in place; X [n, dim()] of any strides, float or double
///   is_orthogonal()       whether M⁻¹ = Mᵀ, so that errors keep their size
///   storage_bits()        what inference must store to undo M
template <class T>
concept Transform = requires(const T& t, View<float> x, View<double> y, Op op) {
  { t.dim() } -> std::convertible_to<Index>;
  t.apply(x, op);
  t.apply(y, op);
  { t.is_orthogonal() } -> std::same_as<bool>;
  { t.storage_bits() } -> std::convertible_to<std::int64_t>;
};

namespace detail {
template <class S>
using FittedOf = decltype(std::declval<const S&>().fit(std::declval<View<const float>>(),
                                                       std::declval<ExecutorRef>()));
}

/// Something that becomes a transform once it sees the matrix whose columns it acts on. A spec that
/// looks at the shape of W alone says so with `static constexpr bool depends_on_weights = false`,
/// which saves compositions a copy of W. One that does not fit every matrix has
/// fault(rows, cols), which says so before any work is done (core/fault.hpp).
template <class S>
concept TransformSpec = Transform<S> || requires { requires Transform<detail::FittedOf<S>>; };

namespace detail {
template <class S>
struct FittedTransformOf {
  using type = std::remove_cvref_t<FittedOf<S>>;
};
template <Transform S>
struct FittedTransformOf<S> {
  using type = S;
};
}  // namespace detail

/// What a spec becomes; a transform of known dimension stays what it is.
template <TransformSpec S>
using FittedTransform = typename detail::FittedTransformOf<S>::type;

/// The transform that a spec becomes for W [n, dim].
template <TransformSpec S>
FittedTransform<S> fit_transform(const S& spec, View<const float> W, ExecutorRef executor = {}) {
  cafeq::check(spec, W.rows, W.cols);
  if constexpr (Transform<S>) return spec;
  else return spec.fit(W, executor);
}

/// A spec that reads weights where they lie: any element type, layout and magnitude. Its fit() is a
/// template; where that names its result, asking compiles no more than the declaration.
template <class S>
concept FitsAnyView = !Transform<S> && requires(const S& spec, View<const fp16> a,
                                                View<const double> b, ExecutorRef executor) {
  spec.fit(a, executor);
  spec.fit(b, executor);
};

namespace detail {

/// A spec fitted to weights as a caller has them. One that is written for floats alone is given a
/// dense copy whose largest magnitude lies in [1, 2).
template <TransformSpec S, class T>
FittedTransform<S> fit_to_weights(const S& spec, View<const T> W, ExecutorRef executor = {}) {
  cafeq::check(spec, W.rows, W.cols);
  if constexpr (Transform<S>) {
    return spec;
  } else if constexpr (FitsAnyView<S>) {
    return spec.fit(W, executor);
  } else {
    const Matrix<float> dense = normalized(W, executor);
    return spec.fit(dense.view(), executor);
  }
}

}  // namespace detail

/// A spec that says what the transform that it fits to `dim` columns will store: storage_bits(dim).
/// (A constant matrix may take less.)
template <class S>
concept PlansStorage = TransformSpec<S> && requires(const S& spec, Index dim) {
  { spec.storage_bits(dim) } -> std::convertible_to<std::int64_t>;
};

/// X ← X·op(M), rows in parallel.
template <Transform T, class E>
void apply_right(const T& t, View<E> X, Op op = Op::forward, ExecutorRef executor = {}) {
  if (X.cols != t.dim())
    raise(ErrorCode::invalid_shape,
          message("apply_right: ", X.cols, " columns, but the transform has dimension ",
                  Index(t.dim())));
  // Rows enough for a block product to share its factors, or, where they lie side by side, for a
  // stretch of memory worth fetching.
  const Index grain =
      std::max<Index>(X.row_stride == 1 ? 128 : 48, 131072 / std::max<Index>(1, X.cols));
  executor.parallel_for(X.rows, grain, [&](Index begin, Index end, Index) {
    t.apply(X.row_block(begin, end - begin), op);
  });
}

/// X ← op(M)·X, columns in parallel.
template <Transform T, class E>
void apply_left(const T& t, View<E> X, Op op = Op::forward, ExecutorRef executor = {}) {
  if (X.rows != t.dim())
    raise(
        ErrorCode::invalid_shape,
        message("apply_left: ", X.rows, " rows, but the transform has dimension ", Index(t.dim())));
  apply_right(t, X.transposed(), transposed(op), executor);  // op(M)·X = (Xᵀ·op(M)ᵀ)ᵀ
}

/// op(M) as a dense matrix: for tests and for metrics.
template <class E, Transform T>
Matrix<E> to_dense(const T& t, Op op = Op::forward) {
  auto result = identity_matrix<E>(t.dim());
  t.apply(result.view(), op);
  return result;
}

/// M = I: nothing to do, nothing to store. A spec and a transform of every dimension.
struct Identity {
  static constexpr bool depends_on_weights = false;
  struct Fitted {
    Index size = 0;
    Index dim() const noexcept { return size; }
    template <class E>
    void apply(View<E>, Op) const noexcept {}
    bool is_orthogonal() const noexcept { return true; }
    std::int64_t storage_bits() const noexcept { return 0; }
  };
  template <class T>
  Fitted fit(View<const T> W, ExecutorRef = {}) const noexcept {
    return {W.cols};
  }
  static constexpr std::int64_t storage_bits(Index) noexcept { return 0; }
};

namespace detail {

/// Raises where X has not as many columns as a transform has dimensions.
inline void check_columns(Index cols, Index dim, const char* name) {
  if (cols != dim)
    raise(ErrorCode::invalid_shape,
          message(name, ": X has ", cols, " columns, but the transform has dimension ", dim));
}

/// Runs f on dense row panels of X: X itself where its rows are contiguous, copies of a few rows at
/// a time elsewhere.
template <class E, class F>
void on_row_panels(View<E> X, F&& f) {
  if (X.empty()) return;
  if (X.rows_contiguous()) return f(X);
  const Index step = std::min<Index>(X.rows, 64);
  Matrix<E> panel(step, X.cols);
  for (Index i = 0; i < X.rows; i += step) {
    const Index n = std::min(step, X.rows - i);
    const View<E> rows = panel.view().row_block(0, n);
    copy(X.row_block(i, n), rows);
    f(rows);
    copy(rows, X.row_block(i, n));
  }
}

}  // namespace detail
}  // namespace cafeq
