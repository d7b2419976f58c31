#include "cafeq/pipeline/quantized.hpp"

#include "cafeq/pipeline/pipeline.hpp"
#include "cafeq/quant/affine.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

TEST_CASE("Parts taken out and put together again are the same matrix") {
  const auto W = test::gaussian<float>(12, 50, 9);
  const auto q = Pipeline{Identity{}, Affine<5>{.group = 16}, Nearest{}}.quantize(W);
  const Quantized<Identity::Fitted, Affine<5>> again(q.quantizer(), q.cols(), q.codes(),
                                                     {q.params().begin(), q.params().end()},
                                                     q.transform(), q.side(), q.exponent());
  CHECK(again.error(W) == q.error(W));
  CHECK(again.storage_bits() == q.storage_bits());
}

TEST_CASE("Parts that contradict each other are refused") {
  const auto W = test::gaussian<float>(12, 50, 9);
  const auto q = Pipeline{Identity{}, Affine<5>{.group = 16}, Nearest{}}.quantize(W);
  using Q = Quantized<Identity::Fitted, Affine<5>>;
  const auto params = std::vector<Affine<5>::Params>(q.params().begin(), q.params().end());
  CHECK_THROWS_WITH((Q(q.quantizer(), 49, q.codes(), params, {49}, q.side(), 0)),
                    Contains("codes of 50 columns"));
  CHECK_THROWS_WITH((Q(q.quantizer(), 50, q.codes(), {}, {50}, q.side(), 0)),
                    Contains("0 groups of parameters, expected 48"));
  CHECK_THROWS_WITH((Q(q.quantizer(), 50, q.codes(), params, {51}, q.side(), 0)),
                    Contains("dimension 51 on 12 x 50"));
  CHECK_THROWS_WITH((Q(q.quantizer(), 50, PackedCodes(12, 50, 4), params, {50}, q.side(), 0)),
                    Contains("4 bits"));
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
