#include "cafeq/quant/quantizer.hpp"

#include "cafeq/quant/codebook.hpp"
#include "cafeq/quant/microfloat.hpp"
#include "laws.hpp"

using namespace cafeq;

namespace {

// The smallest quantizer one may write: powers of two with a sign, 3 bits, the exponent of the
// group's largest weight as its only parameter.
struct SignedPowers {
  struct Params {
    std::int8_t exponent = 0;
  };
  static constexpr int bits = 3;
  Index group = 32;

  Params fit(std::span<const float> x) const {
    double absmax = 0;
    for (const float v : x) absmax = std::max(absmax, std::abs(double(v)));
    return {std::int8_t(std::min(floor_log2(absmax), 126))};
  }
  std::uint8_t encode(float x, const Params& p) const {
    const int below = int(p.exponent) - floor_log2(double(x) * 1.4142135);
    return std::uint8_t((x < 0 ? 4 : 0) + std::min(std::max(below, 0), 3));
  }
  float decode(std::uint8_t code, const Params& p) const {
    return std::ldexp(code >= 4 ? -1.0f : 1.0f, int(p.exponent) - int(code & 3));
  }
};
static_assert(ScalarQuantizer<SignedPowers> && !LinearGrid<SignedPowers>);

struct NoDecode {
  struct Params {};
  static constexpr int bits = 3;
  Index group = 1;
  Params fit(std::span<const float>) const { return {}; }
  std::uint8_t encode(float, const Params&) const { return 0; }
};
static_assert(!ScalarQuantizer<NoDecode> && !ScalarQuantizer<int>);

struct Wide : SignedPowers {
  static constexpr int bits = 9;
};

}  // namespace

TEST_CASE("a quantizer of one's own goes wherever the library's do") {
  const auto W = test::gaussian<float>(8, 100, 1, 1000.0);
  const auto X = std::as_const(W).view();
  const double error = test::matrix_error(SignedPowers{}, X);
  CHECK(error > 0.02);
  CHECK(error < 0.08);
  CHECK(param_bits(SignedPowers{}) == 8);
  CHECK(tensor_bits(SignedPowers{}) == 0);
  CHECK(for_tensor(SignedPowers{.group = 7}, X).group == 7);
  Encoding<SignedPowers> encoding(SignedPowers{}, 8, 100);
  CHECK(encoding.pack().storage_bits() == 8 * (8 * 38) + 8 * 4 * 8);  // 38 bytes a row
}

TEST_CASE("parameters are counted as they are stored") {
  CHECK(param_bits(nf4()) == 16);
  CHECK(param_bits(NvFp4{}) == 8);
  CHECK(tensor_bits(NvFp4{}) == 32);
  CHECK(tensor_bits(MxFp4{}) == 0);
}

TEST_CASE("grouping covers every element once, the last group of a row being shorter") {
  for (const Index group :
       {per_tensor, per_row, Index(1), Index(3), Index(7), Index(10), Index(99)}) {
    const Grouping grouping{4, 10, group};
    CAPTURE(group);
    std::vector<int> seen(std::size_t(grouping.count()), 0);
    for (Index i = 0; i < 4; ++i)
      for (Index j = 0; j < 10; ++j) {
        REQUIRE(grouping.index(i, j) >= 0);
        REQUIRE(grouping.index(i, j) < grouping.count());
        ++seen[std::size_t(grouping.index(i, j))];
        if (j > 0 && group > 0)
          CHECK((grouping.index(i, j) != grouping.index(i, j - 1)) == (j % group == 0));
      }
    for (const int n : seen) CHECK(n > 0);
    if (group == per_tensor) CHECK(grouping.count() == 1);
    else if (group == per_row) CHECK(grouping.count() == 4);
    else CHECK(grouping.count() == 4 * ceil_div(10, group));
  }
  CHECK(Grouping{0, 5, 2}.count() == 0);
  CHECK(Grouping{5, 0, 2}.count() == 0);
  CHECK(Grouping{0, 0, per_tensor}.count() == 0);
}

#if CAFEQ_EXCEPTIONS
TEST_CASE("a quantizer out of range is refused by name") {
  const auto is_refused = [](const auto& q, const std::string& part) {
    try {
      check(q, 8, 100);
      FAIL("no error");
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::invalid_argument);
      CHECK_THAT(error.message(), Contains(part));
    }
  };
  is_refused(SignedPowers{.group = -2}, "group is -2");
  is_refused(Wide{}, "bits is 9");
  check(SignedPowers{.group = per_tensor}, 8, 100);
}
#endif
