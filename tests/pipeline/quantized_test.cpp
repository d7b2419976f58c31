#include "cafeq/pipeline/quantized.hpp"

#include "cafeq/pipeline/pipeline.hpp"
#include "cafeq/quant/affine.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

TEST_CASE("Parts taken out and put together again are the same matrix") {
  const auto W = test::gaussian<float>(12, 50, 9);
  const auto q = Pipeline{Identity{}, Affine<5>{.group = 16}, Nearest{}}.quantize(W);
  const auto params = q.codes().params();
  const Quantized again(
      Codes(q.quantizer(), q.cols(), q.codes().packed(), {params.begin(), params.end()}),
      q.transform(), q.side(), q.exponent());
  CHECK(again.error(W) == q.error(W));
  CHECK(again.storage_bits() == q.storage_bits());
}

TEST_CASE("Parts that contradict each other are refused") {
  const auto W = test::gaussian<float>(12, 50, 9);
  const auto q = Pipeline{Identity{}, Affine<5>{.group = 16}, Nearest{}}.quantize(W);
  using C = Codes<Affine<5>>;
  const std::vector<Affine<5>::Params> params(q.codes().params().begin(), q.codes().params().end());
  CHECK_THROWS_WITH(C(q.quantizer(), 49, q.codes().packed(), params),
                    Contains("codes: 50 columns"));
  CHECK_THROWS_WITH(C(q.quantizer(), 50, q.codes().packed(), {}),
                    Contains("0 groups of parameters, expected 48"));
  CHECK_THROWS_WITH(C(q.quantizer(), 50, PackedCodes(12, 50, 4), params), Contains("4 bits"));
  CHECK_THROWS_WITH(Quantized(q.codes(), Identity::Fitted{51}, q.side(), 0),
                    Contains("dimension 51 on 12 x 50"));
}

TEST_CASE("decode_rows gives any rows of the decoded codes") {
  const auto W = test::gaussian<float>(30, 33, 2);
  const auto q = Pipeline{Identity{}, Affine<4>{}, Nearest{}}.quantize(W);
  Matrix<float> all(30, 33);
  q.decode_rows(0, all.view());
  Matrix<float> some(7, 33);
  q.decode_rows(11, some.view());
  for (Index i = 0; i < 7; ++i)
    for (Index j = 0; j < 33; ++j) REQUIRE(some(i, j) == all(11 + i, j));
}
