/// The door to Eigen: what linalg/factorizations.hpp declares. Programs that link cafeq::compiled
/// never read it.
#pragma once

#include <Eigen/Cholesky>
#include <Eigen/Eigenvalues>
#include <Eigen/QR>
#include <Eigen/SVD>
#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "cafeq/linalg/factorizations.hpp"

namespace cafeq::linalg {

namespace detail {

using EigenMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using EigenView = Eigen::Map<EigenMatrix, 0, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>>;
using ConstEigenView =
    Eigen::Map<const EigenMatrix, 0, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>>;

inline ConstEigenView to_eigen(View<const double> A) {
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

template <class Arch>
std::optional<Ldl> factor_ldl(View<const double> H) {
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

template <class Arch>
std::optional<Matrix<double>> solve_spd(View<const double> H, View<const double> B) {
  const Eigen::LLT<detail::EigenMatrix> llt(detail::to_eigen(H));
  if (llt.info() != Eigen::Success) return std::nullopt;
  return detail::from_eigen(llt.solve(detail::to_eigen(B)));
}

template <class Arch>
Qr thin_qr(View<const double> A) {
  const Eigen::HouseholderQR<detail::EigenMatrix> qr(detail::to_eigen(A));
  const Index n = std::min(A.rows, A.cols);
  const detail::EigenMatrix Q = qr.householderQ() * detail::EigenMatrix::Identity(A.rows, n);
  const detail::EigenMatrix R = qr.matrixQR().topRows(n).template triangularView<Eigen::Upper>();
  return {detail::from_eigen(Q), detail::from_eigen(R)};
}

template <class Arch>
Svd svd(View<const double> A) {
  const Eigen::JacobiSVD<detail::EigenMatrix, Eigen::NoQRPreconditioner> svd(
      detail::to_eigen(A), Eigen::ComputeFullU | Eigen::ComputeFullV);
  Svd result{detail::from_eigen(svd.matrixU()), std::vector<double>(std::size_t(A.rows)),
             detail::from_eigen(svd.matrixV())};
  for (Index i = 0; i < A.rows; ++i) result.S[std::size_t(i)] = svd.singularValues()(i);
  return result;
}

template <class Arch>
SymmetricEigen symmetric_eigen(View<const double> A) {
  const Eigen::SelfAdjointEigenSolver<detail::EigenMatrix> solver(detail::to_eigen(A));
  SymmetricEigen result{std::vector<double>(std::size_t(A.rows)),
                        detail::from_eigen(solver.eigenvectors())};
  for (Index i = 0; i < A.rows; ++i) result.values[std::size_t(i)] = solver.eigenvalues()(i);
  return result;
}

}  // namespace cafeq::linalg
