#include "cafeq/quant/affine.hpp"

#include "laws.hpp"

using namespace cafeq;

static_assert(LinearGrid<Affine<3>> && LinearGrid<AffineIntegerZero<3>> &&
              LinearGrid<Symmetric<3>>);
static_assert(sizeof(Affine<3>::Params) == 4 && sizeof(Symmetric<3>::Params) == 2);

TEST_CASE("integer grids obey the laws of a linear grid") {
  test::check_laws(Affine<2>{});
  test::check_laws(Affine<3>{});
  test::check_laws(Affine<8>{});
  test::check_laws(AffineIntegerZero<2>{});
  test::check_laws(AffineIntegerZero<4>{});
  test::check_laws(AffineIntegerZero<8>{});
  test::check_laws(Symmetric<2>{});
  test::check_laws(Symmetric<4>{});
  test::check_laws(Symmetric<8>{});
}

TEST_CASE("integer grids encode groups as they encode weights") {
  test::check_encode_group(Affine<2>{});
  test::check_encode_group(Affine<4>{.search = ScaleSearch::minmax});
  test::check_encode_group(AffineIntegerZero<3>{});
  test::check_encode_group(Symmetric<3>{});
}

TEST_CASE("affine min/max covers the range") {
  const std::vector<float> x{-3, 1, 4.5f, 0};
  const Affine<4> q{.search = ScaleSearch::minmax};
  const auto p = q.fit(x);
  CHECK(q.offset(p) == -3);
  CHECK(q.scale(p) == 0.5f);
  CHECK(q.encode(-3, p) == 0);
  CHECK(q.encode(4.5f, p) == 15);
  CHECK(q.decode(6, p) == 0);
  CHECK(q.encode(-2.75f, p) == 0);  // ties to even
  CHECK(q.encode(-2.25f, p) == 2);
  const Affine<4> even{.search = ScaleSearch::absmax};
  CHECK(even.offset(even.fit(x)) == -4.5f);
  CHECK(even.scale(even.fit(x)) == float(fp16(0.6f)));
}

TEST_CASE("a constant group is stored as its offset, to fp16 rounding") {
  for (const float c : {0.3f, -700.0f, 8191.0f, 1e5f}) {
    const std::vector<float> x(17, c);
    for (const auto search : {ScaleSearch::minmax, ScaleSearch::mse}) {
      const Affine<2> q{.search = search};
      const auto p = q.fit(x);
      CHECK(q.scale(p) == 0);
      CHECK(q.decode(q.encode(c, p), p) == Approx(std::min(c, fp16_max)).epsilon(0x1p-11));
    }
    const AffineIntegerZero<3> integer;
    const auto p = integer.fit(x);
    CHECK(integer.decode(integer.encode(c, p), p) == Approx(c).epsilon(0x1p-11));
  }
}

TEST_CASE("every code of an affine grid survives decoding, or the scale is zero") {
  const Affine<8> q;
  for (const float scale : {1e-7f, 1e-4f, 3e-3f, 0.009f, 0.5f})
    for (const float offset : {8000.0f, -8000.0f, 3.0f, 0.0f}) {
      const auto p = q.with_scale({}, scale, offset);
      CAPTURE(scale, offset);
      bool stable = true;
      for (int code = 0; code < 256; ++code)
        stable &= int(q.encode(q.decode(std::uint8_t(code), p), p)) == code;
      CHECK(stable == (q.scale(p) != 0));
      CHECK((q.scale(p) == 0) == (scale < 0x1p-20f * std::abs(offset)));
    }
}

TEST_CASE("the affine search moves with the weights and mirrors with them") {
  const auto x = test::bell(256, 1, 1000);
  auto shifted = x, mirrored = x;
  for (auto& v : shifted) v += 512;
  for (auto& v : mirrored) v = -v;
  const Affine<3> q;
  const double error = test::squared_error(q, x, q.fit(x));
  CHECK(test::squared_error(q, shifted, q.fit(shifted)) == Approx(error).epsilon(0.02));
  CHECK(test::squared_error(q, mirrored, q.fit(mirrored)) == Approx(error).epsilon(0.02));
  CHECK(q.offset(q.with_scale({}, 1, 1e9f)) == fp16_max);
  CHECK(q.scale(q.with_scale(q.fit(x), -1, 0)) == q.scale(q.fit(x)));
}

TEST_CASE("an integer zero point counts its bits and keeps zero exact") {
  CHECK(param_bits(AffineIntegerZero<3>{}) == 19);
  CHECK(param_bits(Affine<3>{}) == 32);
  CHECK(param_bits(Symmetric<3>{}) == 16);
  auto x = test::bell(100, 2, 1000, 300);
  x[50] = 0;
  const AffineIntegerZero<3> q;
  const auto p = q.fit(x);
  CHECK(q.decode(q.encode(0, p), p) == 0);
  CHECK(q.offset(p) == -q.scale(p) * float(p.zero));
  const auto moved = q.with_scale(p, 2, -5.9f);
  CHECK(moved.zero == 3);
  CHECK(q.offset(moved) == -6);
  CHECK(q.with_scale(p, 2, 100).zero == 0);
  CHECK(q.with_scale(p, 2, -100).zero == 7);
}

TEST_CASE("a symmetric scale turns its longer end to the heavier side") {
  std::vector<float> x(64, 0.0f);
  x[3] = 2000;  // representable exactly by -2 · -1000
  x[4] = -1000;
  x[5] = 1000;
  const Symmetric<2> q;
  const auto p = q.fit(x);
  CHECK(q.scale(p) == Approx(-1000).epsilon(1e-3));
  CHECK(test::squared_error(q, x, p) < 2.0);
  for (auto& v : x) v = -v;
  CHECK(q.scale(q.fit(x)) == Approx(1000).epsilon(1e-3));
  const Symmetric<4> plain{.search = ScaleSearch::absmax};
  CHECK(plain.scale(plain.fit(x)) == float(fp16(2000.0f / 7)));
  CHECK(q.scale(q.with_scale(p, -3, 0)) == -3);
}

TEST_CASE("integer grids keep their error budgets on a Gaussian, falling with bits") {
  const auto W = test::gaussian<float>(16, 4096, 12, 1000.0);
  const auto X = std::as_const(W).view();
  CHECK(test::matrix_error(Affine<2>{}, X) == Approx(0.1189).epsilon(0.02));
  CHECK(test::matrix_error(Affine<3>{}, X) == Approx(0.03744).epsilon(0.02));
  CHECK(test::matrix_error(Affine<4>{}, X) == Approx(0.01154).epsilon(0.03));
  CHECK(test::matrix_error(Affine<8>{}, X) < 0.0001);
  CHECK(test::matrix_error(Symmetric<2>{}, X) == Approx(0.147).epsilon(0.02));
  CHECK(test::matrix_error(Symmetric<3>{}, X) == Approx(0.0399).epsilon(0.02));
  CHECK(test::matrix_error(Symmetric<4>{}, X) == Approx(0.0117).epsilon(0.02));
  CHECK(test::matrix_error(AffineIntegerZero<2>{}, X) == Approx(0.147).epsilon(0.02));
  CHECK(test::matrix_error(AffineIntegerZero<4>{}, X) == Approx(0.0117).epsilon(0.02));
  CHECK(test::matrix_error(Affine<3>{.group = 64}, X) == Approx(0.0283).epsilon(0.02));
}
