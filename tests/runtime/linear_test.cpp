#include "cafeq/runtime/linear.hpp"

#include <Eigen/Core>
#include <vector>

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/pipeline/pipeline.hpp"
#include "cafeq/quant/affine.hpp"
#include "cafeq/quant/codebook.hpp"
#include "cafeq/quant/microfloat.hpp"
#include "cafeq/quant/midrise.hpp"
#include "cafeq/transform/compose.hpp"
#include "cafeq/transform/dual_scaling.hpp"
#include "cafeq/transform/hadamard.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/toy_quantizer.hpp"

using namespace cafeq;

namespace {

/// ‖Y − X Ŵᵀ‖² / ‖X Ŵᵀ‖².
template <class Z>
double error_against_dense(const Z& q, const Matrix<float>& X, const Matrix<float>& Y) {
  Matrix<double> What(q.rows(), q.cols());
  dequantize(q, What);
  double error = 0, norm = 0;
  for (Index n = 0; n < X.rows(); ++n)
    for (Index i = 0; i < q.rows(); ++i) {
      double sum = 0;
      for (Index j = 0; j < q.cols(); ++j) sum += What(i, j) * double(X(n, j));
      error += (sum - double(Y(n, i))) * (sum - double(Y(n, i)));
      norm += sum * sum;
    }
  return error / norm;
}

/// fp32 activations to their rounding; int8 ones to what half a step an entry does to a sum of
/// many.
template <class Z>
void check_against_dense(const Z& q) {
  const auto X = test::gaussian<float>(5, q.cols(), 77);
  Matrix<float> Y(5, q.rows());
  Linear{q}.multiply_batch(X.view(), Y.view());
  CHECK(error_against_dense(q, X, Y) <= 1e-11);
  const Linear rounded{q, {.precision = ActivationPrecision::int8, .group = 32}};
  rounded.multiply_batch(X.view(), Y.view());
  CHECK(error_against_dense(q, X, Y) <= 3e-4);
  // The rest of the error is that of fp32.
  const Activations x = rounded.prepare_batch(X.view());
  Matrix<float> inputs = to_matrix<float>(x.values());
  if (q.side() == Side::input) q.transform().apply(inputs.view(), Op::transpose);
  CHECK(error_against_dense(q, inputs, Y) <= 1e-10);
}

/// Values that are no line over levels: ±2^e, and no scale.
struct Logarithmic {
  struct Params {
    std::uint8_t exponent = 0;
  };
  static constexpr int bits = 4;
  Index group = 24;

  Params fit(std::span<const float> x) const {
    float largest = 0;
    for (const float v : x) largest = std::max(largest, std::abs(v));
    return {std::uint8_t(floor_log2(double(largest)) + 100)};
  }
  std::uint8_t encode(float x, const Params& p) const {
    const int e = int(p.exponent) - 100 - floor_log2(double(x));
    return std::uint8_t((x < 0 ? 8 : 0) + std::min(std::max(e, 0), 7));
  }
  float decode(std::uint8_t code, const Params& p) const {
    return std::ldexp(code & 8 ? -1.0f : 1.0f, int(p.exponent) - 100 - (code & 7));
  }
};

BlockDiagonal learned_like(Index dim, Index k, InversePrecision precision) {
  std::vector<Matrix<double>> blocks;
  for (Index offset = 0; offset < dim; offset += k) {
    const Index size = std::min(k, dim - offset);
    blocks.push_back(test::gaussian<double>(size, size, std::uint64_t(offset) + 5));
    for (Index j = 0; j < size; ++j) blocks.back()(j, j) += 3 * std::sqrt(double(size));
  }
  return BlockDiagonal::from_inverse(std::move(blocks), precision);
}

}  // namespace

TEST_CASE("Packed weights times activations equal the dequantized weights times them") {
  for (const Index cols : {1, 7, 33, 64, 129, 256}) {
    INFO("columns " << cols);
    const auto W = test::gaussian<float>(17, cols, std::uint64_t(cols));
    check_against_dense(Pipeline{Identity{}, Affine<3>{.group = 16}, Nearest{}}.quantize(W));
    check_against_dense(
        Pipeline{Identity{}, AffineIntegerZero<4>{.group = 64}, Nearest{}}.quantize(W));
    check_against_dense(Pipeline{Identity{}, Symmetric<5>{.group = 32}, Nearest{}}.quantize(W));
    check_against_dense(
        Pipeline{Identity{}, test::ToyMidrise{.bits = 6, .group = 16}, Nearest{}}.quantize(W));
    check_against_dense(
        Pipeline{DualScaling{} * RandomizedHadamard{}, Midrise<4>{}, Nearest{}}.quantize(W));
    check_against_dense(
        Pipeline{BlockHadamard{16}, Affine<2>{.group = per_tensor}, Nearest{}}.quantize(W));
    check_against_dense(
        Pipeline{RandomizedHadamard{}, Midrise<8>{.group = 32}, Nearest{}, Side::output}.quantize(
            W));
  }
}

TEST_CASE("Grids that are not uniform and groups that end anywhere are decoded") {
  for (const Index cols : {1, 33, 129, 200}) {
    INFO("columns " << cols);
    const auto W = test::gaussian<float>(13, cols, std::uint64_t(cols));
    check_against_dense(Pipeline{Identity{}, nf4(32), Nearest{}}.quantize(W));
    check_against_dense(Pipeline{Identity{}, MxFp4{}, Nearest{}}.quantize(W));
    check_against_dense(Pipeline{Identity{}, Logarithmic{}, Nearest{}}.quantize(W));
    check_against_dense(Pipeline{Identity{}, Affine<4>{.group = 7}, Nearest{}}.quantize(W));
    check_against_dense(Pipeline{Identity{}, Midrise<6>{.group = 30}, Nearest{}}.quantize(W));
  }
}

TEST_CASE("Stored inverses of every precision are undone on either side, alone and in a product") {
  for (const InversePrecision precision :
       {InversePrecision::fp32, InversePrecision::fp16, InversePrecision::int8})
    for (const Index k : test::sweep<Index>({16, 20, 64}, {20})) {
      INFO("blocks of " << k);
      const auto W = test::gaussian<float>(72, 136, std::uint64_t(k));
      check_against_dense(
          Pipeline{learned_like(136, k, precision), Midrise<4>{}, Nearest{}}.quantize(W));
      check_against_dense(
          Pipeline{learned_like(72, k, precision), Midrise<4>{}, Nearest{}, Side::output}.quantize(
              W));
      check_against_dense(Pipeline{
          RandomizedHadamard{} * learned_like(136, k, precision), Affine<3>{.group = 8},
          Nearest{}}.quantize(W));
      check_against_dense(Pipeline{RandomizedHadamard{} * learned_like(72, k, precision),
                                   Affine<3>{.group = 8}, Nearest{}, Side::output}
                              .quantize(W));
    }
}

TEST_CASE("Activations prepared once serve several layers, whatever their bits") {
  const auto M = learned_like(96, 32, InversePrecision::int8);
  const auto W = test::gaussian<float>(50, 96, 3);
  const auto X = test::gaussian<float>(6, 96, 4);
  using Format = ActivationFormat;
  for (const Format format : {Format{}, Format{ActivationPrecision::int8, 16},
                              Format{ActivationPrecision::int8, per_row}}) {
    const Linear q{Pipeline{M, Midrise<4>{.group = 32}, Nearest{}}.quantize(W), format};
    const Linear k{Pipeline{M, Affine<3>{.group = 48}, Nearest{}}.quantize(W), format};
    const Linear v{Pipeline{M, nf4(32), Nearest{}}.quantize(W), format};
    const Activations x = q.prepare_batch(X.view());
    CHECK(x.count() == 6);
    CHECK(x.dim() == 96);
    const auto check = [&](const auto& layer) {
      Matrix<float> alone(6, 50), shared(6, 50);
      layer.multiply_batch(X.view(), alone.view());
      layer.multiply_batch(x, shared.view());
      for (Index i = 0; i < alone.size(); ++i) REQUIRE(shared.data()[i] == alone.data()[i]);
      std::vector<float> one(50);
      layer.multiply(layer.prepare(X.row(2)), one);
      for (Index i = 0; i < 50; ++i) REQUIRE(one[std::size_t(i)] == alone(2, i));
    };
    check(q);
    check(k);
    check(v);
  }
}

TEST_CASE("Weights near the ends of float's range") {
  for (const double scale : {1e-36, 1e36}) {
    const auto W = test::gaussian<float>(9, 64, 8, scale);
    check_against_dense(Pipeline{Identity{}, Affine<4>{.group = 32}, Nearest{}}.quantize(W));
  }
}

TEST_CASE("Vectors of any kind") {
  const auto W = test::gaussian<float>(40, 24, 1);
  const Linear layer{Pipeline{RandomizedHadamard{}, Affine<4>{.group = 8}, Nearest{}}.quantize(W)};
  std::vector<float> x(24), y(40);
  for (std::size_t j = 0; j < 24; ++j) x[j] = float(j) - 11;
  layer.multiply(x, y);
  Eigen::VectorXf xe = Eigen::Map<Eigen::VectorXf>(x.data(), 24);
  Eigen::VectorXf ye(40);
  layer.multiply(xe, ye);
  for (std::size_t i = 0; i < 40; ++i) REQUIRE(ye(Index(i)) == y[i]);
}

TEST_CASE("Threads change nothing") {
  const auto check = [](const auto& layer) {
    const auto X = test::gaussian<float>(5, layer.in(), 2);
    Matrix<float> Y(5, layer.out()), Z(5, layer.out());
    layer.multiply_batch(X.view(), Y.view());
    for (const Index threads : {1, 2, 3}) {
      ThreadPool pool(threads);
      layer.multiply_batch(X.view(), Z.view(), pool);
      REQUIRE(std::equal(Y.data(), Y.data() + Y.size(), Z.data()));
    }
  };
  // Rows enough to be shared.
  const Index rows = test::sanitized ? 500 : 1500, cols = test::sanitized ? 128 : 512;
  const auto W = test::gaussian<float>(rows, cols, 1);
  for (const ActivationPrecision precision :
       {ActivationPrecision::fp32, ActivationPrecision::int8}) {
    check(Linear{
        Pipeline{learned_like(cols, 64, InversePrecision::int8), Affine<4>{.group = 128}, Nearest{}}
            .quantize(W),
        {precision}});
    check(Linear{Pipeline{RandomizedHadamard{}, nf4(64), Nearest{}}.quantize(W), {precision}});
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
  CHECK_THROWS_WITH(layer.multiply(layer.prepare(x), y), Contains("y is 1 x 3, expected 1 x 4"));
  x.resize(7);
  CHECK_THROWS_WITH(layer.prepare(x), Contains("x has 7 entries, the weights 6 columns"));
  const auto wide = test::gaussian<float>(4, 7, 1);
  const Linear other{Pipeline{Identity{}, Affine<4>{}, Nearest{}}.quantize(wide)};
  y.resize(4);
  CHECK_THROWS_WITH(layer.multiply(other.prepare(x), y),
                    Contains("x has 7 entries, the weights 6 columns"));
  x.resize(6);
  CHECK_THROWS_WITH((Linear{Pipeline{Identity{}, Affine<4>{}, Nearest{}}.quantize(W),
                            {ActivationPrecision::int8, -2}}
                         .multiply(x, y)),
                    Contains("group is -2"));
}
