#include "cafeq/kernel/fwht.hpp"

#include <bit>
#include <cmath>
#include <cstring>

#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;
using namespace cafeq::test;

TEMPLATE_TEST_CASE("fwht gives the bits of the reference, at any alignment", "", float, double) {
  for (Index n = 1; n <= 65536; n *= 2)
    for (const Index offset : {0, 1, 3}) {
      INFO("n " << n << " offset " << offset);
      auto x = gaussian<TestType>(1, n + 8, 1);
      auto expected = x;
      const auto scale = TestType(1 / std::sqrt(double(n)));
      kernel::fwht(x.data() + offset, n, scale);
      kernel::fwht_reference(expected.data() + offset, n, scale);
      REQUIRE(std::memcmp(x.data(), expected.data(), std::size_t(x.size()) * sizeof(TestType)) == 0);
    }
}

TEMPLATE_TEST_CASE("fwht is the product with the Sylvester matrix", "", float, double) {
  for (const Index n : {1, 2, 4, 8, 16, 64, 256}) {
    const auto x = gaussian<TestType>(1, n, 2);
    auto y = x;
    kernel::fwht(y.data(), n);
    for (Index j = 0; j < n; ++j) {
      double sum = 0;
      for (Index i = 0; i < n; ++i) sum += double(x.data()[i]) * (std::popcount(std::size_t(i & j)) % 2 == 0 ? 1 : -1);
      REQUIRE(double(y.data()[j]) == Approx(sum).margin(sizeof(TestType) == 4 ? 1e-4 : 1e-12));
    }
  }
}

TEMPLATE_TEST_CASE("blocks and rows of a matrix", "", float, double) {
  for (const Index n : {1, 2, 4, 8, 16, 32, 64, 128, 512})
    for (const Index count : {0, 1, 3, 7}) {
      INFO("n " << n << " count " << count);
      auto X = gaussian<TestType>(5, n * count + 3, 3);
      auto expected = X;
      kernel::fwht_rows(X.view().block(0, 1, 5, n * count), n, TestType(0.25));
      for (Index i = 0; i < 5; ++i)
        for (Index b = 0; b < count; ++b) kernel::fwht_reference(expected.data() + i * (n * count + 3) + 1 + b * n, n, TestType(0.25));
      REQUIRE(std::memcmp(X.data(), expected.data(), std::size_t(X.size()) * sizeof(TestType)) == 0);
    }
}
