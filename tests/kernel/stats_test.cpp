#include "cafeq/kernel/stats.hpp"

#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

namespace {

// Vector and scalar code run the same chain of operations, fused where the processor can.
bool same(double a, double b) {
#if defined(__FMA__)
  return a == b;
#else
  return std::abs(a - b) <= 1e-5 * std::abs(b) + 1e-12;
#endif
}

}  // namespace

TEST_CASE("range and moments equal their references at every length and start") {
  const auto data = test::gaussian<float>(1, 9000, 1, 100.0);
  for (const Index n : {0, 1, 2, 7, 15, 16, 17, 31, 33, 64, 129, 4095, 4096, 4097, 8500})
    for (const Index start : {0, 1, 3}) {
      const auto x = data.row(0).subspan(std::size_t(start), std::size_t(n));
      CAPTURE(n, start);
      const auto range = kernel::range(x);
      const auto expected = kernel::range_reference(x);
      CHECK(range.min == expected.min);
      CHECK(range.max == expected.max);
      CHECK(range.absmax() == std::max(std::abs(expected.min), std::abs(expected.max)));
      const auto moments = kernel::moments(x);
      const auto reference = kernel::moments_reference(x);
      CHECK(same(moments.sum, reference.sum));
      CHECK(same(moments.sum_squares, reference.sum_squares));
      double sum = 0, squares = 0, absolute = 0;
      for (const float v : x) {
        sum += double(v);
        absolute += std::abs(double(v));
        squares += double(v) * double(v);
      }
      CHECK(std::abs(moments.sum - sum) <= 260 * 0x1p-24 * absolute);
      CHECK(std::abs(moments.sum_squares - squares) <= 260 * 0x1p-24 * squares);
    }
}

TEST_CASE("range finds the extremes wherever they are, alone or negative") {
  for (const Index n : {1, 7, 17, 33, 129})
    for (Index i = 0; i < n; ++i) {
      std::vector<float> x(std::size_t(n), -5.0f);
      x[std::size_t(i)] = -7;
      CHECK(kernel::range(x).min == -7);
      CHECK(kernel::range(x).absmax() == 7);
      x[std::size_t(i)] = -3;
      CHECK(kernel::range(x).max == -3);
    }
}

TEST_CASE("moments of many terms do not drift") {
  const std::vector<float> x(3'000'000, 1.1f);
  const double n = 3e6;
  CHECK(kernel::moments(x).sum == Approx(n * double(1.1f)).epsilon(1.6e-5));
  CHECK(kernel::moments(x).sum_squares == Approx(n * double(1.1f) * double(1.1f)).epsilon(1.6e-5));
}

#if XSIMD_WITH_SSE2
TEST_CASE("the order of a sum does not depend on the width of the vectors") {
  const auto data = test::gaussian<float>(1, 777, 2);
  CHECK(kernel::moments<xsimd::sse2>(data.row(0)).sum == kernel::moments(data.row(0)).sum);
  CHECK(kernel::range<xsimd::sse2>(data.row(0)).max == kernel::range(data.row(0)).max);
}
#endif
