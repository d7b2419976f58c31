#include "cafeq/pair/attention.hpp"

#include "support/catch.hpp"

using namespace cafeq;

TEST_CASE("which coordinates a rotary embedding pairs", "[pair][attention]") {
  const Rotary halves{.dims = 8};
  CHECK(halves.pairs() == 4);
  CHECK(halves.pair(1) == std::pair<Index, Index>(1, 5));
  const Rotary neighbours{.dims = 8, .pairing = Rotary::Pairing::interleaved};
  CHECK(neighbours.pair(1) == std::pair<Index, Index>(2, 3));
}

TEST_CASE("a rotary embedding that does not fit its heads", "[pair][attention]") {
  for (const Index dims : {0, 2, 8}) CHECK_FALSE(Rotary{.dims = dims}.fault(8));
  for (const Index dims : {-2, 3, 10}) {
    const auto fault = Rotary{.dims = dims}.fault(8);
    REQUIRE(fault);
    CHECK(fault->code() == ErrorCode::invalid_argument);
    CHECK(fault->message() ==
          message("rotary: dims is ", dims, ", must be even and at most head_dim (8)"));
  }
}
