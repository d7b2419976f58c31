#include "cafeq/kernel/row_range.hpp"

#include <limits>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

namespace {

const Index awkward_sizes[] = {1, 2, 7, 8, 9, 16, 17, 33, 129, 257, 512, 1025};

/// Largest error of the kernels' sum, relative, and of their slopes, relative to the largest slope
/// (which is about 1 by construction).
template <class Range>
void check_row(const Range& range, const float* x, Index n) {
  const float peak = kernel::row_peak(x, n);
  REQUIRE(peak == kernel::row_peak_reference(x, n));
  std::vector<double> expected(static_cast<std::size_t>(n));
  const double reference = kernel::row_sum_reference(range, x, n, peak, expected.data());
  std::vector<float> slope(std::size_t(n) + 1, 77.0f);
  const double sum = kernel::row_sum(range, x, n, peak, slope.data());
  CHECK(sum == Approx(reference).epsilon(4e-6));
  double worst = 0;
  for (std::size_t j = 0; j < std::size_t(n); ++j)
    worst = std::max(worst, std::abs(double(slope[j]) - expected[j]));
  CHECK(worst < 4e-6);
  CHECK(slope.back() == 77.0f);  // nothing written beyond the end

  std::vector<float> in_place(x, x + n);
  CHECK(kernel::row_sum(range, in_place.data(), n, peak, in_place.data()) == sum);
  slope.pop_back();
  CHECK(in_place == slope);
}

}  // namespace

TEST_CASE("power range of a row agrees with its reference", "[kernel][range]") {
  for (const int p : {2, 4, 6, 8, 10, 16, 32})
    for (const Index n : awkward_sizes) {
      const auto x = test::gaussian(1, n + 1, std::uint64_t(n), 3.0);
      check_row(kernel::PowerRange(p), x.data(), n);
      check_row(kernel::PowerRange(p), x.data() + 1, n);  // unaligned
    }
}

TEST_CASE("exponential range of a row agrees with its reference", "[kernel][range]") {
  for (const float t : {0.5f, 5.0f, 20.0f})
    for (const double scale : {1e-3, 1.0, 20.0})
      for (const Index n : awkward_sizes) {
        const auto x = test::gaussian(1, n + 1, std::uint64_t(n), scale);
        check_row(kernel::ExponentialRange(t), x.data() + 1, n);
      }
}

TEST_CASE("sums of the power range are exact where powers are", "[kernel][range]") {
  // Peaks of every magnitude: only ratios count.
  for (const float scale : {1e-37f, 1e-20f, 1.0f, 1e20f, 1e38f}) {
    const float x[3] = {scale, -scale / 2, 0};
    float slope[3];
    CHECK(kernel::row_sum(kernel::PowerRange(8), x, 3, scale, slope) ==
          Approx(1.0 + 0x1p-8).epsilon(1e-6));
    CHECK(slope[0] == Approx(1.0f).epsilon(1e-6));
    CHECK(slope[1] == Approx(-0x1p-7f).epsilon(1e-6));
    CHECK(slope[2] == 0.0f);
  }
}

TEST_CASE("ranges of zeros, tiny entries and large exponents stay finite", "[kernel][range]") {
  const float zeros[9] = {};
  float slope[9];
  CHECK(kernel::row_peak(zeros, 9) == 0.0f);
  CHECK(kernel::row_peak(zeros, 0) == 0.0f);
  CHECK(kernel::row_sum(kernel::PowerRange(8), zeros, 9, 0.0f, slope) == 0.0);
  CHECK(kernel::row_sum(kernel::ExponentialRange(5), zeros, 9, 0.0f, slope) == Approx(18.0));
  for (const float s : slope) CHECK(s == 0.0f);

  // A subnormal peak counts as zero; entries far below the peak leave no subnormals.
  const float subnormal[2] = {1e-41f, -1e-41f};
  CHECK(kernel::row_sum(kernel::PowerRange(8), subnormal, 2, 1e-41f, slope) == 0.0);
  const float mixed[3] = {1.0f, 1e-6f, -1e-3f};
  CHECK(kernel::row_sum(kernel::PowerRange(16), mixed, 3, 1.0f, slope) == 1.0);
  CHECK(slope[1] == 0.0f);
  CHECK(slope[2] == 0.0f);

  // t·peak = 5000: e^5000 overflows, the shifted sum does not; an entry of zero has slope zero.
  const float large[4] = {1000.0f, 0.0f, -1000.0f, 1.0f};
  CHECK(kernel::row_sum(kernel::ExponentialRange(5), large, 4, 1000.0f, slope) == Approx(2.0));
  CHECK(slope[0] == Approx(1.0f));
  CHECK(slope[1] == Approx(0.0f).margin(1e-30));
  CHECK(slope[2] == Approx(-1.0f));
}

TEST_CASE("not-a-number reaches the sum", "[kernel][range]") {
  for (const Index n : {3, 8, 40}) {
    std::vector<float> x(std::size_t(n), 1.0f);
    std::vector<float> slope(x.size());
    x[std::size_t(n / 2)] = std::numeric_limits<float>::quiet_NaN();
    CHECK(std::isnan(kernel::row_sum(kernel::PowerRange(8), x.data(), n, 1.0f, slope.data())));
    CHECK(
        std::isnan(kernel::row_sum(kernel::ExponentialRange(5), x.data(), n, 1.0f, slope.data())));
    CHECK(std::isnan(kernel::row_value(kernel::ExponentialRange(5), x.data(), n, 1.0f)));
  }
}

TEST_CASE("values alone, gradients and long sets agree with the two passes", "[kernel][range]") {
  const auto check = [](const auto& phi, Index n) {
    CAPTURE(n);
    auto x = test::gaussian(1, n, 21, 2.0);
    x.data()[n / 3] = -9.5f;  // the peak comes late
    std::vector<float> expected(static_cast<std::size_t>(n));
    const float peak = kernel::row_peak(x.data(), n);
    const double sum = kernel::row_sum(phi, x.data(), n, peak, expected.data());
    CHECK(kernel::row_value(phi, x.data(), n, peak) == sum);
    const kernel::PeakSum range = kernel::row_range(phi, x.data(), n);
    CHECK(range.peak == peak);
    CHECK(range.sum == Approx(sum).epsilon(1e-6));
    if (n <= 65536) CHECK(range.sum == sum);
    std::vector<float> slopes(static_cast<std::size_t>(n));
    kernel::row_slopes(phi, x.data(), n, peak, 0.5f, slopes.data());
    kernel::row_gradient(phi, x.data(), n, [&](float a, double s) {
      CHECK(a == peak);
      CHECK(s == range.sum);
      return 0.5f;
    });
    bool same = true;
    for (std::size_t j = 0; j < expected.size(); ++j)
      same = same && slopes[j] == 0.5f * expected[j] && x.data()[j] == slopes[j];
    CHECK(same);
  };
  for (const Index n : {1, 17, 1024, 4097, 65537, 70000}) {
    check(kernel::PowerRange(8), n);
    check(kernel::PowerRange(6), n);
    check(kernel::ExponentialRange(5), n);
  }
}

TEST_CASE("long sums stay exact to single precision", "[kernel][range]") {
  const Index n = 400000;  // one running sum a lane would be off by 1e-5
  std::vector<float> x(static_cast<std::size_t>(n), 0.7f);
  x[9] = 1;
  const double r = double(0.7f);
  CHECK(kernel::row_range(kernel::PowerRange(8), x.data(), n).sum ==
        Approx(1 + double(n - 1) * std::pow(r, 8)).epsilon(2e-6));
  const double term = std::exp(5 * r - 5) + std::exp(-5 * r - 5);
  CHECK(kernel::row_range(kernel::ExponentialRange(5), x.data(), n).sum ==
        Approx(1 + std::exp(-10.0) + double(n - 1) * term).epsilon(2e-6));
}

TEST_CASE("exponentials of every size are good to single precision", "[kernel][range]") {
  // One entry below a peak of 8: u = t|x| − a runs from 0 to −80, and the smaller exponential with
  // it.
  for (const float t : {0.5f, 2.0f, 5.0f, 10.0f}) {
    const kernel::ExponentialRange phi(t);
    for (Index i = 0; i <= 1000; ++i) {
      const float x[1] = {8.0f * float(i) / 1000};
      float slope[1];
      double exact_slope[1];
      const double exact = kernel::row_sum_reference(phi, x, 1, 8.0f, exact_slope);
      const double u = double(t) * 8 - double(t) * double(x[0]);
      CHECK(kernel::row_sum(phi, x, 1, 8.0f, slope) ==
            Approx(exact).epsilon(2e-7 + 1.2e-7 * u).margin(1e-18));
      CHECK(std::abs(double(slope[0]) - exact_slope[0]) < (3e-7 + 1.2e-7 * u) * exact + 1e-18);
    }
  }
}

TEST_CASE("scaling of rows", "[kernel][range]") {
  for (const Index n : {0, 1, 7, 17, 33, 129}) {
    const auto X = test::gaussian(3, n + 1, 8);
    auto work = X;
    kernel::scale_row(work.data(), n, 3.0f);
    for (Index j = 0; j <= n; ++j) CHECK(work(0, j) == (j < n ? 3.0f * X(0, j) : X(0, j)));
  }
}
