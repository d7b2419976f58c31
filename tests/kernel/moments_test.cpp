#include "cafeq/kernel/moments.hpp"

#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

namespace {

// Vector and scalar code run the agree chain of operations, fused where the processor can.
bool agree(double a, double b) {
#if defined(__FMA__)
  return a == b;
#else
  return std::abs(a - b) <= 1e-5 * std::abs(b) + 1e-12;
#endif
}

}  // namespace

TEST_CASE("moments equal their reference at every length and start") {
  const auto data = test::gaussian<float>(1, 9000, 1, 100.0);
  for (const Index n : {0, 1, 2, 7, 15, 16, 17, 31, 33, 64, 129, 4095, 4096, 4097, 8500})
    for (const Index start : {0, 1, 3}) {
      const auto x = data.row(0).subspan(std::size_t(start), std::size_t(n));
      CAPTURE(n, start);
      const auto moments = kernel::moments(x);
      const auto reference = kernel::moments_reference(x);
      CHECK(agree(moments.sum, reference.sum));
      CHECK(agree(moments.sum_squares, reference.sum_squares));
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

TEST_CASE("moments of groups are those of each group") {
  const auto data = test::gaussian<float>(1, 12300, 3, 100.0);
  for (const Index width : {1, 5, 16, 17, 32, 48, 64, 128, 256, 512, 1024, 4096, 5000})
    for (const Index n : {Index(0), Index(1), width - 1, width, 3 * width, 8 * width, 9 * width + 1,
                          17 * width + 5}) {
      if (n < 0 || n > 12200) continue;
      const auto x = data.row(0).subspan(1, std::size_t(n));
      CAPTURE(width, n);
      std::vector<kernel::Moments> moments(std::size_t(ceil_div(n, width)));
      kernel::group_moments(x, width, moments);
      bool same_moments = true;
      for (std::size_t g = 0; g < moments.size(); ++g) {
        const auto group =
            x.subspan(g * std::size_t(width),
                      std::min(std::size_t(width), x.size() - g * std::size_t(width)));
        const auto expected = kernel::moments(group);
        same_moments &=
            moments[g].sum == expected.sum && moments[g].sum_squares == expected.sum_squares;
      }
      CHECK(same_moments);
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
}
#endif
