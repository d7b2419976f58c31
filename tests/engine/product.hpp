// Y of a product.
#pragma once

#include "engine/kernels.hpp"

namespace engine::test {

/// [X.rows(), out]
inline Matrix<float> product(const Product& multiply, const Matrix<float>& X, Index out,
                             cafeq::ExecutorRef threads = {}) {
  Matrix<float> Y(X.rows(), out);
  multiply(X.view(), Y.view(), threads);
  return Y;
}

}  // namespace engine::test
