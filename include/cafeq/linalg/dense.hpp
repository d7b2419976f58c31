/// Small dense matrices, those of blocks and heads (up to a few hundred), all in fp64: products,
/// inverses, polar factors, and the factorizations of linalg/factorizations.hpp.
#pragma once

#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "cafeq/core/matrix.hpp"
#include "cafeq/core/rng.hpp"
#include "cafeq/kernel/dense_product.hpp"
#include "cafeq/linalg/factorizations.hpp"
#include "cafeq/linalg/inverse.hpp"
#if !CAFEQ_COMPILED
#include "cafeq/linalg/eigen.hpp"
#endif

namespace cafeq::linalg {

/// A·B, [m, k]·[k, n].
template <class Arch = DefaultArch>
Matrix<double> product(View<const double> A, View<const double> B) {
  Matrix<double> result(A.rows, B.cols);
  kernel::multiply<double, Arch>(A, B, result.view());
  return result;
}

/// A ← A + part · (mean of the diagonal) · I, so that a Gram matrix that lost rank can still be
/// factored; a zero A becomes the identity.
inline void add_ridge(Matrix<double>& A, double part) noexcept {
  double mean = 0;
  for (Index i = 0; i < A.rows(); ++i) mean += A(i, i) / double(A.rows());
  for (Index i = 0; i < A.rows(); ++i) A(i, i) += mean > 0 ? part * mean : 1.0;
}

/// A⁻¹; nothing where A is not finite, or its reciprocal condition number in the 1-norm not above
/// `min_rcond`. An Inverter does the same without allocating.
template <class Arch = DefaultArch>
std::optional<Matrix<double>> inverse(View<const double> A, double min_rcond = 1e-14) {
  Matrix<double> result(A.rows, A.cols);
  if (!Inverter().invert<Arch>(A, result.view(), min_rcond)) return std::nullopt;
  return result;
}

namespace detail {

/// ‖x − y‖² in eight lanes, element i in lane i mod 8: one order of summation for all
/// architectures. `y` may be null, for zeros.
template <class Arch = DefaultArch>
double squared_distance(const double* x, const double* y, Index n) noexcept {
  using V = Batch<double, Arch>;
  constexpr Index w = Index(V::size);
  constexpr Index lanes = 8;
  V sum[std::size_t(lanes / w)];
  CAFEQ_UNROLL
  for (Index v = 0; v < lanes / w; ++v) sum[v] = V(0.0);
  Index i = 0;
  for (; i + lanes <= n; i += lanes) {
    CAFEQ_UNROLL
    for (Index v = 0; v < lanes / w; ++v) {
      V d = V::load_unaligned(x + i + v * w);
      if (y != nullptr) d = d - V::load_unaligned(y + i + v * w);
      sum[v] = simd::fma(d, d, sum[v]);
    }
  }

  // The lanes take the elements that are left, then halves of them are added.
  alignas(64) double lane[lanes];
  for (Index v = 0; v < lanes / w; ++v) sum[v].store_aligned(lane + v * w);
  for (Index l = 0; i < n; ++i, ++l) {
    const double d = y != nullptr ? x[i] - y[i] : x[i];
    lane[l] = std::fma(d, d, lane[l]);
  }
  for (Index half = lanes / 2; half > 0; half /= 2)
    for (Index l = 0; l < half; ++l) lane[l] += lane[l + half];
  return lane[0];
}

/// y ← a x + b y.
template <class Arch = DefaultArch>
void combine(double a, const double* x, double b, double* y, Index n) noexcept {
  using V = Batch<double, Arch>;
  constexpr Index w = Index(V::size);
  Index i = 0;
  for (; i + w <= n; i += w)
    simd::fma(V(a), V::load_unaligned(x + i), V(b) * V::load_unaligned(y + i))
        .store_unaligned(y + i);
  for (; i < n; ++i) y[i] = std::fma(a, x[i], b * y[i]);
}

}  // namespace detail

/// The orthogonal polar factor U Vᵀ of a square, finite A = U S Vᵀ: the orthogonal M that maximises
/// tr(MᵀA). By Newton's iteration with Frobenius scaling (Higham, "Computing the polar
/// decomposition", 1986), X ← (g X + X⁻ᵀ / g) / 2; by SVD where A is close to singular.
template <class Arch = DefaultArch>
Matrix<double> polar(View<const double> A) {
  const Index size = A.rows * A.rows;
  Matrix<double> X = to_matrix<double>(A);
  Matrix<double> Y(A.rows, A.rows);
  Inverter inverter;
  CAFEQ_ASSERT(!finite_fault(A, "A"));

  for (int round = 0; round < 30; ++round) {
    if (!inverter.invert<Arch>(std::as_const(X).view().transposed(), Y.view(), 1e-10)) break;
    // The scaling brings the singular values near 1 within a few rounds.
    const double g = std::sqrt(std::sqrt(detail::squared_distance<Arch>(Y.data(), nullptr, size) /
                                         detail::squared_distance<Arch>(X.data(), nullptr, size)));
    detail::combine<Arch>(0.5 * g, X.data(), 0.5 / g, Y.data(), size);
    const double change = std::sqrt(detail::squared_distance<Arch>(Y.data(), X.data(), size));
    std::swap(X, Y);

    // The distance from the factor is half the square of the last change.
    if (change <= 1e-7 * std::sqrt(double(A.rows))) return X;
  }

  const auto s = svd<Arch>(A);
  return product<Arch>(s.U.view(), View<const double>(s.V.view()).transposed());
}

/// A random orthogonal n × n matrix, uniform (Haar): QR of a Gaussian with the signs of R's
/// diagonal moved into Q.
template <class Arch = DefaultArch>
Matrix<double> random_orthogonal(Index n, const CounterRng& rng) {
  Matrix<double> gaussian(n, n);
  for (Index i = 0; i < n * n; ++i) gaussian.data()[i] = rng.normal(std::uint64_t(i));

  auto qr = thin_qr<Arch>(gaussian.view());
  for (Index j = 0; j < n; ++j)
    if (qr.R(j, j) < 0)
      for (Index i = 0; i < n; ++i) qr.Q(i, j) = -qr.Q(i, j);
  return std::move(qr.Q);
}

}  // namespace cafeq::linalg
