/// Alternating rounding of two matrices that meet at an inner dimension (CafeQ, arXiv 2511.19705,
/// Algorithm 1).
#pragma once

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "cafeq/kernel/dense_product.hpp"
#include "cafeq/kernel/gram.hpp"
#include "cafeq/linalg/dense.hpp"
#include "cafeq/rounding/rounder.hpp"

namespace cafeq {

/// One factor of a pair as it is stored: X [rows, cols], whose `inner` side holds heads · d entries
/// of the shared dimension. A value, query or key projection has its heads on the output side
/// (rows), an output projection on the input side (columns).
struct PairFactor {
  View<const float> X;
  Side inner = Side::output;
  Index heads = 1;

  /// [heads · d, n]: the shared dimension first.
  View<const float> inner_first() const noexcept {
    return inner == Side::output ? X : X.transposed();
  }
  Index head_dim() const noexcept { return inner_first().rows / heads; }
};

namespace detail {

/// F_h F_hᵀ of each head, [d, d], in fp64.
inline std::vector<Matrix<double>> head_squares(View<const float> factor, Index heads,
                                                ExecutorRef executor) {
  const Index d = factor.rows / heads;
  std::vector<Matrix<double>> squares(static_cast<std::size_t>(heads));
  for_each(executor, heads, [&](Index h, Index) {
    squares[std::size_t(h)] = kernel::gram<float>(factor.row_block(h * d, d).transposed());
  });
  return squares;
}

/// A rounded factor Q beside the exact F, head by head in fp64: what the other factor's rounding
/// and the error of the product are found from.
struct RoundedGrams {
  std::vector<Matrix<double>> G;  ///< Q_h Q_hᵀ
  std::vector<Matrix<double>> C;  ///< Q_h F_hᵀ

  RoundedGrams(View<const float> exact, View<const float> rounded, Index heads,
               ExecutorRef executor)
      : G(head_squares(rounded, heads, executor)), C(static_cast<std::size_t>(heads)) {
    const Index d = exact.rows / heads;
    for_each(executor, heads, [&](Index h, Index) {
      C[std::size_t(h)] = kernel::cross_gram<float>(rounded.row_block(h * d, d).transposed(),
                                                    exact.row_block(h * d, d).transposed());
    });
  }
};

/// Σ_h ⟨A_h, B_h⟩, the heads of the set with fewer shared by groups of the other.
inline double inner_product_of_heads(const std::vector<Matrix<double>>& A,
                                     const std::vector<Matrix<double>>& B) {
  const std::size_t heads = std::max(A.size(), B.size());
  double sum = 0;
  for (std::size_t h = 0; h < heads; ++h) {
    const Matrix<double>& a = A[h / (heads / A.size())];
    const Matrix<double>& b = B[h / (heads / B.size())];
    for (Index i = 0; i < a.size(); ++i) sum += a.data()[i] * b.data()[i];
  }
  return sum;
}

/// What one factor's rounding makes of the other: the metric, and K such that K_h F_h is the
/// least-squares target of head h.
struct PartnerView {
  Metric metric;
  std::vector<Matrix<double>> K;
};

/// `partner` are the Gram matrices of one factor, `heads` the number of heads of the other. Head h
/// of the factor with more heads meets head h / (ratio) of the one with fewer: a factor with fewer
/// heads sums over the group that reads it.
CAFEQ_LAZY PartnerView view_of_partner(const RoundedGrams& partner, Index heads,
                                       ExecutorRef executor) {
  const Index partner_heads = Index(partner.G.size());
  const Index d = partner.G[0].rows();
  std::vector<Matrix<double>> G(std::size_t(heads), Matrix<double>(d, d));
  PartnerView result;
  result.K.resize(std::size_t(heads));
  std::vector<char> solved(static_cast<std::size_t>(heads));
  for_each(executor, heads, [&](Index h, Index) {
    const Index first =
        heads >= partner_heads ? h / (heads / partner_heads) : h * (partner_heads / heads);
    const Index count = heads >= partner_heads ? 1 : partner_heads / heads;
    Matrix<double> C(d, d);
    for (Index p = first; p < first + count; ++p)
      for (Index i = 0; i < d * d; ++i) {
        G[std::size_t(h)].data()[i] += partner.G[std::size_t(p)].data()[i];
        C.data()[i] += partner.C[std::size_t(p)].data()[i];
      }
    linalg::add_ridge(G[std::size_t(h)], 1e-6);
    if (auto K = linalg::solve_spd(G[std::size_t(h)].view(), C.view())) {
      result.K[std::size_t(h)] = std::move(*K);
      solved[std::size_t(h)] = 1;
    }
  });
  for (Index h = 0; h < heads; ++h)
    if (!solved[std::size_t(h)])
      raise(ErrorCode::not_positive_definite,
            message("alternating rounding: the Gram matrix of head ", h,
                    " is not positive definite"));
  result.metric = Metric::block_diagonal(std::move(G));
  return result;
}

/// blockdiag(K)·F in the stored orientation of the factor.
inline void least_squares_target(const PairFactor& factor, const std::vector<Matrix<double>>& K,
                                 View<float> target, ExecutorRef executor) {
  const Index d = factor.head_dim();
  detail::for_each(executor, factor.heads, [&](Index h, Index) {
    const auto k = to_matrix<float>(K[std::size_t(h)].view());
    if (factor.inner == Side::output)
      kernel::multiply<float>(k.view(), factor.X.row_block(h * d, d), target.row_block(h * d, d));
    else
      kernel::multiply<float>(factor.X.col_block(h * d, d), k.view().transposed(),
                              target.col_block(h * d, d));
  });
}

}  // namespace detail

/// The two roundings, and the relative error Σ_h ‖P_h − P̂_h‖² / Σ_h ‖P_h‖² of their product, P_h =
/// F1_hᵀ F2_h.
template <class Q>
struct AlternatedPair {
  Encoding<Q> first;
  Encoding<Q> second;
  double nearest_error = 0;     ///< of the nearest codes, before the first alternation
  double error = 0;             ///< of what is returned
  std::vector<double> history;  ///< after each alternation; history.back() need not be the best
};

/// Alternates: with one factor rounded, the best unquantized partner is the least-squares target
/// (fp64, ridge 1e-6 of the mean diagonal), which the rounder rounds in the metric of the rounded
/// factor's Gram matrix; then the other way round. Scales start from a fit to the given factors
/// (balance and transform them first) and are refitted inside the rounder. The best of
/// `alternations` is kept; it ends early once three in a row lower the least error by less than 0.1
/// %. Heads of the factor with more heads pair up with the one that they share.
/// The error is ‖P‖² − 2⟨C1, C2⟩ + ⟨G1, G2⟩ with the Gram matrices that the alternation needs
/// anyway: exact to about 1e-14 of ‖P‖².
/// Memory: one matrix like each factor for the target, one for the rounding, and the codes.
template <class Q, RounderFor<Q> R>
AlternatedPair<Q> alternate(const PairFactor& first, const PairFactor& second, const Q& quantizer,
                            const R& rounder, int alternations, ExecutorRef executor = {}) {
  struct State {
    const PairFactor& factor;
    Encoding<Q> encoding;
    Matrix<float> target;
    Matrix<float> rounded;

    State(const PairFactor& f, const Q& q, ExecutorRef e)
        : factor(f),
          encoding(for_lines(q, f.inner), f.X.rows, f.X.cols),
          target(f.X.rows, f.X.cols),
          rounded(f.X.rows, f.X.cols) {
      encoding.fit(f.X, e);
      encoding.encode(f.X, e);
      encoding.decode(rounded.view(), e);
    }
    detail::RoundedGrams grams(ExecutorRef e) const {
      return {factor.inner_first(),
              PairFactor{rounded.view(), factor.inner, factor.heads}.inner_first(), factor.heads,
              e};
    }

    /// Rounds this factor again, given the other one's rounding.
    void improve(const detail::RoundedGrams& partner, const R& r, ExecutorRef e) {
      const auto view = detail::view_of_partner(partner, factor.heads, e);
      detail::least_squares_target(factor, view.K, target.view(), e);
      r.round(target.view(), view.metric, factor.inner, encoding, e);
      encoding.decode(rounded.view(), e);
    }
  };

  State a(first, quantizer, executor);
  State b(second, quantizer, executor);
  const double norm = detail::inner_product_of_heads(
      detail::head_squares(first.inner_first(), first.heads, executor),
      detail::head_squares(second.inner_first(), second.heads, executor));
  const auto relative = [norm](const detail::RoundedGrams& x, const detail::RoundedGrams& y) {
    const double error = std::max(norm - 2 * detail::inner_product_of_heads(x.C, y.C) +
                                      detail::inner_product_of_heads(x.G, y.G),
                                  0.0);
    if (norm > 0 || error != error) return error / norm;
    return error > 0 ? std::numeric_limits<double>::infinity() : 0.0;
  };
  auto b_grams = b.grams(executor);
  const double nearest = relative(a.grams(executor), b_grams);
  AlternatedPair<Q> best{a.encoding, b.encoding, nearest, nearest, {}};
  int idle = 0;
  for (int round = 0; round < alternations && idle < 3; ++round) {
    a.improve(b_grams, rounder, executor);
    const auto a_grams = a.grams(executor);
    b.improve(a_grams, rounder, executor);
    b_grams = b.grams(executor);
    const double now = relative(a_grams, b_grams);
    best.history.push_back(now);
    idle = now < 0.999 * best.error ? 0 : idle + 1;
    if (now < best.error) {
      best.first = a.encoding;
      best.second = b.encoding;
      best.error = now;
    }
  }
  return best;
}

}  // namespace cafeq
