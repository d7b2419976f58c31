/// Gram matrices of the heads of a factor F [heads · d, n]: F_h F_hᵀ [d, d], in fp64. Internal.
///
/// The error of a product and its balance depend on the factors through these alone. Each element
/// is one chain of fused multiply-adds over the n columns in ascending order, so it has the same
/// bits whatever the layout of F and the number of threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "cafeq/core/executor.hpp"
#include "cafeq/core/matrix.hpp"
#include "cafeq/kernel/gram.hpp"

namespace cafeq::detail {

/// Heads that are widened together: where heads are narrow, neighbours share cache lines of a
/// transposed view.
inline Index heads_together(Index head_dim) noexcept { return std::max<Index>(1, 16 / head_dim); }

/// Fᵀ [n, rows] in fp64.
template <class T>
Matrix<double> widen_transposed(View<T> F) {
  return to_matrix<double>(F.transposed());
}

/// AᵀB [d, d] for A, B [n, d]. A head of dimension 1 is a dot product, which the kernel would pad
/// to whole vectors.
template <class Arch = DefaultArch>
Matrix<double> head_cross_gram(View<const double> A, View<const double> B) {
  if (A.cols > 1) return kernel::cross_gram<double, Arch>(A, B);
  Matrix<double> result(1, 1);
  double sum = 0;
  for (Index i = 0; i < A.rows; ++i) sum = std::fma(A(i, 0), B(i, 0), sum);
  result(0, 0) = sum;
  return result;
}

/// AᵀA: the bits of head_cross_gram(A, A) for little more than half of the work.
template <class Arch = DefaultArch>
Matrix<double> head_gram(View<const double> A) {
  return A.cols > 1 ? kernel::gram<double, Arch>(A) : head_cross_gram<Arch>(A, A);
}

/// F_h F_hᵀ [d, d] of each of the heads. Scratch: one head of F in fp64 a worker.
template <class T>
std::vector<Matrix<double>> head_grams(View<T> F, Index heads, ExecutorRef executor) {
  const Index d = F.rows / heads;
  std::vector<Matrix<double>> grams(static_cast<std::size_t>(heads));
  executor.parallel_for(heads, heads_together(d), [&](Index begin, Index end, Index) {
    const auto wide = widen_transposed(F.row_block(begin * d, (end - begin) * d));
    for (Index h = begin; h < end; ++h)
      grams[std::size_t(h)] = head_gram(wide.view().col_block((h - begin) * d, d));
  });
  return grams;
}

/// ⟨A, B⟩ = Σ_ij A_ij B_ij.
inline double inner_product(const Matrix<double>& A, const Matrix<double>& B) {
  double sum = 0;
  for (Index i = 0; i < A.size(); ++i) sum += A.data()[i] * B.data()[i];
  return sum;
}

}  // namespace cafeq::detail
