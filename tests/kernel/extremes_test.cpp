#include "cafeq/kernel/extremes.hpp"

#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

TEST_CASE("range equals its reference at every length and start") {
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

TEST_CASE("ranges of groups are those of each group") {
  const auto data = test::gaussian<float>(1, 12300, 3, 100.0);
  for (const Index width : {1, 5, 16, 17, 32, 48, 64, 128, 256, 512, 1024, 4096, 5000})
    for (const Index n : {Index(0), Index(1), width - 1, width, 3 * width, 8 * width, 9 * width + 1,
                          17 * width + 5}) {
      if (n < 0 || n > 12200) continue;
      const auto x = data.row(0).subspan(1, std::size_t(n));
      CAPTURE(width, n);
      std::vector<float> low(std::size_t(ceil_div(n, width))), high(low.size());
      kernel::group_ranges(x, width, low, high);
      bool same_range = true;
      for (std::size_t g = 0; g < low.size(); ++g) {
        const auto group =
            x.subspan(g * std::size_t(width),
                      std::min(std::size_t(width), x.size() - g * std::size_t(width)));
        const auto range = kernel::range_reference(group);
        same_range &= low[g] == range.min && high[g] == range.max;
      }
      CHECK(same_range);
    }
}

TEST_CASE("groups of one sign have their range too") {
  for (const Index width : {16, 32, 64, 100, 640})
    for (const float sign : {1.0f, -1.0f}) {
      std::vector<float> x(std::size_t(20 * width));
      for (std::size_t i = 0; i < x.size(); ++i) x[i] = sign * float(1 + (7 * i) % 101);
      x[3] = 0;
      x[std::size_t(width) + 3] = -0.0f;
      std::vector<float> low(20), high(20);
      kernel::group_ranges(x, width, low, high);
      for (std::size_t g = 0; g < 20; ++g) {
        const auto range = kernel::range_reference(
            std::span(x).subspan(g * std::size_t(width), std::size_t(width)));
        CHECK(low[g] == range.min);
        CHECK(high[g] == range.max);
      }
      CHECK(kernel::range(x).min == std::min(0.0f, 101 * sign));
      CHECK(kernel::range(x).max == std::max(0.0f, 101 * sign));
    }
}

#if XSIMD_WITH_SSE2
TEST_CASE("the range does not depend on the width of the vectors") {
  const auto data = test::gaussian<float>(1, 777, 2);
  CHECK(kernel::range<xsimd::sse2>(data.row(0)).max == kernel::range(data.row(0)).max);
}
#endif
