#include "cafeq/core/numeric.hpp"

#include <vector>

#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "support/catch.hpp"

using namespace cafeq;

namespace {

/// What the bits of a half mean, by its definition.
double half_value(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int mantissa = bits & 1023;
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 31)
    return mantissa == 0 ? sign * std::numeric_limits<double>::infinity()
                         : std::numeric_limits<double>::quiet_NaN();
  return sign *
         (exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25));
}

/// The nearest half of a finite magnitude, ties to even, by search among all of them; what reaches
/// the middle above the last is infinity.
std::uint16_t nearest_half(double magnitude) {
  std::uint16_t low = 0, high = 0x7c00;  // values ascend with their bits
  while (high - low > 1) {
    const auto middle = std::uint16_t((low + high) / 2);
    (half_value(middle) <= magnitude ? low : high) = middle;
  }
  const double above = high == 0x7c00 ? 65536.0 : half_value(high);
  const double from_low = magnitude - half_value(low);
  const double from_high = above - magnitude;
  if (from_low != from_high) return from_low < from_high ? low : high;
  return low % 2 == 0 ? low : high;
}

/// Floats at, between and just beside all neighbouring halves, and across the whole range.
std::vector<float> interesting_magnitudes() {
  std::vector<float> values{
      0.0f,     0x1p-149f, 0x1p-126f, 0x1.fffffep-26f, 0x1p-25f, 0x1.000002p-25f,
      65503.9f, 65519.99f, 65520.0f,  65536.0f,        1e10f,    std::numeric_limits<float>::max()};
  for (int bits = 0; bits < 0x7c00; ++bits) {
    const auto low = float(half_value(std::uint16_t(bits)));
    const auto high = bits == 0x7bff ? 65536.0f : float(half_value(std::uint16_t(bits + 1)));
    const float middle = low + (high - low) / 2;  // exact
    for (const float v : {low, middle, high})
      for (const float w : {std::nextafter(v, 0.0f), v, std::nextafter(v, 1e9f)})
        values.push_back(w);
  }
  return values;
}

#if defined(__F16C__)
#if defined(__clang__)
#pragma clang diagnostic ignored \
    "-Wc99-extensions"  // the intrinsic is a macro with a compound literal
#endif
std::uint16_t cpu_half(float value) { return _cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT); }
#endif

}  // namespace

TEST_CASE("every half converts to the float that its bits mean, and back", "[core][numeric]") {
  int wrong = 0;
  for (int i = 0; i < 65536; ++i) {
    const auto bits = std::uint16_t(i);
    const float value = fp16::from_bits(bits);
    const double expected = half_value(bits);
    if (std::isnan(expected)) {
      wrong += !std::isnan(value) || !std::isnan(float(fp16(value))) ||
               std::signbit(value) != ((bits & 0x8000) != 0);
    } else {
      wrong += double(value) != expected || std::signbit(value) != std::signbit(expected) ||
               fp16(value).bits != bits;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("every bfloat16 is the upper half of a float, and converts back", "[core][numeric]") {
  int wrong = 0;
  for (int i = 0; i < 65536; ++i) {
    const auto bits = std::uint16_t(i);
    const float value = bf16::from_bits(bits);
    if (std::isnan(value)) {
      wrong += !std::isnan(float(bf16(value)));
    } else {
      wrong +=
          std::bit_cast<std::uint32_t>(value) != std::uint32_t(i) << 16 || bf16(value).bits != bits;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("float to half rounds to nearest, ties to even", "[core][numeric]") {
  int wrong = 0;
  for (const float magnitude : interesting_magnitudes()) {
    const std::uint16_t expected = nearest_half(magnitude);
    wrong += fp16(magnitude).bits != expected || fp16(-magnitude).bits != (expected | 0x8000u);
  }
  CHECK(wrong == 0);
  CHECK(fp16(std::numeric_limits<float>::infinity()).bits == 0x7c00);
  CHECK(fp16(-std::numeric_limits<float>::infinity()).bits == 0xfc00);
  CHECK(std::isnan(float(fp16(std::numeric_limits<float>::quiet_NaN()))));
  CHECK(fp16(1.0f).bits == 0x3c00);
  CHECK(fp16(-2.0f).bits == 0xc000);
  CHECK(fp16(65519.99f).bits == 0x7bff);
  CHECK(fp16(65520.0f).bits == 0x7c00);
  CHECK(fp16(0x1p-25f).bits == 0);
  CHECK(fp16(0x1.000002p-25f).bits == 1);
}

#if defined(__F16C__)
TEST_CASE("conversions agree with the instructions of the CPU", "[core][numeric]") {
  int wrong = 0;
  for (const float value : interesting_magnitudes()) wrong += fp16(value).bits != cpu_half(value);
  for (std::uint32_t step = 0; step < 1u << 20; ++step) {
    const auto value = std::bit_cast<float>(step * 4093u);
    if (!std::isnan(value)) wrong += fp16(value).bits != cpu_half(value);
  }
  for (int i = 0; i < 65536; ++i) {
    const float ours = fp16::from_bits(std::uint16_t(i)), theirs = _cvtsh_ss(std::uint16_t(i));
    if (!std::isnan(ours) || !std::isnan(theirs)) wrong += ours != theirs;
  }
  CHECK(wrong == 0);
}
#endif

TEST_CASE("float to bfloat16 rounds to nearest, ties to even", "[core][numeric]") {
  const auto rounded = [](std::uint32_t bits) { return bf16(std::bit_cast<float>(bits)).bits; };
  CHECK(rounded(0x3f808000) == 0x3f80);  // a tie, down to even
  CHECK(rounded(0x3f818000) == 0x3f82);  // a tie, up to even
  CHECK(rounded(0x3f808001) == 0x3f81);
  CHECK(rounded(0x3f807fff) == 0x3f80);
  CHECK(rounded(0x7f7fffff) == 0x7f80);  // overflow
  CHECK(rounded(0x7f800000) == 0x7f80);
  CHECK(rounded(0xff800000) == 0xff80);
  CHECK(rounded(0x00008001) == 0x0001);  // subnormal
  CHECK(std::isnan(
      float(bf16(std::bit_cast<float>(0x7f800001u)))));  // the payload lies in the lower half only
  CHECK(bf16(-0.0f).bits == 0x8000);
}

TEST_CASE("scales stay positive and finite as halves", "[core][numeric]") {
  for (const float value : {0.0f, -1.0f, 1e-30f, std::numeric_limits<float>::quiet_NaN(), 0x1p-25f})
    CHECK(float(detail::positive_fp16(value)) == detail::fp16_min);
  for (const float value :
       {65504.0f, 65519.0f, 65520.0f, 1e30f, std::numeric_limits<float>::infinity()})
    CHECK(float(detail::positive_fp16(value)) == fp16_max);
  CHECK(float(detail::positive_fp16(0.75f)) == 0.75f);
  CHECK(fp16(fp16_max).bits == 0x7bff);
  CHECK(fp16(detail::fp16_min).bits == 1);
}

TEST_CASE("floor_log2 is the exponent", "[core][numeric]") {
  CHECK(floor_log2(0) == 0);
  CHECK(floor_log2(1) == 0);
  CHECK(floor_log2(-1.999) == 0);
  CHECK(floor_log2(2) == 1);
  CHECK(floor_log2(0.4999) == -2);
  CHECK(floor_log2(std::numeric_limits<double>::denorm_min()) == -1074);
  CHECK(floor_log2(std::numeric_limits<double>::max()) == 1023);
}

TEST_CASE("PowerOfTwo scales exactly, also beyond the exponents of a double", "[core][numeric]") {
  for (const int e : {0, 1, -1, 52, -1000, 1023, -1022}) {
    CAPTURE(e);
    CHECK(PowerOfTwo(e)(1.0) == std::ldexp(1.0, e));
    CHECK(PowerOfTwo(e)(-0.7) == std::ldexp(-0.7, e));
  }
  CHECK(PowerOfTwo(2000)(0x1p-1000) == 0x1p1000);
  CHECK(PowerOfTwo(-2000)(0x1p1000) == 0x1p-1000);
  CHECK(PowerOfTwo(1100)(0x1.8p-1070) == 0x1.8p30);
}

TEST_CASE("integer helpers", "[core][numeric]") {
  CHECK(ceil_div(0, 8) == 0);
  CHECK(ceil_div(1, 8) == 1);
  CHECK(ceil_div(16, 8) == 2);
  CHECK(ceil_div(17, 8) == 3);
  for (const Index n : {1, 2, 4, 1 << 20}) CHECK(is_power_of_two(n));
  for (const Index n : {0, 3, 12, -4}) CHECK_FALSE(is_power_of_two(n));
  CHECK(detail::floor_power_of_two(1) == 1);
  CHECK(detail::floor_power_of_two(17) == 16);
  CHECK(detail::floor_power_of_two(32) == 32);
}

static_assert(Element<float> && Element<const double> && Element<bf16> && Element<const fp16>);
static_assert(!Element<int> && !Element<float&> && !Element<std::uint16_t>);
static_assert(sizeof(fp16) == 2 && sizeof(bf16) == 2);
