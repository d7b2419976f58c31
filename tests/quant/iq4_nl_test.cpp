#include "cafeq/quant/iq4_nl.hpp"

#include "laws.hpp"

using namespace cafeq;

static_assert(LinearGrid<Iq4Nl>);

TEST_CASE("IQ4_NL obeys the laws of a linear grid") {
  for (const auto& x : test::awkward_groups()) {
    CAPTURE(x.size(), x[0]);
    test::check_group(Iq4Nl{}, x);
  }
  test::check_encode_group(Iq4Nl{});
  CHECK(param_bits(Iq4Nl{}) == 16);
}

TEST_CASE("IQ4_NL's levels are reached by weights of either sign of scale") {
  const Iq4Nl q;
  std::vector<float> x;
  for (int code = 0; code < 16; ++code) x.push_back(0.5f * q.level(std::uint8_t(code)));
  CHECK(q.scale(q.fit(x)) == 0.5f);
  for (float& v : x) v = -v;
  const auto p = q.fit(x);
  CHECK(q.scale(p) == -0.5f);
  for (std::size_t code = 0; code < x.size(); ++code) CHECK(q.encode(x[code], p) == code);
  CHECK(q.encode(0.5f * 115.5f, p) == 0);  // halfway: the lower level
  CHECK(q.encode(0.5f * 115.25f, p) == 1);
  CHECK(q.scale(q.with_scale(p, -3, 0)) == -3);
}

TEST_CASE("IQ4_NL keeps its error budget on a Gaussian") {
  const auto W = test::gaussian<float>(16, 4096, 12, 1000.0);
  CHECK(test::matrix_error(Iq4Nl{}, std::as_const(W).view()) == Approx(0.00546).epsilon(0.02));
}
