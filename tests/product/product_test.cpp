#include "cafeq/product/product.hpp"

#include <type_traits>

#include "cafeq/quant/affine.hpp"
#include "cafeq/quant/codebook.hpp"
#include "cafeq/quant/microfloat.hpp"
#include "cafeq/quant/midrise.hpp"
#include "cafeq/trellis/multiply.hpp"
#include "pipeline/toy_joint.hpp"
#include "support/catch.hpp"
#include "support/toy_quantizer.hpp"

using namespace cafeq;

// Grids have packed kernels, joint quantizers are decoded, and Trellis brings its own.
static_assert(std::is_same_v<ProductOf<Affine<3>>, GridProduct<Affine<3>>>);
static_assert(std::is_same_v<ProductOf<Midrise<4>>, GridProduct<Midrise<4>>>);
static_assert(std::is_same_v<ProductOf<MxFp4>, GridProduct<MxFp4>>);
static_assert(std::is_same_v<ProductOf<test::ToyMidrise>, GridProduct<test::ToyMidrise>>);
static_assert(std::is_same_v<ProductOf<test::Rings>, JointProduct<test::Rings>>);
static_assert(std::is_same_v<ProductOf<Trellis>, Trellis::Product>);

TEST_CASE("Activations are what products say they are, and formats without sense are refused") {
  Matrix<float> X(2, 3);
  for (Index i = 0; i < X.size(); ++i) X.data()[i] = float(i) - 2;
  const Activations x(X.view(), 4, {});
  CHECK(x.count() == 2);
  CHECK(x.dim() == 3);
  for (Index i = 0; i < X.size(); ++i) CHECK(x.values()(i / 3, i % 3) == X.data()[i]);
  CHECK_THROWS_WITH(Activations(X.view(), 4, {.group = -1}),
                    Catch::Matchers::Contains("group is -1"));
}
