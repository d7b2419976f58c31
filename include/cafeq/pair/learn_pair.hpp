/// The M of a pair that makes both factors easy to quantize, learned without data.
#pragma once

#include <utility>
#include <vector>

#include "cafeq/optimize/learned_block_diagonal.hpp"
#include "cafeq/pair/balance.hpp"

namespace cafeq::detail {

/// How the scales of a canonical factor lie.
///   across the heads' rows     a value, query or key projection: a stored row is a row of the
///                              factor, so columns of Fᵀ share scales
///   along the inner dimension  an output projection: a stored row crosses all heads, so rows of Fᵀ
///                              share scales
inline ScaleSets pair_scale_sets(bool inner_rows_are_stored, Index group) noexcept {
  const Index width = group > 0 ? group : 0;
  return inner_rows_are_stored ? ScaleSets::columns(width)
                               : (width > 0 ? ScaleSets::groups(width) : ScaleSets::rows());
}

/// The same matrix for every KV head of a layout.
inline HeadTransform head_rotation(HeadLayout layout,
                                   const std::vector<Matrix<double>>& rotations) {
  Matrix<double> M(layout.kv_heads * layout.head_dim, layout.head_dim);
  Matrix<double> inverse(M.rows(), M.cols());
  for (Index kv = 0; kv < layout.kv_heads; ++kv) {
    const View<const double> R = rotations[std::size_t(kv)].view();
    copy(R.transposed(), M.view().row_block(kv * layout.head_dim, layout.head_dim));
    copy(R, inverse.view().row_block(kv * layout.head_dim, layout.head_dim));
  }
  return HeadTransform::with_inverse(layout, std::move(M), std::move(inverse));
}

/// An orthogonal R for each KV head, as the transform M = Rᵀ, that minimises log mean R²(F₁ᵀR) +
/// log mean R²(F₂ᵀR) from the given start (CafeQ, arXiv 2511.19705, section on paired weights;
/// orthogonal, so that a balance done before stays). Memory: a copy of the factor whose columns are
/// stored, and a strip of each.
template <RangeSurrogate S, Optimizer O>
HeadTransform learn_head_rotation(View<const float> first, ScaleSets first_sets,
                                  View<const float> second, ScaleSets second_sets,
                                  HeadLayout layout, std::vector<Matrix<double>> start,
                                  const S& surrogate, const O& optimizer,
                                  ExecutorRef executor = {}) {
  check(factors_fault(first, second, layout));

  std::vector<Index> reads;
  for (Index h = 0; h < layout.heads; ++h) reads.push_back(layout.kv_head(h));
  std::vector<RangeTerm> terms;
  terms.emplace_back(first.transposed(), first_sets, std::move(reads));
  terms.emplace_back(second.transposed(), second_sets);
  return head_rotation(layout, learn_transform(std::move(terms), std::move(start), surrogate,
                                               Parametrization::orthogonal, optimizer, executor)
                                   .M);
}

}  // namespace cafeq::detail
