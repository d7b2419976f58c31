/// The canonical form of two matrices that meet in the graph, and the error of their product.
///
/// Both factors are seen inner dimension first: `first` F₁ [heads·d, n₁] and `second` F₂
/// [kv_heads·d, n₂], as (transposed) views of what the model stores. Head h of the first meets head
/// kv(h) = h / (heads / kv_heads) of the second, and the product of head h is P_h = F₁ₕᵀ F₂ₖᵥ₍ₕ₎
/// [n₁, n₂]:
///   output/value   F₁ = W_oᵀ,    F₂ = W_v     P_h is what head h does to the tokens that it
///                  attends to
///   query/key      F₁ = W_q,     F₂ = W_k     P_h is the bilinear form of its scores
///   down/up        F₁ = W_downᵀ, F₂ = W_up    one head of dimension 1 a channel, since each
///                  channel is gated on its own
#pragma once

#include <vector>

#include "cafeq/core/executor.hpp"
#include "cafeq/core/fault.hpp"
#include "cafeq/core/matrix.hpp"
#include "cafeq/loss/error_and_norm.hpp"
#include "cafeq/loss/head_grams.hpp"
#include "cafeq/loss/head_layout.hpp"

namespace cafeq {

/// Σ_h ‖P_h − P̂_h‖² against Σ_h ‖P_h‖², in fp64 and without forming a product. With D = F − F̂
/// (exact in fp64),
///   ‖P_h − P̂_h‖² = ⟨D₁D₁ᵀ, F₂F₂ᵀ⟩ + 2⟨D₁F̂₁ᵀ, F₂D₂ᵀ⟩ + ⟨F̂₁F̂₁ᵀ, D₂D₂ᵀ⟩,
/// so that a small error is a sum of small terms, not a difference of large ones. Both factors are
/// best given in the basis of the exact ones: factors that differ by an M and its inverse cancel,
/// to about 1e-16 of ‖D₁‖²‖F₂‖². Five d × d Gram matrices a head and call.
/// Keeps views of the exact factors, which must outlive it; scratch: three heads of one factor in
/// fp64 a worker.
template <class T>
class PairProduct {
 public:
  PairProduct(View<const T> first, View<const T> second, HeadLayout layout,
              ExecutorRef executor = {});

  const HeadLayout& layout() const noexcept { return layout_; }
  /// Σ_h ‖P_h‖².
  double squared_norm() const noexcept { return squared_norm_; }

  /// Σ_h ‖P_h − P̂_h‖²; not a number where a factor holds NaN.
  template <class U, class V>
  double squared_error(View<U> first, View<V> second, ExecutorRef executor = {}) const;

  /// squared_error() / squared_norm(); for a product of zero norm 0 or infinity.
  template <class U, class V>
  double relative_error(View<U> first, View<V> second, ExecutorRef executor = {}) const {
    return ErrorAndNorm{.error = squared_error(first, second, executor), .norm = squared_norm_}
        .relative();
  }

 private:
  View<const T> first_;
  View<const T> second_;
  HeadLayout layout_;
  std::vector<Matrix<double>> second_grams_;  // F₂F₂ᵀ [d, d] of each KV head
  double squared_norm_ = 0;
};

/// Σ_h ‖P_h − P̂_h‖² / Σ_h ‖P_h‖² for factors in the canonical form.
template <MatrixView A, MatrixView B, MatrixView Ah, MatrixView Bh>
double pair_error(A&& first, B&& second, Ah&& first_hat, Bh&& second_hat, HeadLayout layout,
                  ExecutorRef executor = {}) {
  using T = typename decltype(as_view(first))::value_type;
  return PairProduct<T>(as_view(first), as_view(second), layout, executor)
      .relative_error(as_view(first_hat), as_view(second_hat), executor);
}

namespace detail {

/// A − B.
inline Matrix<double> difference(Matrix<double> A, const Matrix<double>& B) {
  for (Index i = 0; i < A.size(); ++i) A.data()[i] -= B.data()[i];
  return A;
}

}  // namespace detail

template <class T>
PairProduct<T>::PairProduct(View<const T> first, View<const T> second, HeadLayout layout,
                            ExecutorRef executor)
    : first_(first), second_(second), layout_(layout) {
  check(layout.fault());
  check_view(first, "first");
  check_view(second, "second");
  check(layout.first_fault(first.rows, "first"));
  check(layout.second_fault(second.rows, "second"));

  second_grams_ = detail::head_grams(second, layout.kv_heads, executor);
  const auto first_grams = detail::head_grams(first, layout.heads, executor);
  for (Index h = 0; h < layout.heads; ++h)
    squared_norm_ += detail::inner_product(first_grams[std::size_t(h)],
                                           second_grams_[std::size_t(layout.kv_head(h))]);
}

template <class T>
template <class U, class V>
double PairProduct<T>::squared_error(View<U> first, View<V> second, ExecutorRef executor) const {
  check_view(first, "first_hat");
  check_view(second, "second_hat");
  check_same_shape(first_, "first", first, "first_hat");
  check_same_shape(second_, "second", second, "second_hat");

  const Index d = layout_.head_dim;
  const Index together = detail::heads_together(d);

  struct SecondErrors {
    Matrix<double> cross;  // F₂D₂ᵀ
    Matrix<double> error;  // D₂D₂ᵀ
  };
  std::vector<SecondErrors> seconds(static_cast<std::size_t>(layout_.kv_heads));
  executor.parallel_for(layout_.kv_heads, together, [&](Index begin, Index end, Index) {
    const Index rows = (end - begin) * d;
    const auto exact = detail::widen_transposed(second_.row_block(begin * d, rows));
    const auto error =
        detail::difference(exact, detail::widen_transposed(second.row_block(begin * d, rows)));
    for (Index h = begin; h < end; ++h) {
      const auto F = exact.view().col_block((h - begin) * d, d);
      const auto D = error.view().col_block((h - begin) * d, d);
      seconds[std::size_t(h)] = {detail::head_cross_gram(F, D), detail::head_gram(D)};
    }
  });

  std::vector<double> errors(static_cast<std::size_t>(layout_.heads));
  executor.parallel_for(layout_.heads, together, [&](Index begin, Index end, Index) {
    const Index rows = (end - begin) * d;
    const auto hat = detail::widen_transposed(first.row_block(begin * d, rows));
    const auto error =
        detail::difference(detail::widen_transposed(first_.row_block(begin * d, rows)), hat);
    for (Index h = begin; h < end; ++h) {
      const auto F = hat.view().col_block((h - begin) * d, d);
      const auto D = error.view().col_block((h - begin) * d, d);
      const auto kv = std::size_t(layout_.kv_head(h));
      errors[std::size_t(h)] =
          detail::inner_product(detail::head_gram(D), second_grams_[kv]) +
          2.0 * detail::inner_product(detail::head_cross_gram(D, F), seconds[kv].cross) +
          detail::inner_product(detail::head_gram(F), seconds[kv].error);
    }
  });
  double sum = 0;
  for (const double e : errors) sum += e;
  return sum < 0 ? 0.0 : sum;  // rounding may leave a sum that cancels just below zero
}

}  // namespace cafeq
