/// Alternating rounding of two matrices that meet at an inner dimension (CafeQ, arXiv 2511.19705, Algorithm 1).
#pragma once

#include <algorithm>
#include <vector>

#include "cafeq/kernel/gram.hpp"
#include "cafeq/kernel/product.hpp"
#include "cafeq/linalg/dense.hpp"
#include "cafeq/rounding/rounder.hpp"

namespace cafeq {

/// One factor of a pair as it is stored: X [rows, cols], whose `inner` side holds heads · d entries of the shared dimension. A value, query or key
/// projection has its heads on the output side (rows), an output projection on the input side (columns).
struct PairFactor {
  View<const float> X;
  Side inner = Side::output;
  Index heads = 1;

  /// [heads · d, n]: the shared dimension first.
  View<const float> inner_first() const noexcept { return inner == Side::output ? X : X.transposed(); }
  Index head_dim() const noexcept { return inner_first().rows / heads; }
};

namespace detail {

/// What one factor's rounding makes of the other: the metric, and K such that K_h F_h is the least-squares target of head h.
struct PartnerView {
  Metric metric;
  std::vector<Matrix<double>> K;
};

/// `rounded` stands for `exact` (both [heads · d, n] of one factor); `heads` is the number of heads of the other factor. Head h of the factor with more
/// heads meets head h / (ratio) of the one with fewer: a factor with fewer heads sums over the group that reads it.
CAFEQ_LAZY PartnerView view_of_partner(View<const float> exact, View<const float> rounded, Index partner_heads, Index heads, ExecutorRef executor) {
  const Index d = exact.rows / partner_heads;
  std::vector<Matrix<double>> G(std::size_t(heads), Matrix<double>(d, d));
  std::vector<Matrix<double>> C(std::size_t(heads), Matrix<double>(d, d));
  detail::for_each(executor, heads, [&](Index h, Index) {
    const Index first = heads >= partner_heads ? h / (heads / partner_heads) : h * (partner_heads / heads);
    const Index count = heads >= partner_heads ? 1 : partner_heads / heads;
    for (Index p = first; p < first + count; ++p) {
      const auto Q = rounded.row_block(p * d, d).transposed();
      const auto g = kernel::gram<float>(Q);
      const auto c = kernel::cross_gram<float>(Q, exact.row_block(p * d, d).transposed());
      for (Index i = 0; i < d * d; ++i) {
        G[std::size_t(h)].data()[i] += g.data()[i];
        C[std::size_t(h)].data()[i] += c.data()[i];
      }
    }
    linalg::add_ridge(G[std::size_t(h)], 1e-6);
  });
  PartnerView result;
  for (Index h = 0; h < heads; ++h) {
    auto K = linalg::solve_spd(G[std::size_t(h)].view(), C[std::size_t(h)].view());
    if (!K) raise(ErrorCode::not_positive_definite, message("alternating rounding: the Gram matrix of head ", h, " is not positive definite"));
    result.K.push_back(std::move(*K));
  }
  result.metric = Metric::block_diagonal(std::move(G));
  return result;
}

/// blockdiag(K)·F in the stored orientation of the factor.
inline void least_squares_target(const PairFactor& factor, const std::vector<Matrix<double>>& K, View<float> target, ExecutorRef executor) {
  const Index d = factor.head_dim();
  detail::for_each(executor, factor.heads, [&](Index h, Index) {
    const auto k = to_matrix<float>(K[std::size_t(h)].view());
    if (factor.inner == Side::output)
      kernel::multiply<float>(k.view(), factor.X.row_block(h * d, d), target.row_block(h * d, d));
    else
      kernel::multiply<float>(factor.X.col_block(h * d, d), k.view().transposed(), target.col_block(h * d, d));
  });
}

}  // namespace detail

/// The two roundings, and the relative error of their product as `error` measures it.
template <Quantizer Q>
struct AlternatedPair {
  Encoding<Q> first;
  Encoding<Q> second;
  double error = 0;
  std::vector<double> history;  ///< after each alternation; history.back() need not be the best
};

/// Alternates: with one factor rounded, the best unquantized partner is the least-squares target (fp64, ridge 1e-6 of the mean diagonal), which the
/// rounder rounds in the metric of the rounded factor's Gram matrix; then the other way round. Scales start from a fit to the given factors (balance
/// and transform them first) and are refitted inside the rounder. The best of `alternations` is kept.
///   product   Σ_h F1_hᵀ F2_h: heads of the factor with more heads pair up with the one that they share
///   error     error(rounded first, rounded second), both inner-first [heads · d, n], decides which alternation is best
/// Memory: one matrix like each factor for the target, one for the rounding, and the codes.
template <Quantizer Q, RounderFor<Q> R, class F>
AlternatedPair<Q> alternate(const PairFactor& first, const PairFactor& second, const Q& quantizer, const R& rounder, int alternations, F&& error,
                            ExecutorRef executor = {}) {
  struct State {
    const PairFactor& factor;
    Encoding<Q> encoding;
    Matrix<float> target;
    Matrix<float> rounded;

    State(const PairFactor& f, const Q& q, ExecutorRef e)
        : factor(f), encoding(q, f.X.rows, f.X.cols), target(f.X.rows, f.X.cols), rounded(f.X.rows, f.X.cols) {
      encoding.fit(f.X, e);
      encoding.encode(f.X, e);
      encoding.decode(rounded.view(), e);
    }
    View<const float> inner_first() const { return PairFactor{rounded.view(), factor.inner, factor.heads}.inner_first(); }

    /// Rounds this factor again, given the other one's rounding.
    void improve(const State& partner, const R& r, ExecutorRef e) {
      const auto view =
          detail::view_of_partner(partner.factor.inner_first(), partner.inner_first(), partner.factor.heads, factor.heads, e);
      detail::least_squares_target(factor, view.K, target.view(), e);
      r.round(target.view(), view.metric, factor.inner, encoding, e);
      encoding.decode(rounded.view(), e);
    }
  };

  State a(first, quantizer, executor);
  State b(second, quantizer, executor);
  AlternatedPair<Q> best{a.encoding, b.encoding, error(a.inner_first(), b.inner_first()), {}};
  for (int round = 0; round < alternations; ++round) {
    a.improve(b, rounder, executor);
    b.improve(a, rounder, executor);
    const double now = error(a.inner_first(), b.inner_first());
    best.history.push_back(now);
    if (now < best.error) {
      best.first = a.encoding;
      best.second = b.encoding;
      best.error = now;
    }
  }
  return best;
}

}  // namespace cafeq
