#include "cafeq/linalg/ldl.hpp"

#include <cmath>
#include <cstring>
#include <limits>

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/kernel/gram.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/golden.hpp"
#include "support/random.hpp"

using namespace cafeq;

namespace {

Matrix<double> gram_of_random(Index n, std::uint64_t seed) {
  const auto A = test::gaussian<float>(n + 8, n, seed);
  auto H = kernel::gram<float>(A.view());
  for (Index i = 0; i < n; ++i) H(i, i) += 0.1;
  return H;
}

/// The meaning: column after column, each element one chain.
Matrix<float> reference(Matrix<double> G) {
  const Index n = G.rows();
  Matrix<float> U(n, n);
  for (Index j = 0; j < n; ++j)
    for (Index i = j; i < n; ++i) {
      double sum = -G(i, j);
      for (Index k = 0; k < j; ++k) sum = std::fma(G(i, k), G(j, k), sum);
      G(i, j) = i == j ? std::sqrt(-sum) : -sum * (1 / G(j, j));
      U(j, i) = i == j ? 1.0f : float(G(i, j) * (1 / G(j, j)));
    }
  return U;
}

}  // namespace

TEST_CASE("The transposed factor, by the definition, for sizes within and across panels") {
  for (const Index n : test::sweep<Index>({0, 1, 2, 7, 16, 17, 33, 127, 128, 129, 150, 300},
                                          {0, 1, 2, 7, 16, 17, 33, 128, 129})) {
    INFO("n " << n);
    const auto H = gram_of_random(n, 1);
    const auto U = linalg::factor_ldl_transposed(H.view());
    REQUIRE(U);
    const auto expected = reference(H);
    float worst = 0;
    for (Index j = 0; j < n; ++j) {
      REQUIRE((*U)(j, j) == 1);
      for (Index i = 0; i < j; ++i) REQUIRE((*U)(j, i) == 0);
      for (Index i = j; i < n; ++i) worst = std::max(worst, std::abs((*U)(j, i) - expected(j, i)));
    }
    CHECK(worst < 1e-6f);
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    CHECK((n == 0 ||
           std::memcmp(U->data(), expected.data(), sizeof(float) * std::size_t(n * n)) == 0));
#endif
  }
  const auto golden = test::golden("ldlq.json");
  const auto H = test::golden_matrix(golden["H"]);
  const auto L = test::golden_matrix(golden["L"]);
  const auto U = linalg::factor_ldl_transposed(H.view());
  REQUIRE(U);
  for (Index i = 0; i < L.rows(); ++i)
    for (Index j = 0; j < L.cols(); ++j) CHECK(double((*U)(j, i)) == Approx(L(i, j)).margin(1e-6));
}

TEST_CASE("Threads change no bit of a factor, and above the diagonal nothing is read") {
  auto H = gram_of_random(300, 2);
  const auto expected = linalg::factor_ldl_transposed(H.view());
  REQUIRE(expected);
  for (Index i = 0; i < 300; ++i)
    for (Index j = i + 1; j < 300; ++j) H(i, j) = std::numeric_limits<double>::quiet_NaN();
  for (const Index threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    const auto U = linalg::factor_ldl_transposed(H.view(), pool);
    REQUIRE(U);
    CHECK(std::memcmp(U->data(), expected->data(), sizeof(float) * 300 * 300) == 0);
  }
}

TEST_CASE("What is not positive definite has no factor, wherever that shows") {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const Index n : {6, 40, 200})
    for (const Index at : {Index(0), n / 2, n - 1})
      for (const double bad : {-1.0, 0.0, infinity, std::numeric_limits<double>::quiet_NaN()}) {
        auto H = gram_of_random(n, 5);
        H(at, at) = bad;
        CHECK_FALSE(linalg::factor_ldl_transposed(H.view()));
      }
}
