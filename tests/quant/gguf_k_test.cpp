#include "cafeq/quant/gguf_k.hpp"

#include "cafeq/quant/rows.hpp"
#include "laws.hpp"
#include "support/allocations.hpp"
#include "support/build.hpp"

using namespace cafeq;

namespace {

using Q2 = AffineK<2, 16, 4>;
using Q3 = SymmetricK<3, 6>;
using Q4 = AffineK<4, 32, 6>;
using Q5 = AffineK<5, 32, 6>;
using Q6 = SymmetricK<6, 8>;

static_assert(LinearGrid<Q2> && LinearGrid<Q3> && LinearGrid<Q4> && LinearGrid<Q5> &&
              LinearGrid<Q6>);

template <class F>
void for_each_grid(F&& f) {
  f(Q2{});
  f(Q3{});
  f(Q4{});
  f(Q5{});
  f(Q6{});
}

template <class Q>
std::vector<typename Q::Params> fitted(const Q& q, std::span<const float> x) {
  std::vector<typename Q::Params> params(std::size_t(ceil_div(Index(x.size()), q.group)));
  fit_row(q, x, q.group, std::span(params));
  return params;
}

template <class Q>
double row_error(const Q& q, std::span<const float> x, std::span<const typename Q::Params> params) {
  double sum = 0;
  for (std::size_t g = 0; g < params.size(); ++g) {
    const std::size_t begin = g * std::size_t(q.group);
    sum += test::squared_error(
        q, x.subspan(begin, std::min(std::size_t(q.group), x.size() - begin)), params[g]);
  }
  return sum;
}
template <class Q>
double fitted_error(const Q& q, std::span<const float> x) {
  const auto params = fitted(q, x);
  return row_error(q, x, params);
}

double squares(std::span<const float> x) {
  double sum = 0;
  for (const float v : x) sum += double(v) * double(v);
  return sum;
}

/// The halves of a group, and its integers.
template <int Bits, Index Width, int ScaleBits>
std::array<float, 2> halves(const AffineK<Bits, Width, ScaleBits>&,
                            const typename AffineK<Bits, Width, ScaleBits>::Params& p) {
  return {p.d, p.dmin};
}
template <int Bits, int ScaleBits>
std::array<float, 2> halves(const SymmetricK<Bits, ScaleBits>&,
                            const typename SymmetricK<Bits, ScaleBits>::Params& p) {
  return {p.d, 0};
}
template <int Bits, Index Width, int ScaleBits>
std::array<int, 2> integers(const AffineK<Bits, Width, ScaleBits>&,
                            const typename AffineK<Bits, Width, ScaleBits>::Params& p) {
  return {p.scale, p.min};
}
template <int Bits, int ScaleBits>
std::array<int, 2> integers(const SymmetricK<Bits, ScaleBits>&,
                            const typename SymmetricK<Bits, ScaleBits>::Params& p) {
  return {p.scale, 0};
}

/// What is done without a search of super-blocks: the scales that suit the groups alone, rounded to
/// multiples of the largest one's share.
template <int Bits, Index Width, int ScaleBits>
auto rounded_alone(const AffineK<Bits, Width, ScaleBits>& q, std::span<const float> x) {
  const auto alone = fitted(Affine<Bits>{.group = Width}, x);
  std::vector<typename AffineK<Bits, Width, ScaleBits>::Params> params(alone.size());
  float scale = 0, min = 0;
  for (const auto& p : alone) {
    scale = std::max(scale, float(p.scale));
    min = std::max(min, -float(p.offset));
  }
  for (std::size_t g = 0; g < params.size(); ++g) {
    params[g] = {fp16(scale / float(q.scale_format.max_scale)),
                 fp16(min / float(q.scale_format.max_scale)), 0, 0};
    params[g] = q.with_scale(params[g], alone[g].scale, alone[g].offset);
  }
  return params;
}
template <int Bits, int ScaleBits>
auto rounded_alone(const SymmetricK<Bits, ScaleBits>& q, std::span<const float> x) {
  const auto alone = fitted(Symmetric<Bits>{.group = q.group}, x);
  std::vector<typename SymmetricK<Bits, ScaleBits>::Params> params(alone.size());
  float scale = 0;
  for (const auto& p : alone) scale = std::max(scale, std::abs(float(p.scale)));
  for (std::size_t g = 0; g < params.size(); ++g) {
    params[g] = {fp16(scale / float(q.scale_format.max_scale)), 0};
    params[g] = q.with_scale(params[g], alone[g].scale, 0);
  }
  return params;
}

}  // namespace

TEST_CASE("K grids obey the laws of a linear grid") {
  for_each_grid([](const auto& q) {
    for (auto x : test::awkward_groups()) {
      x.resize(std::min(x.size(), std::size_t(q.group)));
      CAPTURE(int(q.bits), x.size(), x[0]);
      test::check_group(q, x);
      const auto p = q.fit(x);
      std::vector<std::uint8_t> codes(x.size());
      encode_group(q, x, p, codes);
      bool same = true;
      for (std::size_t i = 0; i < x.size(); ++i) same &= codes[i] == q.encode(x[i], p);
      CHECK(same);
    }
    CHECK(std::isfinite(q.scale(q.fit({}))));
  });
}

TEST_CASE("the bits of a K grid are those of its blocks") {
  const auto bits = [](const auto& q) {
    return double(q.bits) + double(param_bits(q)) / double(q.group);
  };
  CHECK(bits(Q2{}) == 2.625);
  CHECK(bits(Q3{}) == 3.4375);
  CHECK(bits(Q4{}) == 4.5);
  CHECK(bits(Q5{}) == 5.5);
  CHECK(bits(Q6{}) == 6.5625);
}

TEST_CASE(
    "the groups of a super-block share their halves, and super-blocks do not see each other") {
  for_each_grid([](const auto& q) {
    auto x = test::bell(3 * super_block + 40, 1,
                        1000);  // the last one is short, and so is its last group
    for (std::size_t i = 256; i < 512; ++i) x[i] *= 5;
    const auto params = fitted(q, x);
    CAPTURE(int(q.bits));
    for (std::size_t begin = 0; begin < x.size(); begin += std::size_t(super_block)) {
      const auto block = std::span<const float>(x).subspan(
          begin, std::min(x.size() - begin, std::size_t(super_block)));
      const auto own = fitted(q, block);
      for (std::size_t g = 0; g < own.size(); ++g) {
        const auto& p = params[begin / std::size_t(q.group) + g];
        CHECK(halves(q, p) == halves(q, own[0]));
        CHECK(integers(q, p) == integers(q, own[g]));
      }
    }
    const std::size_t groups = std::size_t(super_block / q.group);
    CHECK(halves(q, params[groups])[0] > 3 * halves(q, params[0])[0]);
  });
}

TEST_CASE("K grids scale with powers of two until halves end") {
  const auto x = test::bell(super_block, 2, 1000);
  for_each_grid([&](const auto& q) {
    const auto params = fitted(q, x);
    for (const float factor : {0x1p-10f, 16.0f}) {
      auto scaled = x;
      for (float& v : scaled) v *= factor;
      const auto others = fitted(q, scaled);
      for (std::size_t g = 0; g < params.size(); ++g) {
        CHECK(integers(q, others[g]) == integers(q, params[g]));
        CHECK(halves(q, others[g])[0] == factor * halves(q, params[g])[0]);
        CHECK(halves(q, others[g])[1] == factor * halves(q, params[g])[1]);
      }
    }
    for (const float factor : {1e-33f, 1e-12f, 1e-10f, 1e-7f, 1e6f, 1e34f}) {
      auto scaled = x;
      for (float& v : scaled) v *= factor;
      CAPTURE(int(q.bits), factor);
      const double error = fitted_error(q, scaled);
      CHECK(std::isfinite(error));
      CHECK(error <= squares(scaled) * (1 + 1e-12));
    }
  });
}

TEST_CASE("a row of a K grid that vanishes in halves is coarse, not clipped") {
  auto x = test::bell(super_block, 2, 1e-4f);
  CHECK(fitted_error(Q6{}, x) < 0.0004 * squares(x));  // d is one or two of the smallest halves
  for (float& v : x) v *= 1e-3f;
  for_each_grid([&](const auto& q) {
    double lost = 0;
    const auto params = fitted(q, x);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const auto& p = params[i / std::size_t(q.group)];
      lost = std::max(lost, std::abs(double(x[i]) - double(q.decode(q.encode(x[i], p), p))));
    }
    CHECK(lost <= 0x1p-24);
  });
}

TEST_CASE("K grids reproduce what is zero or constant") {
  for_each_grid([](const auto& q) {
    CAPTURE(int(q.bits));
    std::vector<float> x(std::size_t(super_block), 0.0f);
    CHECK(fitted_error(q, x) == 0);
    for (const float c : {0.3f, -0.3f, 700.0f, -8191.0f}) {
      std::fill(x.begin(), x.end(), c);
      const auto p = fitted(q, x)[3];
      CHECK(q.decode(q.encode(c, p), p) == Approx(c).epsilon(0x1p-10));
    }
    x = test::bell(super_block, 3, 1000);
    std::fill(x.begin() + 64, x.begin() + 96, 0.0f);
    const auto params = fitted(q, x);
    for (std::size_t i = 64; i < 96; ++i) {
      const auto& p = params[i / std::size_t(q.group)];
      CHECK(q.decode(q.encode(0, p), p) == 0);
    }
  });
}

TEST_CASE("K grids find better scales than groups do alone") {
  for_each_grid([](const auto& q) {
    const auto check = [&](Index n, float scale, float shift, float outlier) {
      auto x = test::bell(n, 7, scale, shift);
      for (std::size_t i = 100; outlier != 0 && i < x.size(); i += std::size_t(super_block))
        x[i] = outlier;
      double alone = 0;
      for (std::size_t i = 0; i < x.size(); i += std::size_t(super_block)) {
        const auto block = std::span<const float>(x).subspan(i, std::size_t(super_block));
        alone += row_error(q, block, rounded_alone(q, block));
      }
      CAPTURE(int(q.bits), shift, outlier);
      CHECK(fitted_error(q, x) < alone);
    };
    const Index n = (test::sanitized ? 4 : 16) * super_block;
    check(n, 1000, 0, 0);
    check(n, 1000, 2000, 0);
    check(n, 1000, -2000, 0);
    check(n, 100, 0, 8000);
    check(n, 100, 0, -8000);
  });
}

TEST_CASE("a K grid's mirror image costs the same") {
  const auto x = test::bell(4 * super_block, 5, 1000);
  auto mirrored = x;
  for (float& v : mirrored) v = -v;
  for_each_grid([&](const auto& q) {
    CHECK(fitted_error(q, mirrored) == Approx(fitted_error(q, x)).epsilon(0.02));
  });
}

TEST_CASE("refitted parameters of a K grid keep the halves of their block") {
  const Q4 q;
  const Q4::Params p{fp16(0.5f), fp16(2.0f), 10, 20};
  CHECK(q.scale(p) == 5);
  CHECK(q.offset(p) == -40);
  const auto moved = q.with_scale(p, 6.3f, -45.2f);
  CHECK(integers(q, moved) == std::array{13, 23});
  CHECK(halves(q, moved) == halves(q, p));
  CHECK(integers(q, q.with_scale(p, 1000, 3)) == std::array{63, 0});
  CHECK(integers(q, q.with_scale(p, -1, 0)) == std::array{10, 20});
  CHECK(integers(q, q.with_scale(p, 0, -1000)) == std::array{0, 63});
  CHECK(integers(q, q.with_scale({fp16(1e-6f), fp16(2.0f), 1, 1}, 1e-6f, -126)) ==
        std::array{0, 63});  // steps that the offset would swallow
  const Q3 symmetric;
  const Q3::Params s{fp16(0.5f), 10};
  CHECK(symmetric.with_scale(s, -2.3f, 0).scale == -5);
  CHECK(symmetric.with_scale(s, 100, 0).scale == 31);
  CHECK(symmetric.with_scale(s, -100, 0).scale == -32);
  CHECK(symmetric.with_scale({fp16(0.0f), 3}, 1, 0).scale == 0);
}

TEST_CASE("K grids pack, unpack and measure rows as weight by weight") {
  for_each_grid([](const auto& q) {
    using Params = typename std::remove_cvref_t<decltype(q)>::Params;
    const auto x = test::bell(2 * super_block, 6, 1000, 100);
    const auto params = fitted(q, x);
    std::vector<std::uint8_t> packed(x.size() / 8 * std::size_t(q.bits)), codes(x.size());
    std::vector<float> values(x.size());
    std::vector<double> errors(params.size());
    pack_row(q, x, q.group, std::span<const Params>(params), packed);
    unpack_row(q, packed, q.group, std::span<const Params>(params), values);
    test::row_errors(q, x, q.group, std::span<const Params>(params), errors);
    unpack_codes(packed, q.bits, codes);
    bool same = true;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const auto& p = params[i / std::size_t(q.group)];
      same &= codes[i] == q.encode(x[i], p) && values[i] == q.decode(codes[i], p);
    }
    CHECK(same);
    double sum = 0;
    for (const double e : errors) sum += e;
    CHECK(sum == Approx(row_error(q, x, params)).epsilon(1e-4));
    std::vector<Params> again(params.size());
    CHECK(test::allocations_of([&] { fit_row(q, x, q.group, std::span(again)); }) == 0);
  });
}

TEST_CASE("K grids keep their error budgets on a Gaussian") {
  // ggml's own encoders: .0873, .0226, .00502, .00129, .000313.
  const auto W = test::gaussian<float>(16, 1024, 12, 1000.0);
  const auto X = std::as_const(W).view();
  CHECK(test::matrix_error(Q2{}, X) == Approx(0.0655).epsilon(0.015));
  CHECK(test::matrix_error(Q3{}, X) == Approx(0.0204).epsilon(0.015));
  CHECK(test::matrix_error(Q4{}, X) == Approx(0.00471).epsilon(0.015));
  CHECK(test::matrix_error(Q5{}, X) == Approx(0.001124).epsilon(0.015));
  CHECK(test::matrix_error(Q6{}, X) == Approx(0.000285).epsilon(0.015));
}
