#include "cafeq/trellis/multiply.hpp"

#include <cmath>

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/pipeline/quantize.hpp"
#include "cafeq/pipeline/recipes.hpp"
#include "cafeq/runtime/any_linear.hpp"
#include "cafeq/trellis/budget.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/error_of.hpp"
#include "support/random.hpp"

using namespace cafeq;
using Catch::Matchers::Contains;

namespace {

/// Y = X Ŵᵀ of a layer against the dequantized weights in double: the largest |Δy_i| / (largest
/// |x_j| · Σ_j |ŵ_ij|).
template <class L>
double worst_product(const L& layer, const Matrix<float>& hat, const Matrix<float>& X,
                     Executor auto& executor) {
  Matrix<float> Y(X.rows(), layer.out());
  layer.multiply_batch(X.view(), Y.view(), executor);
  double worst = 0;
  for (Index n = 0; n < X.rows(); ++n) {
    double largest = 0;
    for (const float x : X.row(n)) largest = std::max(largest, double(std::abs(x)));
    for (Index i = 0; i < layer.out(); ++i) {
      double sum = 0, weights = 0;
      for (Index j = 0; j < layer.in(); ++j) {
        sum += double(X(n, j)) * double(hat(i, j));
        weights += double(std::abs(hat(i, j)));
      }
      worst = std::max(worst, std::abs(sum - double(Y(n, i))) / (largest * weights));
    }
  }
  return worst;
}

}  // namespace

TEST_CASE("Trellis codes are multiplied as their dequantized weights are", "[runtime]") {
  ThreadPool pool(2);
  for (const auto& [rows, cols] : test::sweep<std::pair<Index, Index>>(
           {{130, 64}, {37, 172}, {64, 1000}, {5, 30}}, {{65, 64}, {19, 172}, {5, 30}})) {
    const auto W = test::heavy_tailed(rows, cols, 8, 0, 1000);
    const auto X = test::gaussian<float>(11, cols, 9);
    for (const double bits : {4.3, 2.6}) {
      INFO(rows << " x " << cols << ", " << bits << " bits");
      const detail::TrellisLoad load{rows, cols, Sequence::rows,
                                     RandomizedHadamard::storage_bits(cols) + 16};
      const double least = detail::least_trellis_bits({&load, 1}) + 1e-9;
      const auto q = quantize(W, recipes::smallest{.bits = std::max(bits, least), .window = 10});
      Matrix<float> hat(rows, cols);
      q.dequantize(hat);
      // The Hadamard spreads x: its absmax may grow by sqrt(cols), the norm of a row may be up to
      // that much above its sum of magnitudes.
      CHECK(worst_product(Linear(q), hat, X, pool) < 3e-5);
      CHECK(worst_product(Linear(q, {.precision = ActivationPrecision::int8}), hat, X, pool) <
            8e-3);
      CHECK(worst_product(AnyLinear(AnyQuantized(q)), hat, X, pool) < 3e-5);
    }
  }
}

TEST_CASE(
    "Products of trellis codes: any number of threads and vectors, prepared or not, output side",
    "[runtime]") {
  const auto W = test::heavy_tailed(300, 96, 8, 0, 1000);
  const auto X = test::gaussian<float>(5, 96, 9);
  const Linear layer(quantize(W, recipes::smallest{.bits = 3.25, .window = 10}));
  CHECK(layer.in() == 96);
  CHECK(layer.out() == 300);
  Matrix<float> all(5, 300), one(1, 300);
  ThreadPool pool(3);
  layer.multiply_batch(X.view(), all.view(), pool);
  for (Index n = 0; n < 5; ++n) {
    layer.multiply(X.row(n), one.row(0));
    for (Index i = 0; i < 300; ++i) REQUIRE(one(0, i) == all(n, i));
    layer.multiply(layer.prepare(X.row(n)), one.row(0));
    for (Index i = 0; i < 300; ++i) REQUIRE(one(0, i) == all(n, i));
  }
  const auto q =
      Pipeline<RandomizedHadamard, Trellis>{
          RandomizedHadamard{}, {.rate = {60}, .window = 10}, Nearest{}, Side::output}
          .quantize(W);
  Matrix<float> hat(300, 96);
  q.dequantize(hat);
  CHECK(worst_product(Linear(q), hat, X, pool) < 2e-4);

  Matrix<float> wrong(5, 299);
  CHECK_THAT(test::error_of([&] { layer.multiply_batch(X.view(), wrong.view()); }).message(),
             Contains("y is 5 x 299, expected 5 x 300"));
  const auto narrow = test::gaussian<float>(5, 95, 9);
  CHECK_THAT(test::error_of([&] { layer.multiply_batch(narrow.view(), all.view()); }).message(),
             Contains("x has 95 entries"));
}
