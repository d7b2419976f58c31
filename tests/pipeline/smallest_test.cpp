#include <cmath>

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/pipeline/quantize.hpp"
#include "cafeq/pipeline/recipes.hpp"
#include "pipeline/dequantized.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/error_of.hpp"
#include "support/random.hpp"

using namespace cafeq;
using Catch::Matchers::Contains;
using test::dequantized;
using test::error_of;

namespace {

const auto smallest_input = [] { return test::heavy_tailed(160, 96, 21, 0, 1000); };

}  // namespace

TEST_CASE("smallest meets its budget from below, and closely") {
  for (const auto& [rows, cols] :
       {std::pair<Index, Index>{256, 256}, {64, 64}, {64, 172}, {96, 1000}, {1000, 33}}) {
    if (test::sanitized && rows != 64) continue;  // too slow
    const auto W = test::heavy_tailed(rows, cols, 4, 0, 1000);
    double before = 1;
    for (const double bits : {1.3, 1.75, 2.3, 2.75, 3.25, 4.25, 5.0}) {
      const recipes::smallest recipe{.bits = bits, .window = 10};
      const auto q = quantize(W, recipe);
      INFO(rows << " x " << cols << " at " << bits << ": " << q.bits_per_weight());
      CHECK(q.bits_per_weight() <= bits);
      CHECK(q.bits_per_weight() > bits - 0.15);
      CHECK(q.storage_bits() == recipe.pipeline(rows, cols).storage_bits(rows, cols));
      const double error = q.error(W);
      CHECK(error < before);
      CHECK(error < 0.1 * std::exp2(-2 * (q.quantizer().rate.bits() - 2)));
      before = error;
    }
  }
  CHECK_THAT(error_of([] { (void)recipes::smallest{.bits = 1.01}.pipeline(64, 64); }).message(),
             Contains("1.01 bits are fewer than the 1.1"));
  const auto W = smallest_input();
  const auto tried = try_quantize(W, recipes::smallest{.bits = 1});
  REQUIRE_FALSE(tried);
  CHECK_THAT(tried.error().message(), Contains("1 bits are fewer"));
}

TEST_CASE("smallest: the error is that of the dequantized weights") {
  const auto W = smallest_input();
  const auto q = quantize(W, recipes::smallest{.bits = 2.5});
  const auto hat = dequantized(q);
  double error = 0, norm = 0;
  for (Index i = 0; i < W.rows(); ++i)
    for (Index j = 0; j < W.cols(); ++j) {
      error += std::pow(double(W(i, j)) - double(hat(i, j)), 2);
      norm += double(W(i, j)) * double(W(i, j));
    }
  CHECK(q.error(W) == Approx(error / norm).epsilon(1e-5));
}

TEST_CASE("smallest: threads, element types, powers of two and strides change nothing") {
  const auto W = smallest_input();
  const recipes::smallest recipe{.bits = 3.25, .window = 10};
  const auto q = quantize(W, recipe);
  const auto expected = dequantized(q);
  const auto same = [&](const auto& other, int exponent) {
    const auto hat = dequantized(other);
    for (Index i = 0; i < W.rows(); ++i)
      for (Index j = 0; j < W.cols(); ++j)
        REQUIRE(double(hat(i, j)) == std::ldexp(double(expected(i, j)), exponent));
  };
  ThreadPool pool(3);
  same(quantize(W, recipe, pool), 0);
  Matrix<double> scaled(W.rows(), W.cols());
  for (Index i = 0; i < W.rows(); ++i)
    for (Index j = 0; j < W.cols(); ++j) scaled(i, j) = std::ldexp(double(W(i, j)), 40);
  same(quantize(scaled, recipe), 40);
  const auto transposed = to_matrix<float>(W.view().transposed());
  same(quantize(transposed.view().transposed(), recipe), 0);
}

TEST_CASE("A trellis composes with transforms on either side") {
  const auto W = smallest_input();
  const Trellis quantizer{.rate = {52}, .window = 10};
  const auto check = [&](const auto& pipeline) {
    const auto q = pipeline.quantize(W);
    CHECK(q.error(W) < 0.03);
    CHECK(q.storage_bits() == pipeline.storage_bits(W.rows(), W.cols()));
    const auto hat = dequantized(q);
    Matrix<float> some(3, W.cols());
    CHECK_THAT(error_of([&] { q.decode_rows(158, some.view()); }).message(),
               Contains("rows 158 to 161"));
  };
  check(Pipeline<RandomizedHadamard, Trellis>{RandomizedHadamard{}, quantizer, Nearest{}});
  check(Pipeline<RandomizedHadamard, Trellis>{RandomizedHadamard{}, quantizer, Nearest{},
                                              Side::output});
  check(Pipeline{DualScaling{} * RandomizedHadamard{}, quantizer, Nearest{}});
  const auto X = test::gaussian<float>(50, 60, 2);
  CHECK(Pipeline{Identity{}, quantizer, Nearest{}}.quantize(X).error(X) < 0.014);
}

TEST_CASE("smallest: what cannot be quantized is refused") {
  auto W = smallest_input();
  CHECK_THAT(error_of([&] {
               Pipeline{Identity{}, Trellis{.rate = {90}}, Nearest{}}.quantize(W);
             }).message(),
             Contains("rate is 90"));
  W(3, 4) = std::nanf("");
  CHECK_THAT(error_of([&] { quantize(W, recipes::smallest{}); }).message(), Contains("W"));
  const Matrix<float> none(0, 5);
  CHECK_THAT(error_of([&] { quantize(none, recipes::smallest{}); }).message(),
             Contains("nothing to quantize"));
  const Matrix<float> zeros(20, 30);
  const auto q = Pipeline{RandomizedHadamard{}, Trellis{}, Nearest{}}.quantize(zeros);
  CHECK(q.error(zeros) == 0);
}
