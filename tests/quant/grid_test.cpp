#include "cafeq/quant/grid.hpp"

#include "cafeq/quant/affine.hpp"
#include "cafeq/quant/codebook.hpp"
#include "cafeq/quant/gguf_k.hpp"
#include "cafeq/quant/iq4_nl.hpp"
#include "cafeq/quant/microfloat.hpp"
#include "cafeq/quant/midrise.hpp"
#include "laws.hpp"

using namespace cafeq;

namespace {

// Grids that anyone may write: levels of their own under the library's scale formats.
struct OwnHalves {
  static constexpr UniformLevels<false, true> of(int bits) noexcept {
    const float top = float((1 << (bits - 1)) - 1);
    return {-top - 1, top};
  }
};
struct OwnSteps {
  static constexpr UniformLevels<true> of(int bits) noexcept { return {0, float((1 << bits) - 1)}; }
};
/// One level more above zero than below.
struct OwnUpper {
  static constexpr UniformLevels<false> of(int bits) noexcept {
    const float half = float(1 << (bits - 1));
    return {1 - half, half};
  }
};
/// As many levels below zero as above: one code is never given.
struct Balanced {
  static constexpr std::string_view name = "balanced";
  static constexpr UniformLevels<false> of(int bits) noexcept {
    const float top = float((1 << (bits - 1)) - 1);
    return {-top, top};
  }
};

// Scale formats of one's own, with nothing that is optional.
struct BrainScale {
  struct Params {
    bf16 scale;
  };
  static constexpr bool has_offset = false;
  static constexpr int scale_digits = 8;
  static constexpr std::int64_t bits() { return 16; }
  static float scale(const Params& p) { return p.scale; }
  static float offset(const Params&) { return 0; }
  static Params nearest(const Params& p, float scale, float) {
    return std::isfinite(scale) && scale >= 0 ? Params{bf16(scale)} : p;
  }
};
struct FloatScale {
  struct Params {
    float scale = 0;
  };
  static constexpr bool has_offset = false;
  static constexpr int scale_digits = 24;
  static constexpr std::int64_t bits() { return 32; }
  static float scale(const Params& p) { return p.scale; }
  static float offset(const Params&) { return 0; }
  static Params nearest(const Params& p, float scale, float) {
    return std::isfinite(scale) && scale >= 0 ? Params{scale} : p;
  }
};

static_assert(ScaleFormat<BrainScale> && ScaleFormat<FloatScale> && LevelFamily<Balanced>);
static_assert(UniformGrid<Grid<OwnHalves, Fp16Scale<>>> &&
              UniformGrid<Grid<Balanced, BrainScale, 8>>);
static_assert(LinearGrid<Grid<Balanced, FloatScale, 4>> &&
              !UniformGrid<Grid<Balanced, FloatScale, 4>>);  // products need more than a float
static_assert(UniformGrid<Affine<4>> && UniformGrid<AffineIntegerZero<>> &&
              UniformGrid<Symmetric<8>> && UniformGrid<Midrise<>> &&
              UniformGrid<AffineK<5, 32, 6>> && UniformGrid<SymmetricK<6, 8>>);
static_assert(!UniformGrid<Codebook> && !UniformGrid<NvFp4> && LinearGrid<Codebook>);
static_assert(sizeof(Midrise<3>) == sizeof(Index) + sizeof(Index));  // parts of the type are free

/// Parameters, codes and values of rows of several widths.
template <class Q>
std::vector<std::uint8_t> bytes_of(const Q& q) {
  std::vector<std::uint8_t> all;
  const auto add = [&](const auto& some) {
    const auto bytes = std::as_bytes(std::span(some));
    for (const std::byte b : bytes) all.push_back(std::uint8_t(b));
  };
  for (const auto& [n, width] :
       {std::pair<Index, Index>{1, 1}, {129, 32}, {600, 64}, {259, 13}, {4200, 4200}}) {
    const auto x = test::bell(n, std::uint64_t(n), 1000, 50);
    std::vector<typename Q::Params> params(std::size_t(ceil_div(n, width)));
    std::vector<std::uint8_t> packed(std::size_t(ceil_div(n * q.bits, 8)));
    std::vector<float> values(x.size());
    fit_row(q, x, width, params);
    pack_row(q, x, width, params, packed);
    unpack_row(q, packed, width, params, std::span(values));
    add(params);
    add(packed);
    add(values);
  }
  return all;
}

template <class Q>
std::vector<std::string> fields_of(const Q&) {
  std::vector<std::string> names;
  Q::for_each_field([&](const char* name, auto) { names.emplace_back(name); });
  return names;
}

}  // namespace

TEST_CASE("a grid of one's own obeys the laws of a linear grid") {
  test::check_laws(Grid<OwnHalves, Fp16Scale<>, 3>{});
  test::check_laws(Grid<OwnSteps, Fp16ScaleOffset>{.bits = 5});
  test::check_laws(Grid<OwnUpper, Fp16Scale<>, 4>{});
  test::check_encode_group(Grid<Balanced, Fp16Scale<>, 4>{});
  test::check_encode_group(Grid<Balanced, BrainScale, 4>{});
  test::check_encode_group(Grid<Balanced, FloatScale, 4>{});
}

TEST_CASE("a grid of one's own has the bytes of the library's with the same levels") {
  CHECK(bytes_of(Grid<OwnHalves, Fp16Scale<>, 3>{}) == bytes_of(Midrise<3>{}));
  CHECK(bytes_of(Grid<OwnHalves, Fp16Scale<>>{.search = ScaleSearch::minmax}) ==
        bytes_of(Midrise<4>{.search = ScaleSearch::minmax}));
  CHECK(bytes_of(Grid<OwnSteps, Fp16ScaleOffset, 4>{}) == bytes_of(Affine<4>{}));
}

TEST_CASE("a scale format without fast members is as good as its precision") {
  const auto W = test::gaussian<float>(16, 1024, 12, 1000.0);
  const auto X = std::as_const(W).view();
  const double halves = test::matrix_error(Grid<Balanced, Fp16Scale<>, 4>{}, X);
  CHECK(test::matrix_error(Grid<Balanced, FloatScale, 4>{}, X) == Approx(halves).epsilon(1e-3));
  CHECK(test::matrix_error(Grid<Balanced, BrainScale, 4>{}, X) == Approx(halves).epsilon(5e-3));
  CHECK(param_bits(Grid<Balanced, FloatScale, 4>{}) == 32);
}

TEST_CASE("many scales and offsets at once are those of one group after the other") {
  const auto check = [](const auto& q, Index width) {
    using Q = std::remove_cvref_t<decltype(q)>;
    const auto x = test::bell(10 * width, 3, 1000, 200);
    std::vector<typename Q::Params> params(10);  // a vector of them, and some more
    fit_row(q, x, width, params);
    const ScaleOffsets at = q.scale_offsets(params);
    for (std::size_t g = 0; g < params.size(); ++g) {
      CHECK(at.scale[g] == q.scale(params[g]));
      CHECK(at.offset[g] == q.offset(params[g]));
    }
    std::vector<float> scales(params.size(), 7), offsets(params.size(), 7);
    q.read_scales(params, scales, offsets);
    for (std::size_t g = 0; g < params.size(); ++g) {
      CHECK(scales[g] == q.scale(params[g]));
      CHECK(offsets[g] == q.offset(params[g]));
    }
    for (std::size_t g = params.size(); g < at.scale.size(); ++g) {
      CHECK(at.scale[g] == 0);
      CHECK(at.offset[g] == 0);
    }
  };
  check(Affine<4>{}, 64);
  check(AffineIntegerZero<4>{}, 64);
  check(Symmetric<4>{}, 64);
  check(Midrise<4>{}, 64);
  check(AffineK<4, 32, 6>{}, 32);
  check(SymmetricK<3, 6>{}, 16);
  check(nf4(), 64);
}

TEST_CASE("grids are named, and so are the fields of their parameters") {
  CHECK(Affine<4>::name == "affine");
  CHECK(AffineIntegerZero<>::name == "affine_integer_zero");
  CHECK(Symmetric<3>::name == "symmetric");
  CHECK(Midrise<>::name == "midrise");
  CHECK(Codebook::name == "codebook");
  CHECK(MxFp4::name == "mxfp4");
  CHECK(NvFp4::name == "nvfp4");
  CHECK(Fp8E4M3::name == "fp8_e4m3");
  CHECK(Iq4Nl::name == "iq4_nl");
  CHECK(AffineK<4, 32, 6>::name == "affine_k");
  CHECK(SymmetricK<6, 8>::name == "symmetric_k");
  CHECK(Grid<OwnHalves, Fp16Scale<>>::name.empty());
  using Names = std::vector<std::string>;
  CHECK(fields_of(Affine<4>{}) == Names{"scales", "offsets"});
  CHECK(fields_of(AffineIntegerZero<4>{}) == Names{"scales", "zeros"});
  CHECK(fields_of(Symmetric<4>{}) == Names{"scales"});
  CHECK(fields_of(Midrise<4>{}) == Names{"scales"});
}

TEST_CASE("a grid says what is wrong with it") {
  const auto message_of = [](const auto& q) {
    const auto fault = fault_of(q, 4, 256);
    return fault ? fault->message() : std::string();
  };
  for (const int bits : {0, 1, 9}) {
    CHECK_THAT(message_of(Affine<>{.bits = bits}), Contains("must be 2 to 8"));
    CHECK_THAT(message_of(AffineIntegerZero<>{.bits = bits}), Contains("must be 2 to 8"));
    CHECK_THAT(message_of(Midrise<>{.bits = bits}), Contains("must be 2 to 8"));
  }
  CHECK_THAT(message_of(Symmetric<3>{.group = -2}), Contains("group is -2"));
  CHECK_THAT(message_of(AffineK<4, 32, 6>{.group = 64}),
             Contains("in these super-blocks it is 32"));
  CHECK(message_of(AffineK<4, 32, 6>{}).empty());
  CHECK(message_of(Affine<>{.bits = 8, .group = per_tensor}).empty());
  CHECK(message_of(NvFp4{}).empty());
}
