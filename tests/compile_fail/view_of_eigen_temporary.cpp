// The matrix would be gone before its view is used.
// expect: MatrixView
#include <Eigen/Core>

#include "cafeq/core/as_view.hpp"

Eigen::MatrixXf make() { return Eigen::MatrixXf::Zero(2, 2); }

int main() {
#if defined(CAFEQ_MISUSE)
  auto view = cafeq::as_view(make());
#else
  auto matrix = make();
  auto view = cafeq::as_view(matrix);
#endif
  return int(view.rows);
}
