// A program of twenty lines that quantizes and multiplies: built from the headers alone and with
// cafeq::compiled, and to print the same.
#include <cstdio>
#include <vector>

#include "cafeq/cafeq.hpp"

int main() {
  cafeq::Matrix<float> W(192, 256);
  const cafeq::CounterRng rng(1);
  for (cafeq::Index i = 0; i < W.size(); ++i) W.data()[i] = float(rng.normal(std::uint64_t(i)));
  const auto learned = cafeq::quantize(W, cafeq::recipes::learned<3>{});
  const auto fast = cafeq::quantize(W, cafeq::recipes::fast<4>{});
  const cafeq::Linear layer{fast};

  std::vector<float> x(256, 1.0f), y(192);
  layer.multiply(x, y);
  std::printf("%.6f %.6f %.4f\n", learned.error(W), fast.error(W), double(y[7]));
}
