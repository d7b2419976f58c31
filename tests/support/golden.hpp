// Golden values: fp64 results of an independent implementation (see tests/golden/README.md).
#pragma once
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "cafeq/core/matrix.hpp"

#ifndef CAFEQ_TEST_GOLDEN_DIR
#define CAFEQ_TEST_GOLDEN_DIR "tests/golden"
#endif

namespace cafeq::test {

inline nlohmann::json golden(const std::string& name) {
  std::ifstream in(std::string(CAFEQ_TEST_GOLDEN_DIR) + "/" + name);
  return nlohmann::json::parse(in);
}

template <class T = double>
Matrix<T> golden_matrix(const nlohmann::json& rows) {
  Matrix<T> m(Index(rows.size()), Index(rows.at(0).size()));
  for (Index i = 0; i < m.rows(); ++i)
    for (Index j = 0; j < m.cols(); ++j)
      m(i, j) = T(rows[std::size_t(i)][std::size_t(j)].get<double>());
  return m;
}

}  // namespace cafeq::test
