#include "cafeq/core/bit_scan.hpp"

#include <cmath>
#include <vector>

#include "support/catch.hpp"

using namespace cafeq;

namespace {

template <class T>
void check_type() {
  using Scan = detail::BitScan<T>;
  const float infinity = std::numeric_limits<float>::infinity();
  const float ascending[] = {0.0f, 0x1p-24f, 0.5f, 1.0f, 1.5f, 24576.0f};
  for (const float a : ascending)
    for (const float b : ascending)
      for (const Index stride : {1, 3}) {
        const T x[4] = {T(-a), T(0.25f), T(0.25f), T(b)};  // stride 3 sees the ends
        Scan scan(x[0]);
        scan.line(x, stride == 1 ? 4 : 2, stride);
        CHECK(scan.largest_value() == double(std::max({a, b, stride == 1 ? 0.25f : 0.0f})));
        CHECK(scan.finite());
        CHECK_FALSE(scan.constant());
      }
  for (const float bad : {infinity, -infinity, std::nanf(""), -std::nanf("")}) {
    const T x[2] = {T(bad), T(bad)};
    Scan scan(x[0]);
    scan.line(x, 2, 1);
    CHECK_FALSE(scan.finite());
    CHECK(scan.has_nan() == std::isnan(bad));
    CHECK(scan.constant() == !std::isnan(bad));
  }
}

}  // namespace

TEST_CASE("bits are ordered as magnitudes", "[core][bit_scan]") {
  check_type<float>();
  check_type<double>();
  check_type<bf16>();
  check_type<fp16>();
}

TEST_CASE("scans merge as if they were one", "[core][bit_scan]") {
  const float x[4] = {2, 2, -3, -3};
  detail::BitScan<float> left(x[0]), right(x[2]);
  left.line(x, 2, 1);
  right.line(x + 2, 2, 1);
  CHECK((left.constant() && right.constant()));
  left.merge(right);
  CHECK(left.largest_value() == 3);
  CHECK_FALSE(left.constant());
}
