/// The one operation behind every pair: F₁ ← M⁻ᵀ F₁ and F₂ ← M F₂, head by head, which leaves each
/// product P_h = F₁ₕᵀ F₂ₖᵥ₍ₕ₎ unchanged.
///
/// The canonical factors are those of loss/pair_product.hpp.
#pragma once

#include <string_view>
#include <type_traits>
#include <utility>

#include "cafeq/core/executor.hpp"
#include "cafeq/core/fault.hpp"
#include "cafeq/core/matrix.hpp"
#include "cafeq/kernel/dense_product.hpp"
#include "cafeq/linalg/dense.hpp"
#include "cafeq/loss/head_layout.hpp"
#include "cafeq/pair/bias.hpp"

namespace cafeq {

/// An invertible M [d, d] for each KV head, and its inverse, in fp64.
class HeadTransform {
 public:
  /// M = I.
  explicit HeadTransform(HeadLayout layout);

  /// `M` [kv_heads · d, d] holds the matrices one below the other; their inverses are computed.
  /// Raises `singular` where there is none.
  template <class Arch = DefaultArch>
  HeadTransform(HeadLayout layout, Matrix<double> M);
  template <MatrixView Dense>
    requires(!std::is_same_v<std::remove_cvref_t<Dense>, Matrix<double>>)
  HeadTransform(HeadLayout layout, Dense&& M)
      : HeadTransform(layout, to_matrix<double>(as_view(M))) {}

  /// For callers who know the inverses, stacked alike; only shapes and finiteness are checked.
  static HeadTransform with_inverse(HeadLayout layout, Matrix<double> M, Matrix<double> inverse);

  const HeadLayout& layout() const noexcept { return layout_; }
  View<const double> matrix(Index kv_head) const noexcept { return head(forward_, kv_head); }
  View<const double> inverse(Index kv_head) const noexcept { return head(inverse_, kv_head); }
  bool is_diagonal() const noexcept;

  /// F₁ ← M⁻ᵀ F₁ in place, F₁ [heads · d, n] of any strides; sums in fp64, rounded once.
  template <class T>
  void apply_first(View<T> first, ExecutorRef executor = {}) const;
  /// F₂ ← M F₂ in place, F₂ [kv_heads · d, n] of any strides.
  template <class T>
  void apply_second(View<T> second, ExecutorRef executor = {}) const;
  template <class T>
  void apply_first(VectorView<T> bias) const {
    apply_first(detail::as_column(bias));
  }
  template <class T>
  void apply_second(VectorView<T> bias) const {
    apply_second(detail::as_column(bias));
  }

  /// This transform and `next` after it: next.M · M.
  template <class Arch = DefaultArch>
  HeadTransform then(const HeadTransform& next) const;

 private:
  void check_stacked(const Matrix<double>& M, std::string_view name) const;
  View<const double> head(const Matrix<double>& stacked, Index kv_head) const noexcept {
    return stacked.view().row_block(kv_head * layout_.head_dim, layout_.head_dim);
  }
  template <class T, class Select>
  void apply(View<T> F, Index heads, ExecutorRef executor, Select select) const;

  HeadLayout layout_;
  Matrix<double> forward_;
  Matrix<double> inverse_;
};

inline HeadTransform::HeadTransform(HeadLayout layout) : layout_(layout) {
  check(layout.fault());
  forward_ = Matrix<double>(layout.kv_heads * layout.head_dim, layout.head_dim);
  for (Index i = 0; i < forward_.rows(); ++i) forward_(i, i % layout.head_dim) = 1.0;
  inverse_ = forward_;
}

template <class Arch>
HeadTransform::HeadTransform(HeadLayout layout, Matrix<double> M)
    : layout_(layout), forward_(std::move(M)) {
  check(layout.fault());
  check_stacked(forward_, "M");
  inverse_ = Matrix<double>(forward_.rows(), forward_.cols());
  const Index d = layout.head_dim;
  for (Index kv = 0; kv < layout.kv_heads; ++kv) {
    const auto inverted = linalg::inverse<Arch>(matrix(kv));
    if (!inverted)
      raise(ErrorCode::singular,
            message("M: the ", d, " x ", d, " matrix of KV head ", kv, " has no inverse"));
    copy(inverted->view(), inverse_.view().row_block(kv * d, d));
  }
}

inline HeadTransform HeadTransform::with_inverse(HeadLayout layout, Matrix<double> M,
                                                 Matrix<double> inverse) {
  HeadTransform result(layout);
  result.check_stacked(M, "M");
  result.check_stacked(inverse, "inverse");
  result.forward_ = std::move(M);
  result.inverse_ = std::move(inverse);
  return result;
}

inline void HeadTransform::check_stacked(const Matrix<double>& M, std::string_view name) const {
  check(layout_.second_fault(M.rows(), name));
  if (M.cols() != layout_.head_dim)
    raise(ErrorCode::invalid_shape,
          message(name, ": ", M.cols(), " columns, but head_dim is ", layout_.head_dim));
  check_finite(M.view(), name);
}

inline bool HeadTransform::is_diagonal() const noexcept {
  const Index d = layout_.head_dim;
  for (Index i = 0; i < forward_.rows(); ++i)
    for (Index j = 0; j < d; ++j)
      if (j != i % d && forward_(i, j) != 0.0) return false;
  return true;
}

template <class T>
void HeadTransform::apply_first(View<T> first, ExecutorRef executor) const {
  check_view(first, "first");
  check(layout_.first_fault(first.rows, "first"));
  apply(first, layout_.heads, executor,
        [this](Index h) { return inverse(layout_.kv_head(h)).transposed(); });
}

template <class T>
void HeadTransform::apply_second(View<T> second, ExecutorRef executor) const {
  check_view(second, "second");
  check(layout_.second_fault(second.rows, "second"));
  apply(second, layout_.kv_heads, executor, [this](Index kv) { return matrix(kv); });
}

template <class T, class Select>
void HeadTransform::apply(View<T> F, Index heads, ExecutorRef executor, Select select) const {
  const Index d = layout_.head_dim;
  constexpr Index step = 64;
  // All heads of a few columns at a time: in a transposed view neighbouring heads share cache
  // lines, which a worker then keeps to itself.
  executor.parallel_for(F.cols, step, [&](Index begin, Index end, Index) {
    const Index n = end - begin;
    Matrix<double> before(d, n);
    Matrix<double> after(d, n);
    for (Index h = 0; h < heads; ++h) {
      const auto panel = F.block(h * d, begin, d, n);
      copy(panel, before.view());
      kernel::multiply<double>(select(h), before.view(), after.view());  // [d, d] · [d, n]
      copy(after.view(), panel);
    }
  });
}

template <class Arch>
HeadTransform HeadTransform::then(const HeadTransform& next) const {
  const auto& other = next.layout();
  if (other.head_dim != layout_.head_dim || other.kv_heads != layout_.kv_heads)
    raise(ErrorCode::invalid_shape,
          message("next: ", other.kv_heads, " KV heads of dimension ", other.head_dim, " after ",
                  layout_.kv_heads, " of dimension ", layout_.head_dim));
  HeadTransform result(layout_);
  const Index d = layout_.head_dim;
  for (Index kv = 0; kv < layout_.kv_heads; ++kv) {
    kernel::multiply<double, Arch>(next.matrix(kv), matrix(kv),
                                   result.forward_.view().row_block(kv * d, d));
    kernel::multiply<double, Arch>(inverse(kv), next.inverse(kv),
                                   result.inverse_.view().row_block(kv * d, d));
  }
  return result;
}

namespace detail {

/// What is wrong with an M that was made for another layout.
inline std::optional<Error> same_layout_fault(const HeadLayout& a, const HeadLayout& b) {
  if (a.head_dim == b.head_dim && a.heads == b.heads && a.kv_heads == b.kv_heads)
    return std::nullopt;
  return Error(ErrorCode::invalid_shape,
               message("M: made for ", b.heads, " heads, ", b.kv_heads, " KV heads of dimension ",
                       b.head_dim, ", the layout is ", a.heads, ", ", a.kv_heads, " of dimension ",
                       a.head_dim));
}

}  // namespace detail
}  // namespace cafeq
