/// Inverses of small dense matrices (blocks and heads, up to a few hundred) in fp64, without Eigen:
/// the same bits on every architecture with fused multiply-adds, at the speed of products.
#pragma once

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "cafeq/core/matrix.hpp"
#include "cafeq/kernel/dense_product.hpp"

namespace cafeq::linalg {

/// A⁻¹ by LU with partial pivoting, P A = L U, in panels of 8 rows: 2 k³ operations, most of them
/// in products of long depth. Keeps its storage, 2 k² doubles, so that only a matrix larger than
/// all before allocates. One inverter serves one thread.
class Inverter {
 public:
  /// Writes A⁻¹ to `result` (contiguous rows, A itself if need be) and returns true; false, and
  /// nothing of use in `result`, where A is not finite or its reciprocal condition number in the
  /// 1-norm not above `min_rcond`.
  template <class Arch = DefaultArch>
  bool invert(View<const double> A, View<double> result, double min_rcond = 1e-14);

 private:
  static constexpr Index block = 8;
  template <class Arch>
  using Vector = Batch<double, Arch>;

  /// The largest column sum of magnitudes; NaN where an element is.
  static double norm(View<const double> A, std::vector<double>& sums) noexcept;
  template <class Arch>
  bool factor(View<double> F) noexcept;
  template <class Arch>
  bool factor_panel(View<double> F, Index c) noexcept;
  template <class Arch>
  static void invert_lower(View<const double> F, View<double> X) noexcept;
  template <class Arch>
  static void divide_upper(View<const double> F, View<double> X) noexcept;
  /// Rows of X, at most 8, from the first on: x_r += Σ_{s<r} T(r, s) x_s; or from the last on: x_r
  /// = (x_r + Σ_{s>r} T(r, s) x_s) · T(r, r).
  template <bool Forward, class Arch>
  static void substitute(View<const double> T, View<double> X) noexcept;

  Buffer<double> storage_;
  std::vector<Index> order_;  // row i of P A is row order_[i] of A
  std::vector<double> sums_;
};

inline double Inverter::norm(View<const double> A, std::vector<double>& sums) noexcept {
  std::fill_n(sums.data(), A.cols, 0.0);
  for (Index i = 0; i < A.rows; ++i)
    for (Index j = 0; j < A.cols; ++j)
      sums[std::size_t(j)] += std::abs(A.data[i * A.row_stride + j * A.col_stride]);
  double largest = 0;
  for (Index j = 0; j < A.cols; ++j)
    if (!(sums[std::size_t(j)] <= largest)) largest = sums[std::size_t(j)];
  return largest;
}

template <class Arch>
bool Inverter::invert(View<const double> A, View<double> result, double min_rcond) {
  CAFEQ_ASSERT(A.rows == A.cols && result.rows == A.rows && result.cols == A.cols &&
               result.rows_contiguous());
  const Index k = A.rows;
  if (k == 0) return true;

  // Rows of whole vectors, and never a power of two apart, which would crowd one set of the cache.
  const Index stride = ceil_div(k, block) * block + block;
  storage_.resize(std::max(storage_.size(), std::size_t(2 * k * stride)));
  order_.resize(std::max(order_.size(), std::size_t(k)));
  sums_.resize(std::max(sums_.size(), std::size_t(k)));

  const double norm_before = norm(A, sums_);
  const View<double> F{storage_.data(), k, k, stride, 1};
  const View<double> X{storage_.data() + k * stride, k, k, stride, 1};
  std::fill_n(X.data, k * stride, 0.0);
  copy(A, F);

  if (!factor<Arch>(F)) return false;
  invert_lower<Arch>(F, X);
  divide_upper<Arch>(F, X);

  // A⁻¹ = U⁻¹ L⁻¹ P: columns go back to where the pivots took their rows from.
  for (Index i = 0; i < k; ++i) {
    const double* from = X.data + i * stride;
    double* to = result.data + i * result.row_stride;
    for (Index j = 0; j < k; ++j) to[order_[std::size_t(j)]] = from[j];
  }
  return 1 / (norm_before * norm(X, sums_)) > min_rcond;
}

/// F becomes −L below the diagonal, 1 / U(i, i) on it, −U above.
template <class Arch>
bool Inverter::factor(View<double> F) noexcept {
  const Index k = F.rows;
  const View<const double> f = F;
  for (Index i = 0; i < k; ++i) order_[std::size_t(i)] = i;
  for (Index c = 0; c < k; c += block) {
    const Index n = std::min(block, k - c);
    const Index end = c + n;
    if (c > 0)
      kernel::multiply<double, Arch>(f.block(c, 0, k - c, c), f.block(0, c, c, n),
                                     F.block(c, c, k - c, n), kernel::Store::add);
    if (!factor_panel<Arch>(F, c)) return false;
    if (end == k) break;

    const View<double> right = F.block(c, end, n, k - end);
    if (c > 0)
      kernel::multiply<double, Arch>(f.block(c, 0, n, c), f.block(0, end, c, k - end), right,
                                     kernel::Store::add);
    substitute<true, Arch>(f.block(c, c, n, n), right);
  }

  // −U is what the substitutions add, 1 / U(i, i) what they multiply by.
  for (Index i = 0; i < k; ++i) {
    double* row = F.data + i * F.row_stride;
    for (Index j = i + 1; j < k; ++j) row[j] = -row[j];
    row[i] = 1 / row[i];
  }
  return true;
}

/// Columns c … c + 8 of rows c … k, rows exchanged over their whole length.
template <class Arch>
bool Inverter::factor_panel(View<double> F, Index c) noexcept {
  using V = Vector<Arch>;
  constexpr Index w = Index(V::size);
  const Index k = F.rows;
  const Index n = std::min(block, k - c);
  const auto at = [&](Index i) { return F.data + i * F.row_stride + c; };
  double largest = 0;
  for (Index i = c; i < k; ++i) largest = std::max(largest, std::abs(at(i)[0]));
  for (Index j = 0; j < n; ++j) {
    Index pivot = c + j;
    while (pivot < k - 1 && std::abs(at(pivot)[j]) != largest) ++pivot;
    double* top = at(c + j);
    if (pivot != c + j) {
      std::swap_ranges(F.data + pivot * F.row_stride, F.data + pivot * F.row_stride + k,
                       F.data + (c + j) * F.row_stride);
      std::swap(order_[std::size_t(pivot)], order_[std::size_t(c + j)]);
    }
    if (!(largest > 0) || !std::isfinite(top[j])) return false;
    // What lies right of the pivot; zeros elsewhere, which change nothing.
    alignas(64) double rest[block] = {};
    for (Index l = j + 1; l < n; ++l) rest[l] = top[l];
    V r[std::size_t(block / w)];
    CAFEQ_UNROLL
    for (Index v = 0; v < block / w; ++v) r[v] = V::load_aligned(rest + v * w);
    const double reciprocal = 1 / top[j];
    const Index next = std::min(j + 1, n - 1);
    largest = 0;
    for (Index i = c + j + 1; i < k; ++i) {
      double* row = at(i);
      const double factor = -row[j] * reciprocal;
      CAFEQ_UNROLL
      for (Index v = 0; v < block / w; ++v)
        simd::fma(V(factor), r[v], V::load_unaligned(row + v * w)).store_unaligned(row + v * w);
      row[j] = factor;
      largest = std::max(largest, std::abs(row[next]));
    }
  }
  return true;
}

template <bool Forward, class Arch>
void Inverter::substitute(View<const double> T, View<double> X) noexcept {
  using V = Vector<Arch>;
  constexpr Index w = Index(V::size);
  // Zeros past the last row leave nothing to decide in the loops.
  alignas(64) double t[block][block] = {};
  for (Index r = 0; r < T.rows; ++r) std::copy_n(T.data + r * T.row_stride, T.rows, t[r]);
  // Rows are padded to whole vectors.
  for (Index j = 0; j < X.cols; j += w) {
    V x[std::size_t(block)];
    CAFEQ_UNROLL
    for (Index r = 0; r < block; ++r)
      x[r] = r < T.rows ? V::load_unaligned(X.data + r * X.row_stride + j) : V(0.0);
    CAFEQ_UNROLL
    for (Index step = 0; step < block; ++step) {
      const Index r = Forward ? step : block - 1 - step;
      CAFEQ_UNROLL
      for (Index s = 0; s < block; ++s)
        if (Forward ? s < r : s > r) x[r] = simd::fma(V(t[r][s]), x[s], x[r]);
      if (!Forward) x[r] = x[r] * V(t[r][r]);
    }
    CAFEQ_UNROLL
    for (Index r = 0; r < block; ++r)
      if (r < T.rows) x[r].store_unaligned(X.data + r * X.row_stride + j);
  }
}

/// X = L⁻¹, lower triangular.
template <class Arch>
void Inverter::invert_lower(View<const double> F, View<double> X) noexcept {
  const Index k = F.rows;
  const View<const double> x = X;
  for (Index c = 0; c < k; c += block) {
    const Index n = std::min(block, k - c);
    // Column j of L⁻¹ begins at row j, so each portion of columns needs the rows from its own on.
    for (Index j = 0; j < c; j += 2 * block) {
      const Index cols = std::min(2 * block, c - j);
      kernel::multiply<double, Arch>(F.block(c, j, n, c - j), x.block(j, j, c - j, cols),
                                     X.block(c, j, n, cols));
    }
    for (Index r = 0; r < n; ++r) X(c + r, c + r) = 1;
    substitute<true, Arch>(F.block(c, c, n, n), X.block(c, 0, n, c + n));
  }
}

/// X ← U⁻¹ X.
template <class Arch>
void Inverter::divide_upper(View<const double> F, View<double> X) noexcept {
  const Index k = F.rows;
  const View<const double> x = X;
  for (Index c = (k - 1) / block * block; c >= 0; c -= block) {
    const Index n = std::min(block, k - c);
    const Index end = c + n;
    if (end < k)
      kernel::multiply<double, Arch>(F.block(c, end, n, k - end), x.block(end, 0, k - end, k),
                                     X.block(c, 0, n, k), kernel::Store::add);
    substitute<false, Arch>(F.block(c, c, n, n), X.block(c, 0, n, k));
  }
}

}  // namespace cafeq::linalg
