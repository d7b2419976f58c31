/// In cafeq::compiled: what Eigen does.
#pragma once

#include "cafeq/compiled/instance.hpp"
#include "cafeq/linalg/factorizations.hpp"

namespace cafeq::linalg {

CAFEQ_INSTANCE std::optional<Ldl> factor_ldl<DefaultArch>(View<const double>);
CAFEQ_INSTANCE std::optional<Matrix<double>> solve_spd<DefaultArch>(View<const double>,
                                                                    View<const double>);
CAFEQ_INSTANCE Qr thin_qr<DefaultArch>(View<const double>);
CAFEQ_INSTANCE Svd svd<DefaultArch>(View<const double>);
CAFEQ_INSTANCE SymmetricEigen symmetric_eigen<DefaultArch>(View<const double>);

}  // namespace cafeq::linalg
