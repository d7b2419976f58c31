#include "cafeq/kernel/difference.hpp"

#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

namespace {

template <class T, class U>
void check_types() {
  for (const Index n : {0, 1, 7, 15, 16, 17, 33, 129, 1000}) {
    CAPTURE(n);
    const auto a = test::gaussian<double>(1, n + 1, 3), b = test::gaussian<double>(1, n + 1, 4);
    const auto x = to_matrix<T>(a.view());
    const auto y = to_matrix<U>(b.view());
    const auto ours = kernel::squared_differences(x.data() + 1, y.data() + 1, n);  // unaligned
    const auto reference =
        kernel::squared_differences_reference(x.data() + 1, 1, y.data() + 1, 1, n);
    double error = 0, norm = 0;
    for (Index j = 1; j <= n; ++j) {
      const double d = double(x.data()[j]) - double(y.data()[j]);
      error += d * d;
      norm += double(x.data()[j]) * double(x.data()[j]);
    }
    CHECK(ours.error == Approx(error).epsilon(1e-13));
    CHECK(ours.norm == Approx(norm).epsilon(1e-13));
    if constexpr (simd::has_fma<DefaultArch>)
      CHECK((ours.error == reference.error && ours.norm == reference.norm));
  }
}

}  // namespace

TEST_CASE("squared differences of any two types agree with their reference",
          "[kernel][difference]") {
  check_types<float, float>();
  check_types<double, double>();
  check_types<double, float>();
  check_types<bf16, float>();
  check_types<float, fp16>();
  check_types<fp16, bf16>();
}

TEST_CASE("differences of close floats are exact", "[kernel][difference]") {
  const float x[2] = {1.0f, 3.0f}, y[2] = {1.0f + 0x1p-23f, 3.0f};
  CHECK(kernel::squared_differences(x, y, 2).error == 0x1p-46);
  CHECK(kernel::squared_differences(x, y, 2).norm == 10.0);
  CHECK(kernel::squared_differences_reference(x, 1, y, 1, 2).error == 0x1p-46);
  CHECK(kernel::squared_differences_reference(x, 0, y, 1, 2).norm == 2.0);
}
