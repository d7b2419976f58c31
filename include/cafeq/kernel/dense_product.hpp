/// Dense products with one fixed order of summation: every element of C = A·B is one chain of fused
/// multiply-adds over k in ascending order.
///
/// A factor that serves many products is packed once (kernel/panels.hpp) and read by as many
/// threads as like.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>

#include "cafeq/kernel/panels.hpp"

namespace cafeq::kernel {

enum class Store { overwrite, add };

namespace detail {

using One = std::integral_constant<Index, 1>;
inline constexpr Index product_depth = 256;  // rows of B at a time: a panel of them stays in L1

/// The left factor of a product: elements `row_stride` and `col_stride` apart, one of them a
/// constant.
template <class T, class RowStride, class ColStride>
struct Strided {
  const T* data;
  RowStride row_stride;
  ColStride col_stride;
  Index rows;

  Strided from_row(Index i) const noexcept {
    return {data + i * row_stride, row_stride, col_stride, rows - i};
  }
};

/// One or two vectors of columns: rows `stride` apart, the second vector `second` behind the first.
template <class T>
struct Slice {
  T* data;
  Index stride;
  Index second;

  Slice from_row(Index i) const noexcept { return {data + i * stride, stride, second}; }
};

/// C (+)= A·B for a tile of Rows rows and Vectors vectors. All of C is read before any of it is
/// written, so its two vectors may overlap.
template <int Rows, int Vectors, class Arch, class T, class RS, class CS>
[[gnu::always_inline]] inline void product_tile(Strided<T, RS, CS> A, Slice<const T> B, Index depth,
                                                Slice<T> C, Store store) noexcept {
  using V = Batch<T, Arch>;
  V acc[Rows][Vectors];
  CAFEQ_UNROLL
  for (int r = 0; r < Rows; ++r) {
    CAFEQ_UNROLL
    for (int v = 0; v < Vectors; ++v)
      acc[r][v] =
          store == Store::add ? V::load_unaligned(C.data + r * C.stride + v * C.second) : V(T(0));
  }
  const T* a = A.data;
  const T* b = B.data;
  for (Index p = 0; p < depth; ++p, b += B.stride, a += A.col_stride) {
    V x[Vectors];
    CAFEQ_UNROLL
    for (int v = 0; v < Vectors; ++v) x[v] = V::load_unaligned(b + v * B.second);
    CAFEQ_UNROLL
    for (int r = 0; r < Rows; ++r) {
      const V y(a[r * A.row_stride]);
      CAFEQ_UNROLL
      for (int v = 0; v < Vectors; ++v) acc[r][v] = simd::fma(y, x[v], acc[r][v]);
    }
  }
  CAFEQ_UNROLL
  for (int r = 0; r < Rows; ++r) {
    CAFEQ_UNROLL
    for (int v = 0; v < Vectors; ++v)
      acc[r][v].store_unaligned(C.data + r * C.stride + v * C.second);
  }
}

/// The same for any number of rows, in tiles of six; what is left over is split so that no tile is
/// too small to hide the latency of its sums.
template <int Vectors, class Arch, class T, class RS, class CS>
inline void product_column(Strided<T, RS, CS> A, Slice<const T> B, Index depth, Slice<T> C,
                           Store store) noexcept {
  for (; A.rows >= 10 || A.rows == 6; A = A.from_row(6), C = C.from_row(6))
    product_tile<6, Vectors, Arch>(A, B, depth, C, store);
  const auto tile = [&](auto rows) {
    product_tile<rows(), Vectors, Arch>(A, B, depth, C, store);
    A = A.from_row(rows());
    C = C.from_row(rows());
  };
  using std::integral_constant;
  if (A.rows == 9) tile(integral_constant<int, 5>{});
  if (A.rows >= 7) tile(integral_constant<int, 4>{});
  switch (A.rows) {
    case 5: return tile(integral_constant<int, 5>{});
    case 4: return tile(integral_constant<int, 4>{});
    case 3: return tile(integral_constant<int, 3>{});
    case 2: return tile(integral_constant<int, 2>{});
    case 1: return tile(integral_constant<int, 1>{});
    default: return;
  }
}

/// The same for n columns of C, fewer than the vectors hold: through a buffer.
template <int Vectors, class Arch, class T, class RS, class CS>
inline void product_tail(Strided<T, RS, CS> A, Slice<const T> B, Index depth, T* c, Index ldc,
                         Index n, Store store) noexcept {
  constexpr Index w = Index(Batch<T, Arch>::size);
  constexpr Index rows = 24;
  alignas(64) T buffer[std::size_t(rows)][std::size_t(Vectors * w)] = {};
  for (; A.rows > 0; A = A.from_row(std::min(rows, A.rows)), c += rows * ldc) {
    const Index m = std::min(rows, A.rows);
    if (store == Store::add)
      for (Index r = 0; r < m; ++r)
        for (Index j = 0; j < n; ++j) buffer[r][j] = c[r * ldc + j];
    product_column<Vectors, Arch>(Strided<T, RS, CS>{A.data, A.row_stride, A.col_stride, m}, B,
                                  depth, Slice<T>{buffer[0], Vectors * w, w}, store);
    for (Index r = 0; r < m; ++r)
      for (Index j = 0; j < n; ++j) c[r * ldc + j] = buffer[r][j];
  }
}

/// C [rows, n] (+)= A·B for n at most two vectors. A second vector that is not full overlaps the
/// first where B allows that; B may be read up to full vectors elsewhere.
template <class Arch, class T, class RS, class CS>
inline void product_columns(Strided<T, RS, CS> A, Slice<const T> B, Index depth, T* c, Index ldc,
                            Index n, Store store) noexcept {
  constexpr Index w = Index(Batch<T, Arch>::size);
  if (n > w && (n == 2 * w || B.second == w))
    product_column<2, Arch>(A, Slice<const T>{B.data, B.stride, B.second - 2 * w + n}, depth,
                            Slice<T>{c, ldc, n - w}, store);
  else if (n == w) product_column<1, Arch>(A, B, depth, Slice<T>{c, ldc, w}, store);
  else if (n > w) product_tail<2, Arch>(A, B, depth, c, ldc, n, store);
  else product_tail<1, Arch>(A, B, depth, c, ldc, n, store);
}

/// C (+)= A·B, rows p … p + depth of B.
template <class Arch, class T, class RS, class CS>
inline void product_panels(Strided<T, RS, CS> A, Panels<T> B, Index p, Index depth, T* c, Index ldc,
                           Store store) noexcept {
  constexpr Index w = Index(Batch<T, Arch>::size);
  for (Index j = 0; j < B.cols; j += 2 * w) {
    const T* b = B.at(p, j);
    product_columns<Arch>(A, Slice<const T>{b, panel_width<T>, B.at(p, j + w) - b}, depth, c + j,
                          ldc, std::min(2 * w, B.cols - j), store);
  }
}

/// Whether `count` lines, `stride` elements apart, compete for one set of the L1 cache.
template <class T>
constexpr bool crowded(Index stride, Index count) noexcept {
  return count > 48 && stride * Index(sizeof(T)) % 4096 == 0;
}

/// C (+)= A·B; B is read in place where its rows are fit for that, and packed panel by panel
/// elsewhere.
template <class Arch, class T, class RS, class CS>
inline void product_packing(Strided<T, RS, CS> A, View<const T> B, View<T> C,
                            Store store) noexcept {
  constexpr Index w = Index(Batch<T, Arch>::size);
  constexpr Index width = std::max(2 * w, panel_width<T>);
  alignas(64) std::array<T, std::size_t(product_depth * width)> panel;
  const bool in_place = B.col_stride == 1 && (C.rows <= 24 || !crowded<T>(B.row_stride, B.rows));
  for (Index j = 0; j < C.cols; j += width) {
    const Index n = std::min(width, C.cols - j);
    Index l = 0;
    for (; in_place && n - l >= w; l += std::min(2 * w, n - l))  // tiles read whole vectors
      product_columns<Arch>(A, Slice<const T>{B.data + j + l, B.row_stride, w}, B.rows,
                            C.data + j + l, C.row_stride, std::min(2 * w, n - l), store);
    if (l < n)
      product_panels<Arch>(A, pack_panels<T, Arch>(B.col_block(j + l, n - l), panel.data()), 0,
                           B.rows, C.data + j + l, C.row_stride, store);
  }
}

/// f(A) with A as Strided; false where neither of its strides is 1, which is not served.
template <class T, class F>
inline bool as_strided(View<const T> A, F&& f) noexcept {
  if (A.col_stride == 1 || A.cols <= 1) f(Strided<T, Index, One>{A.data, A.row_stride, {}, A.rows});
  else if (A.row_stride == 1 || A.rows <= 1)
    f(Strided<T, One, Index>{A.data, {}, A.col_stride, A.rows});
  else return false;
  return true;
}

/// C (+)= A·B with blocks of A packed as well.
template <class Arch, class T>
inline void product_packing_both(View<const T> A, View<const T> B, View<T> C,
                                 Store store) noexcept {
  constexpr Index rows = 384 / Index(sizeof(T));
  constexpr Index depth = product_depth / 2;
  alignas(64) std::array<T, std::size_t(depth * rows)> packed;
  for (Index i = 0; i < A.rows; i += rows)
    for (Index p = 0; p < A.cols; p += depth) {
      const auto block = A.block(i, p, std::min(rows, A.rows - i), std::min(depth, A.cols - p));
      for (Index q = 0; q < block.cols; ++q) {
        const T* from = block.data + q * block.col_stride;
        T* to = packed.data() + q * rows;
        if (block.row_stride == 1) std::copy_n(from, block.rows, to);
        else
          for (Index r = 0; r < block.rows; ++r) to[r] = from[r * block.row_stride];
      }
      product_packing<Arch>(
          Strided<T, One, std::integral_constant<Index, rows>>{packed.data(), {}, {}, block.rows},
          B.row_block(p, block.cols), C.row_block(i, block.rows), p == 0 ? store : Store::add);
    }
}

template <class T>
inline void clear(View<T> C) noexcept {
  for (Index i = 0; i < C.rows; ++i) std::fill_n(C.data + i * C.row_stride, C.cols, T(0));
}

}  // namespace detail

/// C = A·B or C += A·B for A [m, k], B [k, n], C [m, n]; A and B of any strides, C with contiguous
/// rows, no overlap of C with A or B.
/// |error| <= k·eps·Σ|a||b| in T, and the same bits whatever the strides and the shapes of the
/// tiles. Scratch: 64 KB of stack at most.
template <class T, class Arch = DefaultArch>
void multiply(View<const T> A, View<const T> B, View<T> C,
              Store store = Store::overwrite) noexcept {
  CAFEQ_ASSERT(A.cols == B.rows && A.rows == C.rows && B.cols == C.cols && C.rows_contiguous());
  if (C.empty()) return;
  if (A.cols == 0 && store == Store::overwrite) detail::clear(C);
  for (Index p = 0; p < A.cols; p += detail::product_depth) {
    const Index depth = std::min(detail::product_depth, A.cols - p);
    const auto Ap = A.col_block(p, depth);
    const auto Bp = B.row_block(p, depth);
    const Store pass = p == 0 ? store : Store::add;
    const bool in_place =
        A.col_stride == 1 || C.cols <= panel_width<T> || !detail::crowded<T>(A.col_stride, depth);
    if (!in_place || !detail::as_strided(
                         Ap, [&](auto rows) { detail::product_packing<Arch>(rows, Bp, C, pass); }))
      detail::product_packing_both<Arch>(Ap, Bp, C, pass);
  }
}

/// The same with B packed before, for A with contiguous rows or contiguous columns.
template <class T, class Arch = DefaultArch>
void multiply(View<const T> A, Panels<T> B, View<T> C, Store store = Store::overwrite) noexcept {
  CAFEQ_ASSERT(A.cols == B.rows && A.rows == C.rows && B.cols == C.cols && C.rows_contiguous());
  if (C.empty()) return;
  if (A.cols == 0 && store == Store::overwrite) detail::clear(C);
  constexpr Index rows = 48;  // of A, which stay in L1 from one panel to the next
  for (Index p = 0; p < A.cols; p += detail::product_depth) {
    const Index depth = std::min(detail::product_depth, A.cols - p);
    for (Index i = 0; i < A.rows; i += rows)
      detail::as_strided(A.block(i, p, std::min(rows, A.rows - i), depth), [&](auto block) {
        detail::product_panels<Arch>(block, B, p, depth, C.data + i * C.row_stride, C.row_stride,
                                     p == 0 ? store : Store::add);
      });
  }
}

/// The meaning of multiply(), element by element.
template <class T>
void multiply_reference(View<const T> A, View<const T> B, View<T> C,
                        Store store = Store::overwrite) noexcept {
  for (Index i = 0; i < C.rows; ++i)
    for (Index j = 0; j < C.cols; ++j) {
      T sum = store == Store::add ? C(i, j) : T(0);
      for (Index p = 0; p < A.cols; ++p) sum = std::fma(A(i, p), B(p, j), sum);
      C(i, j) = sum;
    }
}

}  // namespace cafeq::kernel
