/// Dense products with one fixed order of summation.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>

#include "cafeq/core/view.hpp"
#include "cafeq/simd/arch.hpp"

namespace cafeq::kernel {

enum class Store { overwrite, add };

namespace detail {

inline constexpr Index product_depth = 256;  // rows of B in a packed panel: 256 × 16 floats stay in L1

/// C tile [Rows, 2 vectors] (+)= A [Rows, depth] · panel [depth, 2 vectors]; panel rows are `ldb` apart.
template <int Rows, class T, class Arch>
inline void product_tile(View<const T> A, const T* panel, Index ldb, T* c, Index ldc, Store store) noexcept {
  using V = Batch<T, Arch>;
  constexpr Index w = Index(V::size);
  V acc[Rows][2];
  CAFEQ_UNROLL
  for (int r = 0; r < Rows; ++r) {
    if (store == Store::add) {
      acc[r][0] = V::load_unaligned(c + r * ldc);
      acc[r][1] = V::load_unaligned(c + r * ldc + w);
    } else {
      acc[r][0] = V(T(0));
      acc[r][1] = V(T(0));
    }
  }
  const T* a = A.data;
  for (Index p = 0; p < A.cols; ++p, panel += ldb, a += A.col_stride) {
    const V b0 = V::load_unaligned(panel);
    const V b1 = V::load_unaligned(panel + w);
    CAFEQ_UNROLL
    for (int r = 0; r < Rows; ++r) {
      const V x(a[r * A.row_stride]);
      acc[r][0] = xsimd::fma(x, b0, acc[r][0]);
      acc[r][1] = xsimd::fma(x, b1, acc[r][1]);
    }
  }
  CAFEQ_UNROLL
  for (int r = 0; r < Rows; ++r) {
    acc[r][0].store_unaligned(c + r * ldc);
    acc[r][1].store_unaligned(c + r * ldc + w);
  }
}

template <class T, class Arch>
inline void product_rows(View<const T> A, const T* panel, Index ldb, T* c, Index ldc, Store store) noexcept {
  Index i = 0;
  for (; i + 6 <= A.rows; i += 6) product_tile<6, T, Arch>(A.row_block(i, 6), panel, ldb, c + i * ldc, ldc, store);
  switch (A.rows - i) {
    case 5: return product_tile<5, T, Arch>(A.row_block(i, 5), panel, ldb, c + i * ldc, ldc, store);
    case 4: return product_tile<4, T, Arch>(A.row_block(i, 4), panel, ldb, c + i * ldc, ldc, store);
    case 3: return product_tile<3, T, Arch>(A.row_block(i, 3), panel, ldb, c + i * ldc, ldc, store);
    case 2: return product_tile<2, T, Arch>(A.row_block(i, 2), panel, ldb, c + i * ldc, ldc, store);
    case 1: return product_tile<1, T, Arch>(A.row_block(i, 1), panel, ldb, c + i * ldc, ldc, store);
    default: return;
  }
}

}  // namespace detail

/// C = A·B or C += A·B for A [m, k], B [k, n], C [m, n]; A and B of any strides, C with contiguous rows, no overlap of C with A or B.
/// Every element is one chain of fused multiply-adds over k in ascending order, in T: |error| <= k·eps·Σ|a||b|, and the same bits whatever
/// the shapes of the tiles. Scratch: one L1 panel on the stack.
template <class T, class Arch = DefaultArch>
void multiply(View<const T> A, View<const T> B, View<T> C, Store store = Store::overwrite) noexcept {
  CAFEQ_ASSERT(A.cols == B.rows && A.rows == C.rows && B.cols == C.cols && C.rows_contiguous());
  constexpr Index w = 2 * Index(Batch<T, Arch>::size);
  constexpr Index depth = detail::product_depth;
  if (C.empty()) return;
  if (A.cols == 0) {
    if (store == Store::overwrite)
      for (Index i = 0; i < C.rows; ++i) std::fill_n(C.data + i * C.row_stride, C.cols, T(0));
    return;
  }
  alignas(64) std::array<T, std::size_t(depth * w)> panel;
  alignas(64) std::array<T, std::size_t(6 * w)> tail;
  for (Index p = 0; p < A.cols; p += depth) {
    const Index kc = std::min(depth, A.cols - p);
    const Store pass = p == 0 ? store : Store::add;
    const auto Ap = A.col_block(p, kc);
    for (Index j = 0; j < C.cols; j += w) {
      const Index nc = std::min(w, C.cols - j);
      const auto Bp = B.block(p, j, kc, nc);
      const bool direct = nc == w && B.col_stride == 1 && A.rows <= 24;
      if (!direct) {
        if (nc < w) panel.fill(T(0));
        for (Index q = 0; q < kc; ++q)
          for (Index l = 0; l < nc; ++l) panel[std::size_t(q * w + l)] = Bp.data[q * Bp.row_stride + l * Bp.col_stride];
      }
      if (nc == w) {
        detail::product_rows<T, Arch>(Ap, direct ? Bp.data : panel.data(), direct ? B.row_stride : w, C.data + j, C.row_stride, pass);
      } else {
        for (Index i = 0; i < C.rows; i += 6) {
          const Index mc = std::min<Index>(6, C.rows - i);
          T* c = C.data + i * C.row_stride + j;
          if (pass == Store::add)
            for (Index r = 0; r < mc; ++r) std::copy_n(c + r * C.row_stride, nc, tail.data() + r * w);
          detail::product_rows<T, Arch>(Ap.row_block(i, mc), panel.data(), w, tail.data(), w, pass);
          for (Index r = 0; r < mc; ++r) std::copy_n(tail.data() + r * w, nc, c + r * C.row_stride);
        }
      }
    }
  }
}

/// The meaning of multiply(), element by element.
template <class T>
void multiply_reference(View<const T> A, View<const T> B, View<T> C, Store store = Store::overwrite) noexcept {
  for (Index i = 0; i < C.rows; ++i)
    for (Index j = 0; j < C.cols; ++j) {
      T sum = store == Store::add ? C(i, j) : T(0);
      for (Index p = 0; p < A.cols; ++p) sum = std::fma(A(i, p), B(p, j), sum);
      C(i, j) = sum;
    }
}

}  // namespace cafeq::kernel
