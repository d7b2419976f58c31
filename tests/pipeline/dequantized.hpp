#pragma once
#include "cafeq/core/matrix.hpp"

namespace cafeq::test {

template <class Q>
Matrix<float> dequantized(const Q& q) {
  Matrix<float> out(q.rows(), q.cols());
  q.dequantize(out);
  return out;
}

}  // namespace cafeq::test
