#include "cafeq/quant/rows.hpp"

#include "cafeq/quant/affine.hpp"
#include "cafeq/quant/codebook.hpp"
#include "cafeq/quant/microfloat.hpp"
#include "cafeq/quant/midrise.hpp"
#include "laws.hpp"
#include "support/allocations.hpp"

using namespace cafeq;

namespace {

/// fit_row, pack_row, unpack_row and the kernel of errors do to every group what fit, encode and
/// decode do to its weights.
template <ScalarQuantizer Q>
void check_row(const Q& quantizer, std::span<const float> x, Index width) {
  using Params = typename Q::Params;
  const Q q =
      for_tensor(quantizer, View<const float>{x.data(), 1, Index(x.size()), Index(x.size()), 1});
  const Index n = Index(x.size());
  CAPTURE(n, width, int(q.bits), int(q.search));
  std::vector<Params> params(std::size_t(ceil_div(n, width))), expected_params(params.size());
  std::vector<std::uint8_t> packed(std::size_t(ceil_div(n * q.bits, 8)) + 1, 0xa5),
      expected_packed(packed), codes(x.size());
  std::vector<float> values(x.size() + 1, 7.0f), expected_values(values);
  for (Index g = 0; g < Index(params.size()); ++g) {
    const Index begin = g * width, end = std::min(begin + width, n);
    auto& p = expected_params[std::size_t(g)];
    p = q.fit(x.subspan(std::size_t(begin), std::size_t(end - begin)));
    for (Index j = begin; j < end; ++j) {
      codes[std::size_t(j)] = q.encode(x[std::size_t(j)], p);
      expected_values[std::size_t(j)] = q.decode(codes[std::size_t(j)], p);
    }
  }
  pack_codes(codes, q.bits, std::span(expected_packed).first(packed.size() - 1));
  fit_row(q, x, width, params);
  bool same_params = true;
  for (std::size_t g = 0; g < params.size(); ++g)
    same_params &= q.scale(params[g]) == q.scale(expected_params[g]) &&
                   q.offset(params[g]) == q.offset(expected_params[g]);
  CHECK(same_params);
  pack_row(q, x, width, expected_params, std::span(packed).first(packed.size() - 1));
  CHECK(packed == expected_packed);  // the last byte too: nothing is written past the end
  unpack_row(q, std::span<const std::uint8_t>(packed).first(packed.size() - 1), width,
             expected_params, std::span(values).first(x.size()));
  CHECK(values == expected_values);
  std::vector<double> errors(params.size());
  test::row_errors(q, x, width, expected_params, errors);
  bool same_errors = true;
  for (Index g = 0; g < Index(params.size()); ++g) {
    const auto group =
        x.subspan(std::size_t(g * width), std::size_t(std::min(width, n - g * width)));
    const auto& p = expected_params[std::size_t(g)];
    const double expected = test::squared_error(q, group, p);
    const double scale = double(q.scale(p));
    // In units of the scale the kernels are off by the rounding of u.
    same_errors &=
        std::abs(errors[std::size_t(g)] - expected) <=
        1e-3 * expected + 1e-7 * double(1 << q.bits) * scale * scale * double(group.size()) + 1e-60;
  }
  CHECK(same_errors);
}

template <ScalarQuantizer Q>
void check_rows(Q q) {
  for (const ScaleSearch search : {ScaleSearch::minmax, ScaleSearch::mse}) {
    q.search = search;
    for (const auto& [n, width] : {std::pair<Index, Index>{0, 1},
                                   {1, 1},
                                   {7, 3},
                                   {17, 17},
                                   {33, 16},
                                   {129, 32},
                                   {600, 64},
                                   {1100, 128},
                                   {259, 13},
                                   {4200, 4200}}) {
      const auto x = test::bell(n + 1, std::uint64_t(n), 1000, 50);
      check_row(q, std::span(x).subspan(1), width);
    }
  }
  q.search = ScaleSearch::minmax;
  for (const auto& x : test::awkward_groups())
    if (std::abs(x[0]) < 1e30f) check_row(q, x, 64);
}

}  // namespace

TEST_CASE("rows are treated group by group, whatever their kernels") {
  check_rows(Affine<2>{});
  check_rows(Affine<3>{});
  check_rows(Affine<4>{});
  check_rows(Affine<5>{});
  check_rows(Affine<8>{});
  check_rows(AffineIntegerZero<4>{});
  check_rows(Symmetric<6>{});
  check_rows(Midrise<2>{});
  check_rows(Midrise<3>{});
  check_rows(Midrise<4>{});
  check_rows(Midrise<7>{});
  check_rows(nf4());
  check_rows(MxFp4{});
  check_rows(NvFp4{});
  check_rows(Fp8E4M3{});
}

TEST_CASE("rows allocate nothing") {
  const auto x = test::bell(1000, 1);
  const Affine<4> q{.search = ScaleSearch::minmax};
  std::vector<Affine<4>::Params> params(8);
  std::vector<std::uint8_t> packed(500);
  std::vector<float> out(1000);
  CHECK(test::allocations_of([&] {
          fit_row(q, x, 128, params);
          pack_row(q, x, 128, params, packed);
          unpack_row(q, packed, 128, params, out);
        }) == 0);
}
