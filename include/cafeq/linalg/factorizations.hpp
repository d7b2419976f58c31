/// What is left to Eigen: factorizations of small dense matrices, all in fp64. They are defined in
/// linalg/eigen.hpp, or in cafeq::compiled; no type of Eigen's appears here.
#pragma once

#include <optional>
#include <vector>

#include "cafeq/core/matrix.hpp"
#include "cafeq/simd/arch.hpp"

namespace cafeq::linalg {

/// H = L D Lᵀ with L unit lower triangular and D positive.
struct Ldl {
  Matrix<double> L;
  std::vector<double> D;
};

/// Nothing where H is not positive definite (to working precision).
template <class Arch = DefaultArch>
std::optional<Ldl> factor_ldl(View<const double> H);

/// H⁻¹ B for symmetric positive definite H; nothing where H is not.
template <class Arch = DefaultArch>
std::optional<Matrix<double>> solve_spd(View<const double> H, View<const double> B);

/// A = Q R.
struct Qr {
  Matrix<double> Q;  ///< [m, min(m, n)], orthonormal columns
  Matrix<double> R;  ///< [min(m, n), n], upper triangular
};

/// Thin QR by Householder reflections.
template <class Arch = DefaultArch>
Qr thin_qr(View<const double> A);

/// A = U diag(S) Vᵀ.
struct Svd {
  Matrix<double> U;
  std::vector<double> S;  ///< descending
  Matrix<double> V;
};

/// SVD of a square matrix, by Jacobi rotations without a preconditioner: that compiles fastest, and
/// small singular values keep their digits.
template <class Arch = DefaultArch>
Svd svd(View<const double> A);

/// What symmetric_eigen() finds.
struct SymmetricEigen {
  std::vector<double> values;  ///< ascending
  Matrix<double> vectors;      ///< A = V diag(values) Vᵀ, eigenvectors as columns
};

/// Of a symmetric A, of which the lower triangle is read.
template <class Arch = DefaultArch>
SymmetricEigen symmetric_eigen(View<const double> A);

}  // namespace cafeq::linalg
