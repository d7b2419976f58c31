#include "cafeq/quant/midrise.hpp"

#include "laws.hpp"

using namespace cafeq;

static_assert(LinearGrid<Midrise<3>>);
static_assert(sizeof(Midrise<3>::Params) == 2);

TEST_CASE("midrise obeys the laws of a linear grid") {
  test::check_laws(Midrise<2>{});
  test::check_laws(Midrise<3>{});
  test::check_laws(Midrise<4>{});
  test::check_laws(Midrise<8>{});
  test::check_encode_group(Midrise<2>{});
  test::check_encode_group(Midrise<4>{.search = ScaleSearch::absmax});
}

TEST_CASE("midrise levels are odd halves") {
  const Midrise<2> q;
  const Midrise<2>::Params p{fp16(2.0f)};
  CHECK(q.level(0) == -1.5f);
  CHECK(q.level(3) == 1.5f);
  CHECK(q.encode(-9, p) == 0);
  CHECK(q.encode(-2, p) == 1);
  CHECK(q.encode(-0.1f, p) == 1);
  CHECK(q.encode(0, p) == 2);
  CHECK(q.encode(1.99f, p) == 2);
  CHECK(q.encode(2, p) == 3);
  CHECK(q.decode(3, p) == 3);
  CHECK(q.scale(q.with_scale(p, -1, 0)) == 2);
  CHECK(q.scale(q.with_scale(p, 0.1f, 7)) == float(fp16(0.1f)));
  CHECK(q.scale(q.with_scale(p, 1e9f, 0)) == fp16_max);
}

TEST_CASE("midrise represents a constant group to the rounding of its scale") {
  for (const float c : {0.3f, -700.0f, 8000.0f}) {
    const std::vector<float> x(33, c);
    const Midrise<3> q;
    const auto p = q.fit(x);
    CHECK(q.decode(q.encode(c, p), p) == Approx(c).epsilon(0x1p-11));
  }
}

TEST_CASE("midrise error is within its budget and falls with bits") {
  const auto W = test::gaussian<float>(24, 4096, 11, 1000.0);
  const auto X = std::as_const(W).view();
  const double e2 = test::matrix_error(Midrise<2>{}, X), e3 = test::matrix_error(Midrise<3>{}, X),
               e4 = test::matrix_error(Midrise<4>{}, X);
  CHECK(e2 == Approx(0.1189).epsilon(0.02));
  CHECK(e3 == Approx(0.03744).epsilon(0.02));
  CHECK(e4 == Approx(0.01154).epsilon(0.02));
  // Above 4 bits the tails that a row of 4096 does not have are part of the budget.
  const double e5 = test::matrix_error(Midrise<5>{}, X), e6 = test::matrix_error(Midrise<6>{}, X),
               e7 = test::matrix_error(Midrise<7>{}, X), e8 = test::matrix_error(Midrise<8>{}, X);
  CHECK(e5 < 0.0036);
  CHECK(e6 < 0.00104);
  CHECK(e7 < 0.000304);
  CHECK(e8 < 0.0000877);
  CHECK(e8 > 0.00005);
  CHECK(test::matrix_error(Midrise<3>{.group = 64}, X) < e3);
  CHECK(test::matrix_error(Midrise<3>{.search = ScaleSearch::absmax}, X) > 1.5 * e3);
}
