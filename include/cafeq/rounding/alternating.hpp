/// Alternating rounding of two matrices that meet at an inner dimension (CafeQ, arXiv 2511.19705,
/// Algorithm 1).
///
/// With one factor rounded, the best unquantized partner is a least-squares target, which is
/// rounded in the metric of the rounded factor's Gram matrix; then the other way round.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "cafeq/core/side.hpp"
#include "cafeq/kernel/dense_product.hpp"
#include "cafeq/linalg/dense.hpp"
#include "cafeq/loss/error_and_norm.hpp"
#include "cafeq/loss/head_grams.hpp"
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
  View<const float> inner_first() const noexcept { return detail::with_side_first(X, inner); }
  Index head_dim() const noexcept { return inner_first().rows / heads; }
};

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

namespace detail {

/// A rounded factor Q beside the exact F, head by head in fp64: what the other factor's rounding
/// and the error of the product are found from. Scratch: a head of both in fp64 a worker.
struct RoundedGrams {
  std::vector<Matrix<double>> G;  ///< Q_h Q_hᵀ
  std::vector<Matrix<double>> C;  ///< Q_h F_hᵀ

  template <class Arch = DefaultArch>
  RoundedGrams(View<const float> exact, View<const float> rounded, Index heads,
               ExecutorRef executor)
      : G(static_cast<std::size_t>(heads)), C(static_cast<std::size_t>(heads)) {
    const Index d = exact.rows / heads;
    executor.parallel_for(heads, heads_together(d), [&](Index begin, Index end, Index) {
      const Index rows = (end - begin) * d;
      const auto F = widen_transposed(exact.row_block(begin * d, rows));
      const auto Q = widen_transposed(rounded.row_block(begin * d, rows));
      for (Index h = begin; h < end; ++h) {
        const auto q = Q.view().col_block((h - begin) * d, d);
        G[std::size_t(h)] = head_gram<Arch>(q);
        C[std::size_t(h)] = head_cross_gram<Arch>(q, F.view().col_block((h - begin) * d, d));
      }
    });
  }
};

/// Σ_h ⟨A_h, B_h⟩, the heads of the set with fewer shared by groups of the other.
inline double inner_product_of_heads(const std::vector<Matrix<double>>& A,
                                     const std::vector<Matrix<double>>& B) {
  const std::size_t heads = std::max(A.size(), B.size());
  double sum = 0;
  for (std::size_t h = 0; h < heads; ++h)
    sum += inner_product(A[h / (heads / A.size())], B[h / (heads / B.size())]);
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
/// heads sums over all that read a head of it.
template <class Arch = DefaultArch>
PartnerView view_of_partner(const RoundedGrams& partner, Index heads, ExecutorRef executor) {
  const Index partner_heads = Index(partner.G.size());
  const Index d = partner.G[0].rows();
  const Index sharing = std::max<Index>(1, heads / partner_heads);  // one head of the partner
  const Index summed = std::max<Index>(1, partner_heads / heads);   // heads of it for each head

  std::vector<Matrix<double>> G(std::size_t(heads), Matrix<double>(d, d));
  PartnerView result;
  result.K.resize(std::size_t(heads));
  std::vector<char> solved(static_cast<std::size_t>(heads));
  for_each(executor, heads, [&](Index h, Index) {
    Matrix<double>& own = G[std::size_t(h)];
    Matrix<double> C(d, d);
    const Index first = h / sharing * summed;
    for (Index p = first; p < first + summed; ++p)
      for (Index i = 0; i < d * d; ++i) {
        own.data()[i] += partner.G[std::size_t(p)].data()[i];
        C.data()[i] += partner.C[std::size_t(p)].data()[i];
      }

    linalg::add_ridge(own, 1e-6);
    if (auto K = linalg::solve_spd<Arch>(own.view(), C.view())) {
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
template <class Arch = DefaultArch>
void least_squares_target(const PairFactor& factor, const std::vector<Matrix<double>>& K,
                          View<float> target, ExecutorRef executor) {
  const Index d = factor.head_dim();
  for_each(executor, factor.heads, [&](Index h, Index) {
    const auto k = to_matrix<float>(K[std::size_t(h)].view());
    if (factor.inner == Side::output)
      kernel::multiply<float, Arch>(k.view(), factor.X.row_block(h * d, d),
                                    target.row_block(h * d, d));
    else
      kernel::multiply<float, Arch>(factor.X.col_block(h * d, d), k.view().transposed(),
                                    target.col_block(h * d, d));
  });
}

/// A factor while it is rounded again and again, beginning with its nearest codes.
template <class Q>
class AlternatedFactor {
 public:
  AlternatedFactor(const PairFactor& factor, const Q& quantizer, ExecutorRef executor)
      : factor_(factor),
        encoding_(for_lines(quantizer, factor.inner), factor.X.rows, factor.X.cols),
        target_(factor.X.rows, factor.X.cols),
        rounded_(factor.X.rows, factor.X.cols) {
    encoding_.fit(factor.X, executor);
    encoding_.encode(factor.X, executor);
    encoding_.decode(rounded_.view(), executor);
  }

  const Encoding<Q>& encoding() const noexcept { return encoding_; }
  RoundedGrams grams(ExecutorRef executor) const {
    return {factor_.inner_first(), with_side_first(rounded_.view(), factor_.inner), factor_.heads,
            executor};
  }

  /// Rounds this factor again, given the other one's rounding.
  template <class R>
  void improve(const RoundedGrams& partner, const R& rounder, ExecutorRef executor) {
    const PartnerView view = view_of_partner(partner, factor_.heads, executor);
    least_squares_target(factor_, view.K, target_.view(), executor);
    rounder.round(std::as_const(target_).view(), view.metric, factor_.inner, encoding_, executor);
    encoding_.decode(rounded_.view(), executor);
  }

 private:
  const PairFactor& factor_;
  Encoding<Q> encoding_;
  Matrix<float> target_;
  Matrix<float> rounded_;
};

}  // namespace detail

/// Rounds the factors by turns. The target of one (fp64, ridge 1e-6 of the mean diagonal) is found
/// from the given factor, never from an earlier target, so errors do not add up. Scales start from
/// a fit to the given factors (balance and transform them first) and are refitted inside the
/// rounder. The best of `alternations` is kept; it ends early once three in a row lower the least
/// error by less than 0.1 %. Heads of the factor with more heads pair up with the one that they
/// share.
/// The error is ‖P‖² − 2⟨C1, C2⟩ + ⟨G1, G2⟩ with the Gram matrices that the alternation needs
/// anyway: exact to about 1e-14 of ‖P‖².
/// Memory: one matrix like each factor for the target, one for the rounding, and the codes.
template <class Q, RounderFor<Q> R>
AlternatedPair<Q> alternate(const PairFactor& first, const PairFactor& second, const Q& quantizer,
                            const R& rounder, int alternations, ExecutorRef executor = {}) {
  const double squared_norm = detail::inner_product_of_heads(
      detail::head_grams(first.inner_first(), first.heads, executor),
      detail::head_grams(second.inner_first(), second.heads, executor));
  const auto relative_error = [&](const detail::RoundedGrams& x, const detail::RoundedGrams& y) {
    const double error = squared_norm - 2 * detail::inner_product_of_heads(x.C, y.C) +
                         detail::inner_product_of_heads(x.G, y.G);
    return ErrorAndNorm{.error = std::max(error, 0.0), .norm = squared_norm}.relative();
  };

  detail::AlternatedFactor<Q> a(first, quantizer, executor);
  detail::AlternatedFactor<Q> b(second, quantizer, executor);
  detail::RoundedGrams b_grams = b.grams(executor);
  const double nearest = relative_error(a.grams(executor), b_grams);

  AlternatedPair<Q> best{a.encoding(), b.encoding(), nearest, nearest, {}};
  int idle = 0;
  for (int round = 0; round < alternations && idle < 3; ++round) {
    a.improve(b_grams, rounder, executor);
    const detail::RoundedGrams a_grams = a.grams(executor);
    b.improve(a_grams, rounder, executor);
    b_grams = b.grams(executor);

    const double now = relative_error(a_grams, b_grams);
    best.history.push_back(now);
    idle = now < 0.999 * best.error ? 0 : idle + 1;
    if (now < best.error) {
      best.first = a.encoding();
      best.second = b.encoding();
      best.error = now;
    }
  }
  return best;
}

}  // namespace cafeq
