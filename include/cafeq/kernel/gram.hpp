/// Gram matrices in fp64 with one fixed order of summation.
#pragma once

#include <vector>

#include "cafeq/core/executor.hpp"
#include "cafeq/core/matrix.hpp"
#include "cafeq/kernel/product.hpp"

namespace cafeq::kernel {

/// AᵀB [m, n] for A [rows, m] and B [rows, n], float or double elements widened to double: products of floats are exact, sums run over the
/// rows in ascending order. The order does not depend on threads or on cache sizes. Scratch: 64 widened rows of each a worker.
template <class T, class Arch = DefaultArch>
Matrix<double> cross_gram(View<const T> A, View<const T> B, ExecutorRef executor = {}) {
  CAFEQ_ASSERT(A.rows == B.rows);
  constexpr Index chunk = 64;
  Matrix<double> result(A.cols, B.cols);
  // Parallel over columns of the result: every element is still one chain over all rows.
  const Index grain = 64;
  executor.parallel_for(B.cols, grain, [&](Index begin, Index end, Index) {
    Matrix<double> wide_a(chunk, A.cols);
    Matrix<double> wide_b(chunk, end - begin);
    for (Index i = 0; i < A.rows; i += chunk) {
      const Index n = std::min(chunk, A.rows - i);
      copy(A.row_block(i, n), wide_a.view().row_block(0, n));
      copy(B.block(i, begin, n, end - begin), wide_b.view().row_block(0, n));
      multiply<double, Arch>(View<const double>(wide_a.view().row_block(0, n)).transposed(), wide_b.view().row_block(0, n),
                             result.view().col_block(begin, end - begin), Store::add);
    }
  });
  return result;
}

/// AᵀA [n, n], exactly symmetric.
template <class T, class Arch = DefaultArch>
Matrix<double> gram(View<const T> A, ExecutorRef executor = {}) {
  return cross_gram<T, Arch>(A, A, executor);  // every element is the same chain of exact products as its mirror image
}

}  // namespace cafeq::kernel
