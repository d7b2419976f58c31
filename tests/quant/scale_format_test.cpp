#include "cafeq/quant/scale_format.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "cafeq/quant/zero_point.hpp"
#include "support/catch.hpp"

using namespace cafeq;

static_assert(ScaleFormat<Fp16Scale<>> && ScaleFormat<Fp16Scale<ScaleSigns::both>> &&
              ScaleFormat<Fp16ScaleOffset> && ScaleFormat<Fp16ScaleZero>);
static_assert(HasZeroPoint<Fp16ScaleZero> && !HasZeroPoint<Fp16ScaleOffset>);
static_assert(sizeof(Fp16Scale<>::Params) == 2 && sizeof(Fp16ScaleOffset::Params) == 4);

namespace {

/// Scales and offsets that halves keep well, badly, and not at all.
ScaleOffsets awkward() {
  ScaleOffsets all;
  for (std::size_t g = 0; g < all.scale.size(); ++g) {
    all.scale[g] = std::ldexp(1.2345f, 4 * int(g) - 32);
    all.offset[g] = (g % 2 == 0 ? -1.0f : 1.0f) * std::ldexp(1.777f, int(g) + 3);
  }
  return all;
}

/// store() and read() do to every group what nearest(), scale() and offset() do to one.
template <class F>
void check_many(const F& format) {
  const ScaleOffsets all = awkward();
  for (const std::size_t count : {std::size_t(1), std::size_t(7), all.scale.size()}) {
    std::vector<typename F::Params> params(count);
    detail::store_params(format, all, std::span(params));
    const ScaleOffsets stored =
        detail::read_params(format, std::span<const typename F::Params>(params));
    for (std::size_t g = 0; g < count; ++g) {
      const auto one = format.nearest({}, all.scale[g], all.offset[g]);
      CAPTURE(g, all.scale[g], all.offset[g]);
      CHECK(format.scale(params[g]) == format.scale(one));
      CHECK(format.offset(params[g]) == format.offset(one));
      CHECK(stored.scale[g] == format.scale(one));
      CHECK(stored.offset[g] == format.offset(one));
    }
    for (std::size_t g = count; g < stored.scale.size(); ++g) CHECK(stored.scale[g] == 0);
  }
}

}  // namespace

TEST_CASE("many scales and offsets are stored as one is") {
  check_many(Fp16Scale<>{});
  check_many(Fp16Scale<ScaleSigns::both>{});
  check_many(Fp16ScaleOffset{});
  check_many(Fp16ScaleZero{.code_bits = 4});
}

TEST_CASE("a format keeps what it has where it cannot keep what it is given") {
  const float infinity = std::numeric_limits<float>::infinity();
  const auto check_kept = [&](const auto& format, bool has_negative) {
    const auto p = format.nearest({}, 2.0f, 6.0f);
    CHECK(format.scale(format.nearest(p, infinity, 0)) == 2);
    CHECK(format.scale(format.nearest(p, std::nanf(""), 0)) == 2);
    CHECK(format.scale(format.nearest(p, -3, 0)) == (has_negative ? -3 : 2));
    CHECK(format.scale(format.nearest(p, 1e9f, 0)) == fp16_max);
  };
  check_kept(Fp16Scale<>{}, false);
  check_kept(Fp16Scale<ScaleSigns::both>{}, true);
  check_kept(Fp16ScaleOffset{}, false);
  check_kept(Fp16ScaleZero{.code_bits = 4}, false);
}

TEST_CASE("the bits of a zero point are those of a code") {
  CHECK(Fp16ScaleZero::for_bits(3).bits() == 19);
  CHECK(Fp16ScaleZero{.code_bits = 4}.nearest({}, 1, -100).zero == 15);
  CHECK(Fp16ScaleZero{.code_bits = 8}.nearest({}, 1, -100).zero == 100);
  CHECK(Fp16Scale<>::bits() == 16);
  CHECK(Fp16ScaleOffset::bits() == 32);
}
