#include "engine/packed.hpp"

#include <cmath>

#include "cafeq/cafeq.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using cafeq::test::gaussian;
using engine::Index;
using engine::kernels;
using engine::Matrix;
using engine::packed_weights;

namespace {

Matrix<float> product(const engine::Product& multiply, const Matrix<float>& X, Index out) {
  Matrix<float> Y(X.rows(), out);
  multiply(X.view(), Y.view(), {});
  return Y;
}

double relative_error(const Matrix<float>& found, const Matrix<float>& exact) {
  double error = 0, norm = 0;
  for (Index i = 0; i < exact.size(); ++i) {
    error += std::pow(double(found.data()[i]) - double(exact.data()[i]), 2);
    norm += std::pow(double(exact.data()[i]), 2);
  }
  return error / norm;
}

}  // namespace

TEST_CASE("packed weights are multiplied as their dequantized ones are") {
  const auto W = cafeq::test::heavy_tailed(40, 64, 1, 0, 1000), X = gaussian<float>(3, 64, 2);
  cafeq::ThreadPool threads(2);
  Matrix<float> hat(40, 64);
  cafeq::quantize(W, cafeq::recipes::fast<4>{}, threads).dequantize(hat);
  const auto packed = product(packed_weights().quantize("fast4", W.view(), threads), X, 40),
             floats = product(kernels().dense(kernels().pack(std::as_const(hat).view())), X, 40);
  CHECK(relative_error(packed, floats) < 1e-8);
}

TEST_CASE("every quantizer packs weights") {
  const auto W = gaussian<float>(32, 64, 3), X = gaussian<float>(1, 64, 4);
  const auto exact = product(kernels().dense(kernels().pack(W.view())), X, 32);
  for (const std::string_view how : engine::quantizers) {
    INFO(how);
    const auto error =
        relative_error(product(packed_weights().quantize(how, W.view(), {}), X, 32), exact);
    CHECK(error < 0.1);
    CHECK(error > 0);
  }
}
