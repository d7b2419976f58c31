/// The door to Eigen: factorizations and solves of small dense matrices, all in fp64.
///
/// Sizes are those of blocks and heads (up to a few hundred). No Eigen type appears in a signature.
#pragma once

#include <Eigen/Cholesky>
#include <Eigen/Eigenvalues>
#include <Eigen/QR>
#include <Eigen/SVD>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "cafeq/core/matrix.hpp"
#include "cafeq/core/rng.hpp"
#include "cafeq/kernel/dense_product.hpp"
#include "cafeq/linalg/inverse.hpp"

namespace cafeq::linalg {

namespace detail {

using EigenMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using EigenView = Eigen::Map<EigenMatrix, 0, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>>;
using ConstEigenView =
    Eigen::Map<const EigenMatrix, 0, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>>;

CAFEQ_LAZY ConstEigenView to_eigen(View<const double> A) {
  return {A.data, A.rows, A.cols,
          Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>(A.row_stride, A.col_stride)};
}
template <class Derived>
Matrix<double> from_eigen(const Eigen::MatrixBase<Derived>& A) {
  Matrix<double> result(A.rows(), A.cols());
  EigenView(result.data(), A.rows(), A.cols(),
            Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>(A.cols(), 1)) = A;
  return result;
}

}  // namespace detail

/// A·B, [m, k]·[k, n].
inline Matrix<double> product(View<const double> A, View<const double> B) {
  Matrix<double> result(A.rows, B.cols);
  kernel::multiply<double>(A, B, result.view());
  return result;
}

/// A ← A + part · (mean of the diagonal) · I, so that a Gram matrix that lost rank can still be
/// factored; a zero A becomes the identity.
inline void add_ridge(Matrix<double>& A, double part) noexcept {
  double mean = 0;
  for (Index i = 0; i < A.rows(); ++i) mean += A(i, i) / double(A.rows());
  for (Index i = 0; i < A.rows(); ++i) A(i, i) += mean > 0 ? part * mean : 1.0;
}

/// H = L D Lᵀ with L unit lower triangular and D positive.
struct Ldl {
  Matrix<double> L;
  std::vector<double> D;
};

/// Nothing where H is not positive definite (to working precision).
CAFEQ_LAZY std::optional<Ldl> factor_ldl(View<const double> H) {
  const Eigen::LLT<detail::EigenMatrix> llt(detail::to_eigen(H));
  if (llt.info() != Eigen::Success) return std::nullopt;
  Ldl result{detail::from_eigen(detail::EigenMatrix(llt.matrixL())),
             std::vector<double>(std::size_t(H.rows))};
  for (Index j = 0; j < H.rows; ++j) {
    const double d = result.L(j, j);
    if (!(d > 0) || !std::isfinite(d)) return std::nullopt;
    result.D[std::size_t(j)] = d * d;
    for (Index i = j; i < H.rows; ++i) result.L(i, j) /= d;
  }
  return result;
}

/// H⁻¹ B for symmetric positive definite H; nothing where H is not.
CAFEQ_LAZY std::optional<Matrix<double>> solve_spd(View<const double> H, View<const double> B) {
  const Eigen::LLT<detail::EigenMatrix> llt(detail::to_eigen(H));
  if (llt.info() != Eigen::Success) return std::nullopt;
  return detail::from_eigen(llt.solve(detail::to_eigen(B)));
}

/// A⁻¹; nothing where A is not finite, or its reciprocal condition number in the 1-norm not above
/// `min_rcond`. An Inverter does the same without allocating.
inline std::optional<Matrix<double>> inverse(View<const double> A, double min_rcond = 1e-14) {
  Matrix<double> result(A.rows, A.cols);
  if (!Inverter().invert(A, result.view(), min_rcond)) return std::nullopt;
  return result;
}

/// A = Q R.
struct Qr {
  Matrix<double> Q;  ///< [m, min(m, n)], orthonormal columns
  Matrix<double> R;  ///< [min(m, n), n], upper triangular
};

/// Thin QR by Householder reflections.
CAFEQ_LAZY Qr thin_qr(View<const double> A) {
  const Eigen::HouseholderQR<detail::EigenMatrix> qr(detail::to_eigen(A));
  const Index n = std::min(A.rows, A.cols);
  const detail::EigenMatrix Q = qr.householderQ() * detail::EigenMatrix::Identity(A.rows, n);
  const detail::EigenMatrix R = qr.matrixQR().topRows(n).template triangularView<Eigen::Upper>();
  return {detail::from_eigen(Q), detail::from_eigen(R)};
}

/// A = U diag(S) Vᵀ.
struct Svd {
  Matrix<double> U;
  std::vector<double> S;  ///< descending
  Matrix<double> V;
};

/// SVD of a square matrix, by Jacobi rotations without a preconditioner: that compiles fastest, and
/// small singular values keep their digits.
CAFEQ_LAZY Svd svd(View<const double> A) {
  const Eigen::JacobiSVD<detail::EigenMatrix, Eigen::NoQRPreconditioner> svd(
      detail::to_eigen(A), Eigen::ComputeFullU | Eigen::ComputeFullV);
  Svd result{detail::from_eigen(svd.matrixU()), std::vector<double>(std::size_t(A.rows)),
             detail::from_eigen(svd.matrixV())};
  for (Index i = 0; i < A.rows; ++i) result.S[std::size_t(i)] = svd.singularValues()(i);
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
CAFEQ_LAZY Matrix<double> polar(View<const double> A) {
  const Index size = A.rows * A.rows;
  Matrix<double> X = to_matrix<double>(A);
  Matrix<double> Y(A.rows, A.rows);
  Inverter inverter;
  CAFEQ_ASSERT(!finite_fault(A, "A"));

  for (int round = 0; round < 30; ++round) {
    if (!inverter.invert(std::as_const(X).view().transposed(), Y.view(), 1e-10)) break;
    // The scaling brings the singular values near 1 within a few rounds.
    const double g = std::sqrt(std::sqrt(detail::squared_distance(Y.data(), nullptr, size) /
                                         detail::squared_distance(X.data(), nullptr, size)));
    detail::combine(0.5 * g, X.data(), 0.5 / g, Y.data(), size);
    const double change = std::sqrt(detail::squared_distance(Y.data(), X.data(), size));
    std::swap(X, Y);

    // The distance from the factor is half the square of the last change.
    if (change <= 1e-7 * std::sqrt(double(A.rows))) return X;
  }

  const auto s = svd(A);
  return product(s.U.view(), View<const double>(s.V.view()).transposed());
}

/// What symmetric_eigen() finds.
struct SymmetricEigen {
  std::vector<double> values;  ///< ascending
  Matrix<double> vectors;      ///< A = V diag(values) Vᵀ, eigenvectors as columns
};

/// Of a symmetric A, of which the lower triangle is read.
CAFEQ_LAZY SymmetricEigen symmetric_eigen(View<const double> A) {
  const Eigen::SelfAdjointEigenSolver<detail::EigenMatrix> solver(detail::to_eigen(A));
  SymmetricEigen result{std::vector<double>(std::size_t(A.rows)),
                        detail::from_eigen(solver.eigenvectors())};
  for (Index i = 0; i < A.rows; ++i) result.values[std::size_t(i)] = solver.eigenvalues()(i);
  return result;
}

/// A random orthogonal n × n matrix, uniform (Haar): QR of a Gaussian with the signs of R's
/// diagonal moved into Q.
CAFEQ_LAZY Matrix<double> random_orthogonal(Index n, const CounterRng& rng) {
  Matrix<double> gaussian(n, n);
  for (Index i = 0; i < n * n; ++i) gaussian.data()[i] = rng.normal(std::uint64_t(i));

  auto qr = thin_qr(gaussian.view());
  for (Index j = 0; j < n; ++j)
    if (qr.R(j, j) < 0)
      for (Index i = 0; i < n; ++i) qr.Q(i, j) = -qr.Q(i, j);
  return std::move(qr.Q);
}

}  // namespace cafeq::linalg
