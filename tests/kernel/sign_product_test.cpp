#include "cafeq/kernel/sign_product.hpp"

#include <cstring>

#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace {

Matrix<float> random_signs(Index m) {
  Matrix<float> S(m, m);
  for (Index i = 0; i < m * m; ++i) S.data()[i] = CounterRng(9, 5).sign(std::uint64_t(i));
  return S;
}

template <class T>
Buffer<T> scratch(Index m) {
  return Buffer<T>(std::size_t(kernel::sign_product_scratch<T>(m)));
}

}  // namespace

TEMPLATE_TEST_CASE(
    "sign_product gives the bits of the reference, at any width, alignment and stride", "", float,
    double) {
  for (const Index m : {4, 8, 12, 20, 28, 92, 344})
    for (const Index cols : {0, 1, 7, 8, 16, 17, 33, 129}) {
      const auto S = random_signs(m);
      INFO("m " << m << " columns " << cols);
      const auto codes = kernel::sign_codes(S.view());
      auto X = gaussian<TestType>(m, cols + 4, 1);
      if (m > 4 && cols > 0) X(0, 3) = X(1, 3) = TestType(-0.0);
      auto expected = X;
      auto space = scratch<TestType>(m);
      kernel::sign_product<TestType>(codes.data(), X.view().block(0, 3, m, cols), space);
      kernel::sign_product_reference<TestType>(codes.data(), expected.view().block(0, 3, m, cols),
                                               space);
      REQUIRE(std::memcmp(X.data(), expected.data(), std::size_t(X.size()) * sizeof(TestType)) ==
              0);
    }
}

TEST_CASE("sign_product is the product with the signs") {
  const Index m = 20;
  const auto S = random_signs(m);
  const auto X = gaussian<double>(m, 21, 2);
  auto Y = X;
  auto space = scratch<double>(m);
  kernel::sign_product<double>(kernel::sign_codes(S.view()).data(), Y.view(), space);
  for (Index i = 0; i < m; ++i)
    for (Index c = 0; c < 21; ++c) {
      double sum = 0;
      for (Index j = 0; j < m; ++j) sum += double(S(i, j)) * X(j, c);
      REQUIRE(Y(i, c) == Approx(sum).margin(1e-13));
    }
}
