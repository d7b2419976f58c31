// One piece of work, compiled twice: for the x86-64 baseline and for x86-64-v3.
#pragma once
#include <vector>

std::vector<float> work_baseline();
std::vector<float> work_v3();

#if defined(CAFEQ_TWO_FLAGS_WORK)
#include "cafeq/core/matrix.hpp"
#include "cafeq/core/rng.hpp"
#include "cafeq/core/thread_pool.hpp"
#include "cafeq/kernel/dense_product.hpp"
#include "cafeq/kernel/gram.hpp"
#include "cafeq/linalg/dense.hpp"

inline cafeq::Matrix<float> two_flags_input() {
  cafeq::Matrix<float> a(37, 29);
  const cafeq::CounterRng rng(1);
  for (cafeq::Index i = 0; i < a.size(); ++i) a.data()[i] = float(rng.normal(std::uint64_t(i)));
  return a;
}

/// A product, a Gram matrix and its factors: own kernels, Eigen and threads.
std::vector<float> CAFEQ_TWO_FLAGS_WORK() {
  const cafeq::Matrix<float> a = two_flags_input();
  cafeq::ThreadPool pool(2);
  cafeq::Matrix<float> product(a.cols(), a.cols());
  cafeq::kernel::multiply<float>(a.view().transposed(), a.view(), product.view());
  const auto gram = cafeq::kernel::gram<float>(a.view(), pool);
  const auto ldl = cafeq::linalg::factor_ldl(gram.view());
  const auto inverse = cafeq::linalg::inverse(gram.view());
  const auto polar = cafeq::linalg::polar(gram.view());
  const auto svd = cafeq::linalg::svd(gram.view());
  std::vector<float> result;
  for (cafeq::Index i = 0; i < product.size(); ++i) {
    result.push_back(product.data()[i]);
    result.push_back(float(ldl->L.data()[i]));
    result.push_back(float(inverse->data()[i]));
    result.push_back(float(polar.data()[i]));
  }
  for (const double s : svd.S) result.push_back(float(s));
  return result;
}
#endif
