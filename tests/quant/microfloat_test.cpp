#include "cafeq/quant/microfloat.hpp"

#include "laws.hpp"

using namespace cafeq;

static_assert(LinearGrid<MxFp4> && LinearGrid<NvFp4> && LinearGrid<Fp8E4M3>);

namespace {

/// Nearest value by trying all, ties to the even code.
template <class Format>
std::uint8_t nearest_by_trying(float value) {
  int best = 0;
  double least = 1e300;
  for (int magnitude = 0; magnitude < (1 << (Format::bits - 1)); ++magnitude) {
    const float candidate = Format::from_bits(std::uint8_t(magnitude));
    if (std::isnan(candidate)) continue;
    const double distance = std::abs(std::abs(double(value)) - double(candidate));
    if (distance < least || (distance == least && magnitude % 2 == 0)) {
      least = distance;
      best = magnitude;
    }
  }
  return std::uint8_t(value < 0 && best != 0 ? best | (1 << (Format::bits - 1)) : best);
}

template <class Format>
void check_format() {
  const auto check = [](float v) {
    CAPTURE(v);
    const std::uint8_t code = nearest_by_trying<Format>(v);
    CHECK(Format::to_bits(v) == code);
    CHECK(Format{}(v) == Format::from_bits(code));
    alignas(64) float lane[Batch<float>::size];
    Format{}(Batch<float>(v)).store_aligned(lane);
    CHECK(lane[0] == Format::from_bits(code));
  };
  std::vector<float> values;
  for (int code = 0; code < (1 << (Format::bits - 1)); ++code)
    if (const float v = Format::from_bits(std::uint8_t(code)); !std::isnan(v)) values.push_back(v);
  for (std::size_t i = 0; i < values.size(); ++i)
    for (const float sign : {1.0f, -1.0f}) {
      check(sign * values[i]);
      if (i + 1 == values.size()) continue;
      CHECK(values[i] < values[i + 1]);
      const float middle = 0.5f * (values[i] + values[i + 1]);
      check(sign * middle);
      check(sign * std::nextafter(middle, 0.0f));
      check(sign * std::nextafter(middle, 1e9f));
    }
  for (const float v : {1e9f, -1e9f, 1e-40f, -1e-40f}) check(v);
  const CounterRng rng(4);
  for (std::uint64_t i = 0; i < 2000; ++i) check(float(rng.normal(i)) * Format::reach() / 3);
}

}  // namespace

TEST_CASE("E2M1 and E4M3 round to nearest, ties to even, and saturate") {
  check_format<E2M1>();
  check_format<E4M3>();
  CHECK(E2M1::from_bits(7) == 6);
  CHECK(E2M1::from_bits(9) == -0.5f);
  CHECK(E4M3::from_bits(0x7e) == 448);
  CHECK(E4M3::from_bits(1) == 0x1p-9f);
  CHECK(E4M3::from_bits(0x38) == 1);
  CHECK(std::isnan(E4M3::from_bits(0x7f)));
  CHECK(std::isnan(E4M3::from_bits(0xff)));
  CHECK(E4M3::to_bits(463) == 0x7e);
  CHECK(E4M3::to_bits(1e6f) == 0x7e);
  CHECK(E4M3::to_bits(INFINITY) == 0x7e);
  CHECK(E2M1::to_bits(-INFINITY) == 0xf);
  CHECK(E2M1::to_bits(-1e38f) == 0xf);
}

TEST_CASE("E8M0 holds powers of two") {
  CHECK(E8M0::to_float(127) == 1);
  CHECK(E8M0::to_float(0) == 0x1p-127f);
  CHECK(E8M0::to_float(E8M0::nearest(1.4f)) == 1);
  CHECK(E8M0::to_float(E8M0::nearest(1.6f)) == 2);
  CHECK(E8M0::to_float(E8M0::nearest(3e38f)) == 0x1p125f);
  CHECK(E8M0::to_float(E8M0::nearest(1e-44f)) == 0x1p-127f);
  for (int e = -127; e <= 125; ++e) CHECK(E8M0::nearest(std::ldexp(1.0f, e)) == e + 127);
}

TEST_CASE("micro-float quantizers obey the laws of a linear grid") {
  test::check_laws(MxFp4{});
  test::check_laws(NvFp4{});
  for (const ScaleSearch search : {ScaleSearch::absmax, ScaleSearch::mse}) {
    const Fp8E4M3 q{.search = search};
    for (const auto& x : test::awkward_groups()) {
      const auto p = q.fit(x);
      REQUIRE(std::isfinite(q.scale(p)));
      for (const float v : x) {
        const std::uint8_t code = q.encode(v, p);
        REQUIRE(std::isfinite(q.decode(code, p)));
        REQUIRE(q.encode(q.decode(code, p), p) == code);
      }
    }
  }
}

TEST_CASE("MXFP4 takes the standard's exponent, or a better one") {
  const std::vector<float> x{5.9f, -1, 0.3f, 2};  // 2^2 <= 5.9 < 2^3
  const MxFp4 standard{.search = ScaleSearch::absmax};
  CHECK(standard.scale(standard.fit(x)) == 1);
  const std::vector<float> clipped{7.9f, -7.9f, 7.9f, 0.1f};  // 6 under scale 1, 8 under scale 2
  CHECK(standard.scale(standard.fit(clipped)) == 1);
  const MxFp4 best;
  CHECK(best.scale(best.fit(clipped)) == 2);
  CHECK(param_bits(best) == 8);
  CHECK(best.group == 32);
}

TEST_CASE("NVFP4 has one scale for the tensor above its E4M3 scales") {
  const auto W = test::gaussian<float>(8, 64, 9, 1000.0);
  const auto X = std::as_const(W).view();
  float absmax = 0;
  for (Index i = 0; i < 8; ++i) absmax = std::max(absmax, kernel::range(W.row(i)).absmax());
  const NvFp4 q = NvFp4{.search = ScaleSearch::absmax}.for_tensor(X);
  CHECK(q.scale_format.tensor_scale == absmax / 2688);
  CHECK(tensor_bits(q) == 32);
  Encoding<NvFp4> encoding(q, 8, 64);
  CHECK(encoding.pack().storage_bits() == 8 * 64 * 4 + 8 * 4 * 8 + 32);
  encoding.fit(X);
  int largest = 0;
  for (const auto& p : encoding.all_params()) largest = std::max(largest, int(p.scale));
  CHECK(largest == 0x7e);
  for (int code = 0; code <= 0x7e; ++code)
    CHECK(q.with_scale({}, q.scale({std::uint8_t(code)}), 0).scale == code);
}

TEST_CASE("micro-floats keep their error budgets on a Gaussian") {
  const auto W = test::gaussian<float>(64, 512, 10, 1000.0);
  const auto X = std::as_const(W).view();
  CHECK(test::matrix_error(MxFp4{.search = ScaleSearch::absmax}, X) ==
        Approx(0.0134).epsilon(0.03));
  CHECK(test::matrix_error(MxFp4{}, X) == Approx(0.0125).epsilon(0.03));
  CHECK(test::matrix_error(NvFp4{.search = ScaleSearch::absmax}, X) ==
        Approx(0.0090).epsilon(0.03));
  CHECK(test::matrix_error(NvFp4{}, X) == Approx(0.0073).epsilon(0.03));
  CHECK(test::matrix_error(Fp8E4M3{}, X) == Approx(0.00065).epsilon(0.05));
  CHECK(test::matrix_error(Fp8E4M3{.search = ScaleSearch::absmax}, X) ==
        Approx(0.00069).epsilon(0.05));
}
