// The matrix would be gone before its view is used.
// expect: MatrixView
#include "cafeq/core/matrix.hpp"

int main() {
#if defined(CAFEQ_MISUSE)
  auto view = cafeq::as_view(cafeq::Matrix<float>(2, 2));
#else
  cafeq::Matrix<float> matrix(2, 2);
  auto view = cafeq::as_view(matrix);
#endif
  return int(view.rows);
}
