/// Query and key projections: W_q ← M⁻ᵀ W_q, W_k ← M W_k, biases alike, which leaves every score
/// qᵀk unchanged.
///
/// Without rotary positions any invertible M per KV head will do. With them only an M that commutes
/// with every rotation: for each frequency pair a scaled rotation [[a, −b], [b, a]], and any block
/// among the coordinates that are not rotated.
#pragma once

#include <cmath>
#include <numbers>

#include "cafeq/core/scan.hpp"
#include "cafeq/pair/attention.hpp"
#include "cafeq/pair/balance.hpp"

namespace cafeq {

/// Biases of the query [heads · d] and the key projection [kv_heads · d]; leave empty what the
/// model has not.
template <class T>
struct QueryKeyBiases {
  VectorView<T> query{};
  VectorView<T> key{};
};

/// Whether every head's M commutes with the rotations, to 1e-6 of its largest entry.
inline bool commutes(const HeadTransform& M, const Rotary& rotary);

/// The nearest matrices (Frobenius) that commute: (a, b) of each pair by averaging, the block of
/// unrotated coordinates as it is, zero between them. A pair or a block that this makes singular
/// becomes the identity.
template <class Arch = DefaultArch>
HeadTransform project_to_commuting(const HeadTransform& M, const Rotary& rotary);

/// The commuting M that serves quantization best in closed form. Each frequency pair gets the scale
/// that equalises both factors' norms and the angle that minimises Σᵢ ‖q row i‖² ‖k row i‖², which
/// is what the product error grows with where each row has its own scale; the unrotated coordinates
/// are balanced as in balance().
template <MatrixView First, MatrixView Second>
HeadTransform balance_commuting(First&& first, Second&& second, HeadLayout layout,
                                const Rotary& rotary, BalanceOptions options = {},
                                ExecutorRef executor = {});

/// Why a layer takes no M between query and key at all, if so.
inline std::optional<Error> query_key_fault(const AttentionTraits& traits);

/// Why this M between query and key would change the scores, if so.
inline std::optional<Error> query_key_fault(const AttentionTraits& traits, const HeadTransform& M);

/// W_q [heads · d, in] ← M⁻ᵀ W_q, W_k [kv_heads · d, in] ← M W_k and their biases, in place.
template <MatrixView Query, MatrixView Key>
void transform_query_key(Query&& Wq, Key&& Wk, HeadLayout layout, const HeadTransform& M,
                         std::type_identity_t<QueryKeyBiases<detail::ElementOf<Query>>> biases = {},
                         const AttentionTraits& traits = {}, ExecutorRef executor = {}) {
  const auto query = as_view(Wq);
  const auto key = as_view(Wk);
  check(layout.fault());
  check(detail::same_layout_fault(layout, M.layout()));
  check_view(query, "Wq");
  check_view(key, "Wk");
  check(layout.first_fault(query.rows, "Wq"));
  check(layout.second_fault(key.rows, "Wk"));
  check(detail::bias_fault(biases.query, query.rows, "query bias"));
  check(detail::bias_fault(biases.key, key.rows, "key bias"));
  check(query_key_fault(traits, M));

  M.apply_first(query, executor);
  M.apply_second(key, executor);
  if (biases.query.size > 0) M.apply_first(biases.query);
  if (biases.key.size > 0) M.apply_second(biases.key);
}

inline std::optional<Error> query_key_fault(const AttentionTraits& traits) {
  const auto unsupported = [](const char* reason) { return Error(ErrorCode::unsupported, reason); };
  if (traits.qk_norm)
    return unsupported(
        "query/key: queries or keys are normalised after their projection, which does not commute "
        "with M");
  if (traits.clipped)
    return unsupported("query/key: queries and keys are clipped, which does not commute with M");
  return std::nullopt;
}

inline std::optional<Error> query_key_fault(const AttentionTraits& traits, const HeadTransform& M) {
  if (auto fault = query_key_fault(traits)) return fault;
  if (!traits.rotary) return std::nullopt;
  if (auto fault = traits.rotary->fault(M.layout().head_dim)) return fault;
  if (commutes(M, *traits.rotary)) return std::nullopt;
  return Error(
      ErrorCode::unsupported,
      message("query/key: M does not commute with the rotary embedding of ", traits.rotary->dims,
              " dimensions; project_to_commuting() and balance_commuting() make one that does"));
}

namespace detail {

/// The nearest scaled rotation [[a, −b], [b, a]] in a pair of coordinates.
struct ScaledRotation {
  double a = 1;
  double b = 0;
};

inline ScaledRotation nearest_scaled_rotation(View<const double> M,
                                              std::pair<Index, Index> pair) noexcept {
  const auto [i, j] = pair;
  return {0.5 * (M(i, i) + M(j, j)), 0.5 * (M(j, i) - M(i, j))};
}

inline void set_scaled_rotation(View<double> M, std::pair<Index, Index> pair,
                                ScaledRotation r) noexcept {
  const auto [i, j] = pair;
  M(i, i) = M(j, j) = r.a;
  M(j, i) = r.b;
  M(i, j) = -r.b;
}

/// The projection of one head's M onto the commuting matrices, singular or not.
inline Matrix<double> commuting_part(View<const double> M, const Rotary& rotary) {
  const Index free = M.rows - rotary.dims;
  Matrix<double> result(M.rows, M.cols);
  for (Index p = 0; p < rotary.pairs(); ++p)
    set_scaled_rotation(result.view(), rotary.pair(p), nearest_scaled_rotation(M, rotary.pair(p)));
  copy(M.block(rotary.dims, rotary.dims, free, free),
       result.view().block(rotary.dims, rotary.dims, free, free));
  return result;
}

/// Angle θ for which rotating both 2 × 2 Gram matrices minimises Σᵢ (R G₁ Rᵀ)ᵢᵢ (R G₂ Rᵀ)ᵢᵢ. A Gram
/// matrix has diagonal t/2 ± ρ cos(2θ + φ), so the sum is a constant + ρ₁ρ₂ cos(4θ + φ₁ + φ₂),
/// least where the angle is π.
inline double separating_angle(View<const double> G1, View<const double> G2,
                               std::pair<Index, Index> pair) noexcept {
  const auto [i, j] = pair;
  const double phase1 = std::atan2(2 * G1(i, j), G1(i, i) - G1(j, j));
  const double phase2 = std::atan2(2 * G2(i, j), G2(i, i) - G2(j, j));
  return (std::numbers::pi - phase1 - phase2) / 4;
}

}  // namespace detail

inline bool commutes(const HeadTransform& M, const Rotary& rotary) {
  check(rotary.fault(M.layout().head_dim));
  for (Index kv = 0; kv < M.layout().kv_heads; ++kv) {
    const auto matrix = M.matrix(kv);
    const auto part = detail::commuting_part(matrix, rotary);
    const double tolerance = 1e-6 * largest_magnitude(matrix);
    for (Index i = 0; i < matrix.rows; ++i)
      for (Index j = 0; j < matrix.cols; ++j)
        if (!(std::abs(matrix(i, j) - part(i, j)) <= tolerance)) return false;
  }
  return true;
}

template <class Arch>
HeadTransform project_to_commuting(const HeadTransform& M, const Rotary& rotary) {
  const HeadLayout layout = M.layout();
  check(rotary.fault(layout.head_dim));

  const Index d = layout.head_dim;
  const Index free = d - rotary.dims;
  Matrix<double> stacked(layout.kv_heads * d, d);
  for (Index kv = 0; kv < layout.kv_heads; ++kv) {
    auto part = detail::commuting_part(M.matrix(kv), rotary);
    const double small = 1e-6 * largest_magnitude(M.matrix(kv));
    for (Index p = 0; p < rotary.pairs(); ++p) {
      const auto r = detail::nearest_scaled_rotation(part.view(), rotary.pair(p));
      if (std::hypot(r.a, r.b) <= small)
        detail::set_scaled_rotation(part.view(), rotary.pair(p), {});
    }
    const auto block = part.view().block(rotary.dims, rotary.dims, free, free);
    if (free > 0 && !linalg::inverse<Arch>(block)) {
      const auto identity = identity_matrix<double>(free);
      copy(identity.view(), block);
    }
    copy(part.view(), stacked.view().row_block(kv * d, d));
  }
  return HeadTransform(layout, std::move(stacked));
}

template <MatrixView First, MatrixView Second>
HeadTransform balance_commuting(First&& first, Second&& second, HeadLayout layout,
                                const Rotary& rotary, BalanceOptions options,
                                ExecutorRef executor) {
  check(layout.fault());
  check(rotary.fault(layout.head_dim));
  check(options.fault());

  const auto grams = detail::pair_grams(as_view(first), as_view(second), layout, executor);
  const Index d = layout.head_dim;
  const Index free = d - rotary.dims;
  Matrix<double> stacked(layout.kv_heads * d, d);
  Matrix<double> stacked_inverse(layout.kv_heads * d, d);
  for (Index kv = 0; kv < layout.kv_heads; ++kv) {
    const View<const double> G1 = grams.first[std::size_t(kv)].view();
    const View<const double> G2 = grams.second[std::size_t(kv)].view();
    const auto M = stacked.view().row_block(kv * d, d);
    const auto inverse = stacked_inverse.view().row_block(kv * d, d);
    for (Index p = 0; p < rotary.pairs(); ++p) {
      const auto pair = rotary.pair(p);
      const auto [i, j] = pair;
      const double scale = detail::equalising_scale(G1(i, i) + G1(j, j), G2(i, i) + G2(j, j));
      const double angle = detail::separating_angle(G1, G2, pair);
      detail::set_scaled_rotation(M, pair, {scale * std::cos(angle), scale * std::sin(angle)});
      detail::set_scaled_rotation(inverse, pair,
                                  {std::cos(angle) / scale, -std::sin(angle) / scale});
    }
    if (free > 0) {
      const Index r = rotary.dims;
      const auto head = detail::balance_grams(G1.block(r, r, free, free),
                                              G2.block(r, r, free, free), {}, options);
      copy(head.M.view(), M.block(r, r, free, free));
      copy(head.inverse.view(), inverse.block(r, r, free, free));
    }
  }
  return HeadTransform::with_inverse(layout, std::move(stacked), std::move(stacked_inverse));
}

}  // namespace cafeq
