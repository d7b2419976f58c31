/// X ← S·X in place, S [m, m] of ±1, m a multiple of 4, rows of X contiguous: the factor of a
/// Hadamard matrix that is not Sylvester's.
///
/// Four rows have 16 signed sums. They are tabulated once, and an element of the result adds up m/4
/// entries: m/4 + 5 additions instead of m (the "four Russians"). Element i is t_0 + t_1 + … in
/// ascending order, t_g = (±x_4g ± x_4g+1) + (±x_4g+2 ± x_4g+3): the bits of
/// sign_product_reference().
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cafeq/core/view.hpp"
#include "cafeq/simd/batch.hpp"

namespace cafeq::kernel {

/// S as the kernel reads it: entry [i, g] of [m, m/4] has bit k set where S(i, 4g + k) is negative.
inline std::vector<std::uint8_t> sign_codes(View<const float> S) {
  std::vector<std::uint8_t> codes;
  codes.reserve(std::size_t(S.rows * S.cols / 4));
  for (Index i = 0; i < S.rows; ++i)
    for (Index g = 0; g < S.cols; g += 4) {
      unsigned code = 0;
      for (Index k = 0; k < 4; ++k) code |= unsigned(S(i, g + k) < 0) << k;
      codes.push_back(std::uint8_t(code));
    }
  return codes;
}

/// The meaning of sign_product(). `scratch` holds m elements.
template <class T>
void sign_product_reference(const std::uint8_t* codes, View<T> X, std::span<T> scratch) noexcept {
  const Index groups = X.rows / 4;
  for (Index c = 0; c < X.cols; ++c) {
    for (Index i = 0; i < X.rows; ++i) {
      T sum{};
      for (Index g = 0; g < groups; ++g) {
        const unsigned code = codes[i * groups + g];
        const auto term = [&](unsigned k) {
          return (code >> k & 1u) != 0 ? -X(4 * g + Index(k), c) : X(4 * g + Index(k), c);
        };
        const T t = (term(0) + term(1)) + (term(2) + term(3));
        sum = g == 0 ? t : sum + t;
      }
      scratch[std::size_t(i)] = sum;
    }
    for (Index i = 0; i < X.rows; ++i) X(i, c) = scratch[std::size_t(i)];
  }
}

namespace detail {

template <class T>
inline constexpr Index sign_columns = 64 / Index(sizeof(T));  // a cache line of each row at a time

template <class V, class T>
inline V load_any(const T* p) noexcept {
  if constexpr (std::is_same_v<V, T>) return *p;
  else return V::load_unaligned(p);
}
template <class V, class T>
inline void store_any(T* p, V v) noexcept {
  if constexpr (std::is_same_v<V, T>) *p = v;
  else v.store_unaligned(p);
}

/// The 16 signed sums of four rows, entry `code` at table + code * stride.
template <class V, class T>
inline void tabulate_signs(const T* x, Index row_stride, T* table, Index stride) noexcept {
  const V x0 = load_any<V>(x);
  const V x1 = load_any<V>(x + row_stride);
  const V x2 = load_any<V>(x + 2 * row_stride);
  const V x3 = load_any<V>(x + 3 * row_stride);
  const V low[4] = {x0 + x1, x1 - x0, x0 - x1, -x0 - x1};
  const V high[4] = {x2 + x3, x3 - x2, x2 - x3, -x2 - x3};
  CAFEQ_UNROLL
  for (int h = 0; h < 4; ++h) {
    CAFEQ_UNROLL
    for (int l = 0; l < 4; ++l) store_any<V>(table + (4 * h + l) * stride, low[l] + high[h]);
  }
}

/// N vectors V of each row.
template <int N, class V, class T>
inline void sign_panel(const std::uint8_t* codes, T* x, Index m, Index row_stride,
                       T* table) noexcept {
  constexpr Index w = Index(sizeof(V) / sizeof(T));
  constexpr Index width = N * w;
  const Index groups = m / 4;
  for (Index g = 0; g < groups; ++g) {
    CAFEQ_UNROLL
    for (int n = 0; n < N; ++n)
      tabulate_signs<V>(x + 4 * g * row_stride + n * w, row_stride, table + 16 * width * g + n * w,
                        width);
  }
  for (Index i = 0; i < m; ++i, codes += groups) {
    V sum[N];
    const T* first = table + codes[0] * width;
    CAFEQ_UNROLL
    for (int n = 0; n < N; ++n) sum[n] = load_any<V>(first + n * w);
    for (Index g = 1; g < groups; ++g) {
      const T* entry = table + 16 * width * g + codes[g] * width;
      CAFEQ_UNROLL
      for (int n = 0; n < N; ++n) sum[n] = sum[n] + load_any<V>(entry + n * w);
    }
    CAFEQ_UNROLL
    for (int n = 0; n < N; ++n) store_any<V>(x + i * row_stride + n * w, sum[n]);
  }
}

}  // namespace detail

/// Elements of scratch that sign_product() asks for.
template <class T>
constexpr Index sign_product_scratch(Index m) noexcept {
  return 4 * m * detail::sign_columns<T>;
}

/// X ← S·X for X [m, n], its rows contiguous, and S by its sign_codes().
template <class T, class Arch = DefaultArch>
void sign_product(const std::uint8_t* codes, View<T> X, std::span<T> scratch) noexcept {
  CAFEQ_ASSERT(X.rows % 4 == 0 && X.rows_contiguous() &&
               Index(scratch.size()) >= sign_product_scratch<T>(X.rows));
  using V = Batch<T, Arch>;
  constexpr Index w = Index(V::size);
  constexpr Index width = detail::sign_columns<T>;
  if (X.empty()) return;
  Index c = 0;
  for (; c + width <= X.cols; c += width)
    detail::sign_panel<int(width / w), V>(codes, X.data + c, X.rows, X.row_stride, scratch.data());
  for (; c + w <= X.cols; c += w)
    detail::sign_panel<1, V>(codes, X.data + c, X.rows, X.row_stride, scratch.data());
  for (; c < X.cols; ++c)
    detail::sign_panel<1, T>(codes, X.data + c, X.rows, X.row_stride, scratch.data());
}

}  // namespace cafeq::kernel
