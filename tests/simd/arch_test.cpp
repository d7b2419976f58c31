// What the kernels take for granted about a batch, whichever version of xsimd and architecture
// provide it.
#include "cafeq/simd/arch.hpp"

#include <array>
#include <cmath>
#include <limits>

#include "support/catch.hpp"

using namespace cafeq;

namespace {

template <class T>
constexpr std::size_t width = Batch<T>::size;

/// f applied to every lane of a batch of one value.
template <class T, class F>
T lane(F&& f) {
  std::array<T, width<T>> out;
  f().store_unaligned(out.data());
  for (const T v : out)
    if (!(v == out[0] || (std::isnan(v) && std::isnan(out[0])))) FAIL("lanes differ");
  return out[0];
}

}  // namespace

TEST_CASE("the default architecture is the best that the flags allow", "[simd][arch]") {
#if defined(__AVX512F__)
  CHECK(width<float> == 16);
#elif defined(__AVX__)
  CHECK(width<float> == 8);
#elif defined(__SSE2__) || defined(__ARM_NEON)
  CHECK(width<float> == 4);
#endif
  CHECK(width<float> == 2 * width<double>);
}

TEST_CASE("unaligned loads and stores keep the order of lanes", "[simd][arch]") {
  std::array<float, width<float> + 1> in{}, out{};
  for (std::size_t i = 0; i < in.size(); ++i) in[i] = float(i) + 0.5f;
  Batch<float>::load_unaligned(in.data() + 1).store_unaligned(out.data() + 1);
  for (std::size_t i = 1; i < in.size(); ++i) CHECK(out[i] == in[i]);
}

TEST_CASE("nearbyint rounds ties to even", "[simd][arch]") {
  for (const float x : {-2.5f, -1.5f, -0.5f, 0.5f, 1.5f, 2.5f, 0.49999997f, 8388609.0f, -3.7f})
    CHECK(lane<float>([&] { return xsimd::nearbyint(Batch<float>(x)); }) == std::nearbyint(x));
}

TEST_CASE("of a minimum or maximum with NaN the second argument is the result", "[simd][arch]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Batch<float> one(1.0f), none(nan);
  CHECK(lane<float>([&] { return xsimd::max(none, one); }) == 1.0f);
  CHECK(std::isnan(lane<float>([&] { return xsimd::max(one, none); })));
  CHECK(lane<float>([&] { return xsimd::min(none, one); }) == 1.0f);
  CHECK(std::isnan(lane<float>([&] { return xsimd::min(one, none); })));
}

#if defined(__FMA__)
TEST_CASE("fma rounds once", "[simd][arch]") {
  const float a = 1.0f + 0x1p-12f;
  CHECK(lane<float>([&] {
          return xsimd::fma(Batch<float>(a), Batch<float>(a), Batch<float>(-1.0f - 0x1p-11f));
        }) == 0x1p-24f);
  const double b = 1.0 + 0x1p-27;
  CHECK(lane<double>([&] {
          return xsimd::fma(Batch<double>(b), Batch<double>(b), Batch<double>(-1.0 - 0x1p-26));
        }) == 0x1p-54);
}
#endif
