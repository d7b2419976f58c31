#include "cafeq/quant/iq4_xs.hpp"

#include "laws.hpp"

using namespace cafeq;

static_assert(LinearGrid<Iq4Xs>);

TEST_CASE("IQ4_XS obeys the laws of a linear grid") {
  for (auto x : test::awkward_groups()) {
    x.resize(std::min<std::size_t>(x.size(), 32));
    CAPTURE(x.size(), x[0]);
    test::check_group(Iq4Xs{}, x);
  }
  CHECK(param_bits(Iq4Xs{}) == 8);  // six of the group's own, two of the half of eight groups
  CHECK(Iq4Xs{.group = 16}.fault(1, 256));
}

TEST_CASE("IQ4_XS keeps its error budget on a Gaussian, close to that of IQ4_NL") {
  const auto W = test::gaussian<float>(16, 4096, 12, 1000.0);
  CHECK(test::matrix_error(Iq4Xs{}, std::as_const(W).view()) == Approx(0.0055).epsilon(0.02));
}

TEST_CASE("IQ4_XS keeps zeros among other groups, though none of its levels is zero") {
  auto x = test::bell(256, 1, 1);
  std::fill(x.begin() + 32, x.begin() + 64, 0.0f);
  std::vector<Iq4Xs::Params> params(8);
  fit_row(Iq4Xs{}, x, 32, std::span(params));
  CHECK(params[0].scale != 0);
  CHECK(params[1].scale == 0);
}

TEST_CASE("IQ4_XS gives each group of a super-block its own share of one half") {
  auto x = test::bell(512, 1, 1);
  for (std::size_t i = 32; i < 64; ++i) x[i] *= -0.25f;
  for (std::size_t i = 256; i < 512; ++i) x[i] *= 8;
  const Iq4Xs q;
  std::vector<Iq4Xs::Params> params(16);
  fit_row(q, x, q.group, std::span(params));
  for (std::size_t g = 0; g < params.size(); ++g)
    CHECK(params[g].d.bits == params[g / 8 * 8].d.bits);
  CHECK(std::abs(q.scale(params[1])) < 0.5f * std::abs(q.scale(params[0])));
  CHECK(std::abs(float(params[8].d)) > 4 * std::abs(float(params[0].d)));
  const auto p = q.with_scale(params[1], -3 * float(params[1].d), 0);
  CHECK(p.scale == -3);
  CHECK(p.d.bits == params[1].d.bits);
}
