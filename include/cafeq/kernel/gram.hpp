/// Gram matrices in fp64 with one fixed order of summation.
#pragma once

#include <algorithm>
#include <span>
#include <type_traits>
#include <vector>

#include "cafeq/core/executor.hpp"
#include "cafeq/core/matrix.hpp"
#include "cafeq/kernel/dense_product.hpp"

namespace cafeq::kernel {

namespace detail {

inline constexpr Index gram_rows = 64;    // rows that are widened at a time
inline constexpr Index gram_block = 128;  // columns that are widened at a time

/// Distance of widened rows: never a power of two, since rows that are far apart by one share a set
/// of the cache.
constexpr Index gram_stride(Index cols) noexcept {
  return ceil_div(std::min(cols, gram_block), Index(8)) * 8 + 8;
}

}  // namespace detail

/// Doubles of scratch for sums of Gram matrices with at most `cols` rows or columns.
constexpr Index gram_scratch(Index cols) noexcept {
  return 2 * detail::gram_rows * detail::gram_stride(cols);
}

namespace detail {

/// Elements as doubles: in place where they are, else a copy.
template <class T>
inline View<const double> widened(View<const T> A, double* to) noexcept {
  if constexpr (std::is_same_v<T, double>)
    if (A.rows_contiguous()) return A;
  const View<double> wide{to, A.rows, A.cols, gram_stride(A.cols), 1};
  if (A.rows_contiguous()) {
    for (Index i = 0; i < A.rows; ++i) {
      const T* from = A.data + i * A.row_stride;
      double* row = to + i * wide.row_stride;
      for (Index j = 0; j < A.cols; ++j) row[j] = double(from[j]);
    }
  } else {
    copy(A, wide);
  }
  return wide;
}

/// G += AᵀB for at most gram_block columns of each.
template <class T, class Arch>
inline void add_cross(View<const T> A, View<const T> B, View<double> G, double* scratch) noexcept {
  for (Index i = 0; i < A.rows; i += gram_rows) {
    const Index n = std::min(gram_rows, A.rows - i);
    const auto a = widened(A.row_block(i, n), scratch);
    const auto b = widened(B.row_block(i, n), scratch + gram_rows * gram_stride(A.cols));
    multiply<double, Arch>(a.transposed(), b, G, Store::add);
  }
}

/// The upper triangle of G += AᵀA and what lies beside it in a tile.
template <class T, class Arch>
inline void add_upper(View<const T> A, View<double> G, double* scratch) noexcept {
  constexpr Index width = 2 * Index(Batch<double, Arch>::size);
  for (Index i = 0; i < A.rows; i += gram_rows) {
    const Index n = std::min(gram_rows, A.rows - i);
    const auto a = widened(A.row_block(i, n), scratch);
    for (Index j = 0; j < A.cols; j += width) {
      const Index cols = std::min(width, A.cols - j);
      multiply<double, Arch>(a.col_block(0, j + cols).transposed(), a.col_block(j, cols),
                             G.block(0, j, j + cols, cols), Store::add);
    }
  }
}

/// Adds one block of AᵀB, that at (i, j), to G.
template <class T, class Arch>
inline void add_cross_block(View<const T> A, View<const T> B, View<double> G, Index i, Index j,
                            double* scratch) noexcept {
  const Index m = std::min(gram_block, G.rows - i);
  const Index n = std::min(gram_block, G.cols - j);
  add_cross<T, Arch>(A.col_block(i, m), B.col_block(j, n), G.block(i, j, m, n), scratch);
}

/// Adds the block of AᵀA at (i, j), i <= j, and its mirror image.
template <class T, class Arch>
inline void add_gram_block(View<const T> A, View<double> G, Index i, Index j,
                           double* scratch) noexcept {
  const Index m = std::min(gram_block, G.rows - i);
  const Index n = std::min(gram_block, G.cols - j);
  if (i < j) {
    add_cross<T, Arch>(A.col_block(i, m), A.col_block(j, n), G.block(i, j, m, n), scratch);
    return copy(View<const double>(G.block(i, j, m, n)).transposed(), G.block(j, i, n, m));
  }
  add_upper<T, Arch>(A.col_block(j, n), G.block(j, j, n, n), scratch);
  for (Index r = j; r < j + n; ++r)
    for (Index c = j; c < r; ++c) G(r, c) = G(c, r);
}

/// f(i, j, scratch) for the first row and column of every block of an [m, n] result, in parallel.
template <class F>
void for_each_gram_block(Index m, Index n, ExecutorRef executor, F&& f) {
  const Index across = ceil_div(n, gram_block);
  std::vector<Buffer<double>> scratch(std::size_t(executor.concurrency()));
  cafeq::detail::for_each(executor, ceil_div(m, gram_block) * across, [&](Index b, Index worker) {
    auto& own = scratch[std::size_t(worker)];
    own.resize(std::size_t(gram_scratch(std::max(m, n))));
    f(b / across * gram_block, b % across * gram_block, own.data());
  });
}

}  // namespace detail

/// G += AᵀB, [m, n], for A [rows, m] and B [rows, n], float or double elements widened to double:
/// products of floats are exact, sums run over the rows in ascending order, so that adding rows
/// portion by portion gives the bits of one call with all of them. G has contiguous rows; scratch:
/// gram_scratch(max(m, n)).
template <class T, class Arch = DefaultArch>
void cross_gram_add(View<const T> A, View<const T> B, View<double> G,
                    std::span<double> scratch) noexcept {
  CAFEQ_ASSERT(A.rows == B.rows && G.rows == A.cols && G.cols == B.cols && G.rows_contiguous());
  CAFEQ_ASSERT(Index(scratch.size()) >= gram_scratch(std::max(G.rows, G.cols)));
  for (Index i = 0; i < G.rows; i += detail::gram_block)
    for (Index j = 0; j < G.cols; j += detail::gram_block)
      detail::add_cross_block<T, Arch>(A, B, G, i, j, scratch.data());
}

/// G += AᵀA for a symmetric G, which stays exactly symmetric: the bits of cross_gram_add(A, A, G)
/// for little more than half of the work. Scratch: gram_scratch(G.cols).
template <class T, class Arch = DefaultArch>
void gram_add(View<const T> A, View<double> G, std::span<double> scratch) noexcept {
  CAFEQ_ASSERT(G.rows == A.cols && G.cols == A.cols && G.rows_contiguous() &&
               Index(scratch.size()) >= gram_scratch(G.cols));
  for (Index j = 0; j < G.cols; j += detail::gram_block)
    for (Index i = 0; i <= j; i += detail::gram_block)
      detail::add_gram_block<T, Arch>(A, G, i, j, scratch.data());
}

/// AᵀB, blocks of 128 × 128 in parallel: every element is one chain over all rows, whoever computes
/// it.
template <class T, class Arch = DefaultArch>
Matrix<double> cross_gram(View<const T> A, View<const T> B, ExecutorRef executor = {}) {
  CAFEQ_ASSERT(A.rows == B.rows);
  Matrix<double> result(A.cols, B.cols);
  detail::for_each_gram_block(A.cols, B.cols, executor,
                              [&, G = result.view()](Index i, Index j, double* scratch) {
                                detail::add_cross_block<T, Arch>(A, B, G, i, j, scratch);
                              });
  return result;
}

/// AᵀA [n, n], exactly symmetric, blocks in parallel.
template <class T, class Arch = DefaultArch>
Matrix<double> gram(View<const T> A, ExecutorRef executor = {}) {
  Matrix<double> result(A.cols, A.cols);
  detail::for_each_gram_block(A.cols, A.cols, executor,
                              [&, G = result.view()](Index i, Index j, double* scratch) {
                                if (i <= j) detail::add_gram_block<T, Arch>(A, G, i, j, scratch);
                              });
  return result;
}

/// Rows whose products gram_add_floats() sums up in fp32.
inline constexpr Index gram_float_rows = 512;

/// G += AᵀA, the upper triangle and what lies beside it in a block of 192 × 192: four times as fast
/// as gram(), for statistics. Sums run in fp32 over gram_float_rows rows and in fp64 from there on:
/// |error| of element (i, j) <= 512 · 2^-24 Σ|a_i a_j|, usually a hundredth of that. Blocks in
/// parallel; the same bits for any number of threads.
template <class Arch = DefaultArch>
void gram_add_floats(View<const float> A, View<double> G, ExecutorRef executor = {}) {
  CAFEQ_ASSERT(G.rows == A.cols && G.cols == A.cols && G.rows_contiguous());
  constexpr Index block = 192;
  const Index across = ceil_div(A.cols, block);
  std::vector<Matrix<float>> tiles(std::size_t(executor.concurrency()));
  cafeq::detail::for_each(executor, across * across, [&](Index b, Index worker) {
    const Index i = b / across * block, j = b % across * block;
    if (i > j) return;
    Matrix<float>& own = tiles[std::size_t(worker)];
    if (own.empty()) own = Matrix<float>(block, block);
    const Index m = std::min(block, A.cols - i), n = std::min(block, A.cols - j);
    const View<float> tile = own.view().block(0, 0, m, n);
    for (Index begin = 0; begin < A.rows; begin += gram_float_rows) {
      const auto rows = A.row_block(begin, std::min(gram_float_rows, A.rows - begin));
      multiply<float, Arch>(rows.col_block(i, m).transposed(), rows.col_block(j, n), tile);
      for (Index r = 0; r < m; ++r) {
        double* sum = G.data + (i + r) * G.row_stride + j;
        const float* from = tile.data + r * tile.row_stride;
        for (Index c = 0; c < n; ++c) sum[c] += double(from[c]);
      }
    }
  });
}

}  // namespace cafeq::kernel
