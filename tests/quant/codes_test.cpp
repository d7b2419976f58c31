#include "cafeq/quant/codes.hpp"

#include <algorithm>
#include <vector>

#include "cafeq/quant/affine.hpp"
#include "cafeq/quant/encoding.hpp"
#include "support/catch.hpp"
#include "support/error_of.hpp"
#include "support/random.hpp"
#include "support/toy_quantizer.hpp"

using namespace cafeq;
using Catch::Matchers::Contains;

static_assert(StoredCodes<Codes<Affine<3>>>);
static_assert(StoredCodes<Codes<test::ToyMidrise>>);

TEST_CASE("Codes say what they take and what they stand for, from any row on, into any strides") {
  const auto X = test::gaussian<float>(7, 33, 1);
  for (const Index group : {per_row, per_tensor, Index(5), Index(16)}) {
    Encoding<Affine<3>> encoding({.group = group}, 7, 33);
    encoding.fit(X.view());
    encoding.encode(X.view());
    const Codes<Affine<3>> codes = encoding.pack();
    CHECK(codes.rows() == 7);
    CHECK(codes.cols() == 33);
    // 33 codes of 3 bits are 13 bytes; an affine group has two halves.
    CHECK(codes.storage_bits() == 8 * 7 * 13 + 32 * codes.grouping().count());

    Matrix<float> wide(7, 66);
    for (const Index begin : {0, 3, 6}) {
      Matrix<float> dense(7 - begin, 33), transposed(33, 7 - begin);
      codes.decode_rows(begin, dense.view());
      codes.decode_rows(begin, transposed.view().transposed());
      const View<float> part = wide.view().block(begin, 10, 7 - begin, 33);
      codes.decode_rows(begin, part);
      for (Index i = begin; i < 7; ++i)
        for (Index j = 0; j < 33; ++j) {
          REQUIRE(dense(i - begin, j) == encoding.value(i, j));
          REQUIRE(transposed(j, i - begin) == encoding.value(i, j));
          REQUIRE(part(i - begin, j) == encoding.value(i, j));
        }
    }
  }
}

TEST_CASE("Codes whose parts contradict each other are refused") {
  using C = Codes<Affine<3>>;
  const Affine<3> quantizer{.group = 16};
  const std::vector<Affine<3>::Params> params(4 * 3);
  CHECK_NOTHROW(C(quantizer, 33, PackedCodes(4, 33, 3), params));
  const auto refused = [&](Index cols, PackedCodes packed, std::vector<Affine<3>::Params> p) {
    const Error error =
        test::error_of([&] { C(quantizer, cols, std::move(packed), std::move(p)); });
    CHECK(error.code() == ErrorCode::corrupt);
    return error.message();
  };
  CHECK_THAT(refused(32, PackedCodes(4, 33, 3), params), Contains("33 columns"));
  CHECK_THAT(refused(33, PackedCodes(4, 33, 4), params), Contains("4 bits, expected 33 and 3"));
  CHECK_THAT(refused(33, PackedCodes(4, 33, 3), std::vector<Affine<3>::Params>(11)),
             Contains("11 groups of parameters, expected 12"));
}
