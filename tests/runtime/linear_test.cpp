#include "cafeq/runtime/linear.hpp"

#include <Eigen/Core>
#include <vector>

#include "cafeq/pipeline/pipeline.hpp"
#include "cafeq/quant/affine.hpp"
#include "cafeq/quant/midrise.hpp"
#include "cafeq/transform/compose.hpp"
#include "cafeq/transform/dual_scaling.hpp"
#include "cafeq/transform/hadamard.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/toy_quantizer.hpp"

using namespace cafeq;

namespace {

template <class Z>
void check_against_dense(const Z& q) {
  const Linear layer{q};
  Matrix<double> What(q.rows(), q.cols());
  dequantize(q, What);
  const auto x = test::gaussian<float>(3, q.cols(), 77);
  Matrix<float> y(3, q.rows());
  layer.multiply_batch(x.view(), y.view());
  double error = 0, norm = 0;
  for (Index n = 0; n < 3; ++n)
    for (Index i = 0; i < q.rows(); ++i) {
      double sum = 0;
      for (Index j = 0; j < q.cols(); ++j) sum += What(i, j) * double(x(n, j));
      error += (sum - double(y(n, i))) * (sum - double(y(n, i)));
      norm += sum * sum;
    }
  CHECK(error <= 1e-11 * norm);
}

}  // namespace

TEST_CASE("Packed weights times activations equal the dequantized weights times them") {
  for (const Index cols : {1, 7, 33, 64, 129}) {
    INFO("columns " << cols);
    const auto W = test::gaussian<float>(17, cols, std::uint64_t(cols));
    check_against_dense(Pipeline{Identity{}, Affine<3>{.group = 16}, Nearest{}}.quantize(W));
    check_against_dense(Pipeline{DualScaling{} * RandomizedHadamard{}, Midrise<4>{}, Nearest{}}.quantize(W));
    check_against_dense(Pipeline{BlockHadamard{16}, Affine<2>{.group = per_tensor}, Nearest{}}.quantize(W));
    check_against_dense(Pipeline{RandomizedHadamard{}, Midrise<8>{.group = 32}, Nearest{}, Side::output}.quantize(W));
  }
}

TEST_CASE("Vectors of any kind, and threads that change nothing") {
  const auto W = test::gaussian<float>(40, 24, 1);
  const Linear layer{Pipeline{RandomizedHadamard{}, Affine<4>{.group = 8}, Nearest{}}.quantize(W)};
  std::vector<float> x(24), y(40);
  for (std::size_t j = 0; j < 24; ++j) x[j] = float(j) - 11;
  layer.multiply(x, y);
  Eigen::VectorXf xe = Eigen::Map<Eigen::VectorXf>(x.data(), 24);
  Eigen::VectorXf ye(40);
  layer.multiply(xe, ye);
  for (std::size_t i = 0; i < 40; ++i) REQUIRE(ye(Index(i)) == y[i]);
  for (const Index threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    std::vector<float> z(40);
    layer.multiply(x, z, pool);
    REQUIRE(z == y);
  }
}

TEST_CASE("Wrong sizes are named") {
  const auto W = test::gaussian<float>(4, 6, 1);
  const Linear layer{Pipeline{Identity{}, Affine<4>{}, Nearest{}}.quantize(W)};
  std::vector<float> x(5), y(4);
  CHECK_THROWS_WITH(layer.multiply(x, y), Contains("x has 5 entries, the weights 6 columns"));
  x.resize(6);
  y.resize(3);
  CHECK_THROWS_WITH(layer.multiply(x, y), Contains("y is 1 x 3"));
}
