// A quantizer of your own: 30 lines, and every transform, rounder and recipe takes it.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "cafeq/cafeq.hpp"

/// Sign and power of two: levels ±s·2^-k, k = 0 … 3. Multiplication by a weight becomes a shift.
struct PowersOfTwo {
  struct Params {
    cafeq::fp16 scale;  // the largest level
  };
  static constexpr int bits = 3;
  cafeq::Index group = cafeq::per_row;

  Params fit(std::span<const float> x) const {
    float largest = 0;
    for (float v : x) largest = std::max(largest, std::abs(v));
    return {cafeq::fp16(largest)};
  }
  std::uint8_t encode(float x, Params p) const {
    int best = 0;
    for (int c = 1; c < 8; ++c)
      if (std::abs(x - decode(std::uint8_t(c), p)) < std::abs(x - decode(std::uint8_t(best), p)))
        best = c;
    return std::uint8_t(best);
  }
  float decode(std::uint8_t code, Params p) const {
    return std::ldexp(code & 4 ? -p.scale : float(p.scale), -(code & 3));
  }
};
static_assert(cafeq::ScalarQuantizer<PowersOfTwo>);

int main() {
  cafeq::Matrix<float> W(512, 512);
  const cafeq::CounterRng rng(7);
  for (cafeq::Index i = 0; i < W.size(); ++i) W.data()[i] = float(rng.normal(std::uint64_t(i)));
  for (cafeq::Index i = 0; i < W.rows(); ++i) W(i, 100) *= 20;  // an outlier channel

  const auto plain =
      cafeq::Pipeline{cafeq::Identity{}, PowersOfTwo{.group = 64}, cafeq::Nearest{}}.quantize(W);
  const auto rotated = cafeq::Pipeline{
      cafeq::RandomizedHadamard{}, PowersOfTwo{.group = 64},
      cafeq::Nearest{}}.quantize(W);
  std::printf(
      "powers of two, groups of 64: error %.5f, after a Hadamard %.5f, %.4f bits a weight\n",
      plain.error(W), rotated.error(W), rotated.bits_per_weight());
}
