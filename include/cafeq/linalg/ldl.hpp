/// The factor of a positive definite matrix that error feedback needs: H = L D Lᵀ.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <vector>

#include "cafeq/core/executor.hpp"
#include "cafeq/core/matrix.hpp"
#include "cafeq/kernel/dense_product.hpp"
#include "cafeq/kernel/panels.hpp"
#include "cafeq/simd/batch.hpp"

namespace cafeq::linalg {

/// U = Lᵀ [n, n], unit upper triangular, rounded to float from a factorization in double; nothing
/// where H is not positive definite to working precision. Reads the lower triangle. Cholesky,
/// left-looking, in panels of 128 columns and slivers of 16: each element is one chain of fused
/// multiply-adds over the columns before it in ascending order, whatever the blocks and the number
/// of threads. n³/3 operations; scratch: half of H, and a panel of 128 rows.
template <class Arch = DefaultArch>
std::optional<Matrix<float>> factor_ldl_transposed(View<const double> H, ExecutorRef executor = {});

namespace detail {

/// G with H = G Gᵀ, in place of the lower triangle of −H: what is not yet solved is kept negated,
/// so that all that products do is add.
template <class Arch>
class Cholesky {
 public:
  Cholesky(View<double> G, ExecutorRef executor)
      : G_(G),
        executor_(executor),
        before_(std::size_t(kernel::panels_size<double>(G.rows, panel_width))),
        inside_(panel_width / sliver_width * panel_width, sliver_width),
        inverse_(std::size_t(G.rows)) {}

  /// False where a pivot is not positive.
  bool factor() {
    // Left-looking: a panel of columns takes off what the columns before it explain, then its
    // diagonal block is factored sliver by sliver, then the rows below it are solved, in parallel.
    for (Index p = 0; p < G_.rows; p += panel_width) {
      const Index end = std::min(p + panel_width, G_.rows);
      const auto before = kernel::pack_panels<double>(
          View<const double>(G_).block(p, 0, end - p, p).transposed(), before_.data());
      add_before(before, p, end - p, p, end);
      for (Index s = p; s < end; s += sliver_width) {
        const Index width = std::min(sliver_width, end - s);
        copy(G_.block(s, p, width, s - p), inside(s, p, width).transposed());
        add_inside(s, end - s, p, s, width);
        if (!factor_sliver(s, width)) return false;
        solve_sliver(s + width, end - s - width, s, width);
      }
      constexpr Index rows_at_once = 96;
      executor_.parallel_for(G_.rows - end, rows_at_once, [&](Index from, Index to, Index) {
        add_before(before, end + from, to - from, p, end);
        for (Index s = p; s < end; s += sliver_width) {
          const Index width = std::min(sliver_width, end - s);
          add_inside(end + from, to - from, p, s, width);
          solve_sliver(end + from, to - from, s, width);
        }
      });
    }
    return true;
  }

  /// 1/G_jj.
  double inverse_pivot(Index j) const noexcept { return inverse_[std::size_t(j)]; }

 private:
  static constexpr Index panel_width = 128;
  static constexpr Index sliver_width = 16;

  /// Columns [p, end) of some rows += G(rows, [0, p)) · G([p, end), [0, p))ᵀ.
  void add_before(kernel::Panels<double> before, Index row, Index rows, Index p, Index end) {
    kernel::multiply<double, Arch>(G_.block(row, 0, rows, p), before,
                                   G_.block(row, p, rows, end - p), kernel::Store::add);
  }
  /// The same for the columns [s, s + width) of a sliver and those of [p, s).
  void add_inside(Index row, Index rows, Index p, Index s, Index width) {
    kernel::multiply<double, Arch>(G_.block(row, p, rows, s - p), inside(s, p, width),
                                   G_.block(row, s, rows, width), kernel::Store::add);
  }
  /// G(sliver, [p, s))ᵀ, dense: slivers of a panel below each other.
  View<double> inside(Index s, Index p, Index width) {
    return inside_.view().block((s - p) / sliver_width * panel_width, 0, s - p, width);
  }
  /// The diagonal block of a sliver whose columns before it have been taken off.
  bool factor_sliver(Index s, Index width) {
    for (Index i = s; i < s + width; ++i) {
      for (Index j = s; j <= i; ++j) {
        double sum = -G_(i, j);
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
  /// Rows below a sliver's diagonal block: forward substitution, the rest of the row at once in
  /// vectors.
  void solve_sliver(Index row, Index rows, Index s, Index width) {
    using V = Batch<double, Arch>;
    constexpr Index w = Index(V::size);
    // triangle[k][j] = −G(s + j, s + k) for j > k.
    alignas(64) double triangle[sliver_width][sliver_width] = {};
    for (Index k = 0; k < width; ++k)
      for (Index j = k + 1; j < width; ++j) triangle[k][j] = -G_(s + j, s + k);

    alignas(64) double x[sliver_width] = {};
    for (Index i = row; i < row + rows; ++i) {
      double* g = &G_(i, s);
      for (Index k = 0; k < width; ++k) x[k] = -g[k];
      for (Index k = 0; k < width; ++k) {
        g[k] = x[k] * inverse_pivot(s + k);
        const V solved(g[k]);
        for (Index j = k / w * w; j < sliver_width; j += w)
          simd::fma(solved, V::load_aligned(triangle[k] + j), V::load_aligned(x + j))
              .store_aligned(x + j);
      }
    }
  }

  View<double> G_;
  ExecutorRef executor_;
  Buffer<double> before_;  // rows of the panel in the columns before it, packed
  Matrix<double> inside_;
  std::vector<double> inverse_;
};

}  // namespace detail

template <class Arch>
std::optional<Matrix<float>> factor_ldl_transposed(View<const double> H, ExecutorRef executor) {
  CAFEQ_ASSERT(H.rows == H.cols);
  const Index n = H.rows;
  // Not zeroed, so that half of the pages are never touched.
  const auto storage = std::make_unique_for_overwrite<double[]>(std::size_t(n * n));
  const View<double> G{storage.get(), n, n, n, 1};
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j <= i; ++j) G(i, j) = -H(i, j);

  detail::Cholesky<Arch> cholesky(G, executor);
  if (!cholesky.factor()) return std::nullopt;

  // Rows of U are columns of G: in tiles, since rows that are far apart would drive each other out
  // of L1.
  Matrix<float> U(n, n);
  constexpr Index tile = 16;
  executor.parallel_for(n, tile, [&](Index first, Index last, Index) {
    for (Index i = first; i < n; i += tile) {
      float scaled[tile][tile] = {};
      const Index rows = std::min(tile, n - i);
      for (Index r = i; r < i + rows; ++r)
        for (Index j = first; j < std::min(last, r); ++j)
          scaled[j - first][r - i] = float(G(r, j) * cholesky.inverse_pivot(j));
      for (Index j = first; j < last; ++j) std::copy_n(scaled[j - first], rows, &U(j, i));
    }
    for (Index j = first; j < last; ++j) U(j, j) = 1;
  });
  return U;
}

}  // namespace cafeq::linalg
