#include "cafeq/runtime/any_linear.hpp"

#include "cafeq/pipeline/quantize.hpp"
#include "cafeq/pipeline/recipes.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

TEST_CASE("AnyLinear multiplies as Linear does, to the bit, whatever it holds") {
  const auto W = test::heavy_tailed(40, 128, 1, 2);
  const auto X = test::gaussian<float>(3, 128, 2);
  const auto check = [&]<Transform T, ScalarQuantizer Q>(const Quantized<T, Q>& q,
                                                         ActivationFormat format) {
    const Linear<T, Q> plain(q, format);
    const AnyLinear any(q, format);
    CHECK(any.in() == 128);
    CHECK(any.out() == 40);
    Matrix<float> expected(3, 40), Y(3, 40);
    plain.multiply_batch(X.view(), expected.view());
    any.multiply_batch(X.view(), Y.view());
    for (Index i = 0; i < Y.size(); ++i) CHECK(Y.data()[i] == expected.data()[i]);
    std::vector<float> y(40);
    any.multiply(X.row(1), y);
    plain.multiply(X.row(1), expected.view().row(0));
    for (Index i = 0; i < 40; ++i) CHECK(y[std::size_t(i)] == expected(0, i));
  };
  for (const auto precision : {ActivationPrecision::fp32, ActivationPrecision::int8})
    for (const int bits : test::sweep({2, 3, 4, 6, 8}, {3, 4, 8})) {
      check(quantize(W, recipes::rtn<>{.bits = bits, .group = 64}),
            {.precision = precision, .group = 64});
      check(quantize(W, recipes::fast<>{.bits = bits, .group = 64}),
            {.precision = precision, .group = 64});
      check(quantize(W, recipes::learned<>{.bits = bits, .transform_bits = 2, .max_block = 8}),
            {.precision = precision, .group = 64});
    }
}
