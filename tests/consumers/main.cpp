// What a program that uses cafeq looks like to its build system: one header that needs Eigen, xsimd
// and threads.
#include <cstdio>

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/kernel/gram.hpp"
#include "cafeq/linalg/dense.hpp"

int main() {
  cafeq::ThreadPool pool(2);
  const auto identity = cafeq::identity_matrix<float>(5);
  const auto gram = cafeq::kernel::gram<float>(identity.view(), pool);
  const auto inverse = cafeq::linalg::inverse(gram.view());
  std::printf("cafeq %s\n", CAFEQ_VERSION);
  return inverse && (*inverse)(4, 4) == 1.0 ? 0 : 1;
}
