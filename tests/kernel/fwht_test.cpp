#include "cafeq/kernel/fwht.hpp"

#include <bit>
#include <cmath>
#include <cstring>

#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace {

// (x ∘ before) H ∘ after for n elements, signs of them.
template <class T>
void reference(T* x, Index n, T scale, const T* before, const T* after) {
  for (Index i = 0; i < n && before; ++i) x[i] *= before[i];
  kernel::fwht_reference(x, n, scale);
  for (Index i = 0; i < n && after; ++i) x[i] *= after[i];
}

template <class T>
bool same_bits(const Matrix<T>& a, const Matrix<T>& b) {
  return std::memcmp(a.data(), b.data(), std::size_t(a.size()) * sizeof(T)) == 0;
}

}  // namespace

TEMPLATE_TEST_CASE("fwht gives the bits of the reference, at any alignment", "", float, double) {
  for (Index n = 1; n <= 65536; n *= 2)
    for (const Index offset : {0, 1, 3}) {
      INFO("n " << n << " offset " << offset);
      auto x = gaussian<TestType>(1, n + 8, 1);
      auto expected = x;
      const auto scale = TestType(1 / std::sqrt(double(n)));
      kernel::fwht(x.data() + offset, n, scale);
      kernel::fwht_reference(expected.data() + offset, n, scale);
      REQUIRE(same_bits(x, expected));
    }
}

TEMPLATE_TEST_CASE("fwht is the product with the Sylvester matrix", "", float, double) {
  for (const Index n : {1, 2, 4, 8, 16, 64, 256}) {
    const auto x = gaussian<TestType>(1, n, 2);
    auto y = x;
    kernel::fwht(y.data(), n);
    for (Index j = 0; j < n; ++j) {
      double sum = 0;
      for (Index i = 0; i < n; ++i)
        sum += double(x.data()[i]) * (std::popcount(std::size_t(i & j)) % 2 == 0 ? 1 : -1);
      REQUIRE(double(y.data()[j]) == Approx(sum).margin(sizeof(TestType) == 4 ? 1e-4 : 1e-12));
    }
  }
}

TEMPLATE_TEST_CASE("differences of equal elements are zeros of the reference's sign", "", float,
                   double) {
  for (const Index n : {2, 8, 64, 512, 4096}) {
    Matrix<TestType> x(1, n);
    for (Index i = 0; i < n; ++i) x(0, i) = i % 3 == 0 ? TestType(-0.0) : TestType(1);
    auto expected = x;
    kernel::fwht(x.data(), n);
    kernel::fwht_reference(expected.data(), n);
    CHECK(same_bits(x, expected));
  }
}

TEMPLATE_TEST_CASE("blocks and rows of a matrix, with and without signs", "", float, double) {
  for (const Index n : {1, 2, 4, 8, 16, 32, 64, 128, 512, 16384})
    for (const Index count : {0, 1, 3, 7})
      for (const int flips : {0, 1, 2, 3}) {
        if (n == 16384 && count > 1) continue;
        INFO("n " << n << " count " << count << " flips " << flips);
        auto X = gaussian<TestType>(5, n * count + 3, 3);
        auto expected = X;
        const auto b = signs<TestType>(n * count, 1);
        const auto a = signs<TestType>(n * count, 2);
        const TestType* before = flips & 1 ? b.data() : nullptr;
        const TestType* after = flips & 2 ? a.data() : nullptr;
        kernel::fwht_rows(X.view().block(0, 1, 5, n * count), n, TestType(0.3), {before, after});
        for (Index i = 0; i < 5; ++i)
          for (Index c = 0; c < count; ++c)
            reference(expected.data() + i * (n * count + 3) + 1 + c * n, n, TestType(0.3),
                      before ? before + c * n : nullptr, after ? after + c * n : nullptr);
        REQUIRE(same_bits(X, expected));
      }
}

TEST_CASE("rows of a matrix that is larger than the caches look ahead of") {
  auto X = gaussian<float>(70, 512, 4);
  auto expected = X;
  kernel::fwht_rows(X.view(), 256, 0.0625f);
  for (Index i = 0; i < 140; ++i) kernel::fwht_reference(expected.data() + i * 256, 256, 0.0625f);
  CHECK(same_bits(X, expected));
}
