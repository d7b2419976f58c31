#include "engine/packed.hpp"

#include "cafeq/cafeq.hpp"
#include "engine/product.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using cafeq::relative_error;
using cafeq::test::gaussian;
using engine::Index;
using engine::kernels;
using engine::Matrix;
using engine::packed_weights;
using engine::test::product;

TEST_CASE("packed weights are multiplied as their dequantized ones are") {
  const auto W = cafeq::test::heavy_tailed(40, 64, 1, 0, 1000), X = gaussian<float>(3, 64, 2);
  cafeq::ThreadPool threads(2);
  Matrix<float> hat(40, 64);
  cafeq::quantize(W, cafeq::recipes::fast<4>{}, threads).dequantize(hat);
  const auto packed =
                 product(packed_weights().quantize("fast4", W.view(), threads), X, 40, threads),
             floats = product(kernels().dense(kernels().pack(std::as_const(hat).view())), X, 40);
  CHECK(relative_error(floats, packed) < 1e-8);
}

TEST_CASE("every quantizer packs weights") {
  const auto W = gaussian<float>(32, 64, 3), X = gaussian<float>(1, 64, 4);
  const auto exact = product(kernels().dense(kernels().pack(W.view())), X, 32);
  for (const std::string_view how : engine::quantizers) {
    INFO(how);
    const auto found = product(packed_weights().quantize(how, W.view(), {}), X, 32);
    const double error = relative_error(exact, found);
    CHECK(error < 0.1);
    CHECK(error > 0);
  }
}
