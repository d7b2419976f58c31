// Weights are floating point.
// expect: cafeq: elements must be float, double, bf16 or fp16
#include <Eigen/Core>

#include "cafeq/core/as_view.hpp"

int main() {
#if defined(CAFEQ_MISUSE)
  Eigen::MatrixXi a = Eigen::MatrixXi::Zero(2, 2);
#else
  Eigen::MatrixXd a = Eigen::MatrixXd::Zero(2, 2);
#endif
  return int(cafeq::as_view(a).rows);
}
