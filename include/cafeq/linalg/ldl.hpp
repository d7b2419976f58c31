/// The factor of a positive definite matrix that error feedback needs: H = L D Lᵀ.
#pragma once

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "cafeq/core/executor.hpp"
#include "cafeq/core/matrix.hpp"
#include "cafeq/kernel/product.hpp"
#include "cafeq/simd/compat.hpp"

namespace cafeq::linalg {

/// L [n, n], unit lower triangular, rounded to float from a factorization in double; nothing where H is not positive definite to working precision. Reads
/// the lower triangle. Cholesky, left-looking, in panels of 128 columns and strips of 16: each element is one chain of fused multiply-adds over the columns
/// before it in ascending order, whatever the blocks and the number of threads. n³/3 operations; scratch: H again, and a panel.
inline std::optional<Matrix<float>> unit_lower_factor(View<const double> H, ExecutorRef executor = {});

namespace detail {

/// G with H = G Gᵀ, in place of the lower triangle of H.
class Cholesky {
 public:
  Cholesky(View<double> G, ExecutorRef executor) : G_(G), executor_(executor), panel_(G.rows, panel_width), inverse_(std::size_t(G.rows)) {}

  /// False where a pivot is not positive.
  bool factor() {
    for (Index p = 0; p < G_.rows; p += panel_width) {
      const Index end = std::min(p + panel_width, G_.rows);
      negate_rows(p, end, 0, p);
      update(p, end - p, 0, p, p, end - p);
      for (Index s = p; s < end; s += strip_width) {
        const Index width = std::min(strip_width, end - s);
        negate_rows(s, s + width, p, s);
        update(s, end - s, p, s, s, width);
        if (!factor_strip(s, width)) return false;
        solve_strip(s + width, end - s - width, s, width);
      }
      constexpr Index rows_at_once = 128;
      executor_.parallel_for(G_.rows - end, rows_at_once, [&](Index from, Index to, Index) {
        update(end + from, to - from, 0, p, p, end - p);
        for (Index s = p; s < end; s += strip_width) {
          const Index width = std::min(strip_width, end - s);
          update(end + from, to - from, p, s, s, width);
          solve_strip(end + from, to - from, s, width);
        }
      });
    }
    return true;
  }

  /// 1/G_jj.
  double inverse_pivot(Index j) const noexcept { return inverse_[std::size_t(j)]; }

 private:
  static constexpr Index panel_width = 128;
  static constexpr Index strip_width = 16;

  /// panel_(k, i − p) = −G(i, k) for rows i of [from, to), k of [first, last): the right factor of updates.
  void negate_rows(Index from, Index to, Index first, Index last) {
    const Index p = from / panel_width * panel_width;
    for (Index i = from; i < to; ++i)
      for (Index k = first; k < last; ++k) panel_(k, i - p) = -G_(i, k);
  }
  /// G(rows, columns) −= G(rows, [first, last)) · G(columns, [first, last))ᵀ.
  void update(Index row, Index rows, Index first, Index last, Index column, Index columns) {
    kernel::multiply<double>(G_.block(row, first, rows, last - first),
                             View<const double>(panel_.view()).block(first, column % panel_width, last - first, columns),
                             G_.block(row, column, rows, columns), kernel::Store::add);
  }
  /// The diagonal block of a strip whose columns before it have been taken off.
  bool factor_strip(Index s, Index width) {
    for (Index i = s; i < s + width; ++i) {
      for (Index j = s; j <= i; ++j) {
        double sum = G_(i, j);
        for (Index k = s; k < j; ++k) sum = std::fma(-G_(i, k), G_(j, k), sum);
        if (j < i) {
          G_(i, j) = sum * inverse_pivot(j);
        } else {
          if (!(sum > 0) || !std::isfinite(sum)) return false;
          G_(i, i) = std::sqrt(sum);
          inverse_[std::size_t(i)] = 1 / G_(i, i);
        }
      }
    }
    return true;
  }
  /// Rows below a strip's diagonal block: forward substitution, the rest of the row at once in vectors.
  void solve_strip(Index row, Index rows, Index s, Index width) {
    using V = Batch<double>;
    constexpr Index w = Index(V::size);
    alignas(64) double triangle[strip_width][strip_width] = {};  // (k, j) = −G(s + j, s + k), j > k
    for (Index k = 0; k < width; ++k)
      for (Index j = k + 1; j < width; ++j) triangle[k][j] = -G_(s + j, s + k);
    alignas(64) double x[strip_width] = {};
    for (Index i = row; i < row + rows; ++i) {
      double* g = &G_(i, s);
      std::copy_n(g, width, x);
      for (Index k = 0; k < width; ++k) {
        g[k] = x[k] * inverse_pivot(s + k);
        const V solved(g[k]);
        for (Index j = k / w * w; j < strip_width; j += w)
          simd::fma(solved, V::load_aligned(triangle[k] + j), V::load_aligned(x + j)).store_aligned(x + j);
      }
    }
  }

  View<double> G_;
  ExecutorRef executor_;
  Matrix<double> panel_;
  std::vector<double> inverse_;
};

}  // namespace detail

inline std::optional<Matrix<float>> unit_lower_factor(View<const double> H, ExecutorRef executor) {
  CAFEQ_ASSERT(H.rows == H.cols);
  const Index n = H.rows;
  Matrix<double> G(n, n);
  for (Index i = 0; i < n; ++i) copy(H.block(i, 0, 1, i + 1), G.view().block(i, 0, 1, i + 1));
  detail::Cholesky cholesky(G.view(), executor);
  if (!cholesky.factor()) return std::nullopt;
  Matrix<float> L(n, n);
  for (Index i = 0; i < n; ++i) {
    for (Index j = 0; j < i; ++j) L(i, j) = float(G(i, j) * cholesky.inverse_pivot(j));
    L(i, i) = 1;
  }
  return L;
}

}  // namespace cafeq::linalg
