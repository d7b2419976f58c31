// An Eigen expression has no elements to look at.
// expect: MatrixView
#include <Eigen/Core>

#include "cafeq/core/as_view.hpp"

int main() {
  Eigen::MatrixXf a = Eigen::MatrixXf::Zero(2, 2);
#if defined(CAFEQ_MISUSE)
  auto view = cafeq::as_view(a + a);
#else
  auto view = cafeq::as_view(a);
#endif
  return int(view.rows);
}
