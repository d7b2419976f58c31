#pragma once
#include "cafeq/linalg/dense.hpp"
#include "support/random.hpp"

namespace cafeq::test {

inline Matrix<double> spd(Index n, std::uint64_t seed) {
  const auto A = gaussian<double>(n + 5, n, seed);
  return linalg::product(A.view().transposed(), A.view());
}

}  // namespace cafeq::test
