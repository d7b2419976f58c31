#include "cafeq/quant/line_scales.hpp"

#include <cmath>
#include <vector>

#include "support/catch.hpp"

using namespace cafeq;

TEST_CASE("Logarithmic scales are near, and zero stays zero") {
  for (const int bits : {8, 6})
    for (const double range : {0.0, 0.7, 3.7, 11.9}) {
      std::vector<float> values;
      for (int i = 0; i < 60; ++i) values.push_back(3.7f * float(std::exp(-range * i / 59)));
      values.push_back(0);
      const LineScales scales(bits, values);
      const double most = range / ((1 << bits) - 2) / 2;  // half a step
      for (std::size_t i = 0; i < 60; ++i)
        CHECK(std::abs(std::log(double(scales[Index(i)]) / double(values[i]))) <=
              most * 1.01 + 4e-3);
      CHECK(scales[60] == 0);
    }
  const LineScales far(
      6, std::vector<float>{
             1, 1e-20f, 4e-6f, 6e-6f,
             1e-5f});  // what is too small for the longest range counts as the least scale, or as 0
  CHECK(far[0] == Approx(1.0));
  CHECK(far[1] == 0);
  CHECK(far[2] == 0);
  CHECK(double(far[3]) == Approx(1e-5).epsilon(.02));
  CHECK(double(far[4]) == Approx(1e-5).epsilon(.02));
  CHECK(LineScales(8, std::vector<float>{0, 0})[1] == 0);
  CHECK(LineScales::storage_bits(6, 5) == 32 + 8 * 4);
}
