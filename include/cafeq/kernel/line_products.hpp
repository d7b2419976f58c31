/// Products of lines with lines, summed lane by lane in double.
#pragma once

#include <span>

#include "cafeq/core/view.hpp"
#include "cafeq/kernel/line_batch.hpp"

namespace cafeq::kernel {

namespace detail {

/// sums[l] += Σ_i left(i, l)·B(i, l) for Count vectors of lanes from l on; left gives a vector.
template <class Arch, Index Count, class Left>
inline void add_products(Left&& left, View<const float> B, double* sums, Index l) noexcept {
  using V = Batch<float, Arch>;
  using D = Batch<double, Arch>;
  constexpr Index w = Index(V::size), half = Index(D::size);
  D sum[2 * Count];
  CAFEQ_UNROLL
  for (Index v = 0; v < 2 * Count; ++v) sum[v] = D::load_unaligned(sums + l + v * half);
  for (Index i = 0; i < B.rows; ++i) {
    CAFEQ_UNROLL
    for (Index v = 0; v < Count; ++v) {
      const auto a = simd::widen(left(i, l + v * w));
      const auto b = simd::widen(V::load_unaligned(B.data + i * B.row_stride + l + v * w));
      sum[2 * v] = simd::fma(a.low, b.low, sum[2 * v]);
      sum[2 * v + 1] = simd::fma(a.high, b.high, sum[2 * v + 1]);
    }
  }
  CAFEQ_UNROLL
  for (Index v = 0; v < 2 * Count; ++v) sum[v].store_unaligned(sums + l + v * half);
}

}  // namespace detail

/// The meaning of add_line_products: sums[l] += Σ_i A(i, l)·B(i, l), one chain in double over i
/// ascending; the products are exact.
inline void add_line_products_reference(View<const float> A, View<const float> B,
                                        std::span<double> sums) noexcept {
  for (Index l = 0; l < B.cols; ++l)
    for (Index i = 0; i < B.rows; ++i) sums[std::size_t(l)] += double(A(i, l)) * double(B(i, l));
}

/// sums[l] += Σ_i A(i, l)·B(i, l). Rows contiguous; lanes past a multiple of lane_multiple go one
/// by one.
template <class Arch = DefaultArch>
void add_line_products(View<const float> A, View<const float> B, std::span<double> sums) noexcept {
  CAFEQ_ASSERT(A.rows == B.rows && A.cols == B.cols && Index(sums.size()) == B.cols &&
               A.rows_contiguous() && B.rows_contiguous());
  const Index whole = B.cols / lane_multiple * lane_multiple;
  for (Index l = 0; l < whole; l += lane_multiple)
    detail::add_products<Arch, lane_multiple / Index(Batch<float, Arch>::size)>(
        [&](Index i, Index lane) {
          return Batch<float, Arch>::load_unaligned(A.data + i * A.row_stride + lane);
        },
        B, sums.data(), l);
  const Index rest = B.cols - whole;
  add_line_products_reference(A.col_block(whole, rest), B.col_block(whole, rest),
                              sums.subspan(std::size_t(whole)));
}

/// The same where all lanes of A's line i are a[i].
template <class Arch = DefaultArch>
void add_line_products(std::span<const float> a, View<const float> B,
                       std::span<double> sums) noexcept {
  CAFEQ_ASSERT(Index(a.size()) == B.rows && Index(sums.size()) == B.cols && B.rows_contiguous());
  const Index whole = B.cols / lane_multiple * lane_multiple;
  for (Index l = 0; l < whole; l += lane_multiple)
    detail::add_products<Arch, lane_multiple / Index(Batch<float, Arch>::size)>(
        [&](Index i, Index) { return Batch<float, Arch>(a[std::size_t(i)]); }, B, sums.data(), l);
  const Index rest = B.cols - whole;
  add_line_products_reference({a.data(), B.rows, rest, 1, 0}, B.col_block(whole, rest),
                              sums.subspan(std::size_t(whole)));
}

}  // namespace cafeq::kernel
