#include <cmath>

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/pipeline/quantize_pair.hpp"
#include "cafeq/pipeline/recipes.hpp"
#include "cafeq/runtime/linear.hpp"
#include "cafeq/trellis/multiply.hpp"
#include "pipeline/dequantized.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/error_of.hpp"
#include "support/random.hpp"

using namespace cafeq;
using Catch::Matchers::Contains;
using test::dequantized;

namespace {

/// tr(E H Eᵀ) on the input side, tr(Eᵀ H E) on the output side, E = X − X̂.
double loss_in(const Matrix<double>& H, Side side, const Matrix<float>& X,
               const Encoding<Trellis>& encoding) {
  Matrix<float> hat(X.rows(), X.cols());
  encoding.decode(hat.view());
  Matrix<double> E(X.rows(), X.cols());
  for (Index i = 0; i < X.size(); ++i) E.data()[i] = double(X.data()[i]) - double(hat.data()[i]);
  const View<const double> lines = side == Side::input ? View<const double>(E.view()).transposed()
                                                       : View<const double>(E.view());
  double sum = 0;
  for (Index a = 0; a < H.rows(); ++a)
    for (Index b = 0; b < H.rows(); ++b) {
      double product = 0;
      for (Index l = 0; l < lines.cols; ++l) product += lines(a, l) * lines(b, l);
      sum += H(a, b) * product;
    }
  return sum;
}

Matrix<double> correlated(Index n) {
  const auto A = test::gaussian<float>(n + 4, n, 31);
  auto H = kernel::gram<float>(A.view());
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < n; ++j) H(i, j) += 3.0 * double(n);  // a direction that counts much
  return H;
}

}  // namespace

TEST_CASE("Error feedback with joint codes lowers the loss in a metric, on either side") {
  const auto X = test::gaussian<float>(40, 64, 5);
  for (const Side side : {Side::input, Side::output}) {
    const Index n = side == Side::input ? 64 : 40;
    const auto H = correlated(n);
    const Metric metric = Metric::dense(correlated(n));
    const Trellis quantizer = detail::for_lines(Trellis{.rate = {36}, .window = 10}, side);
    const auto loss = [&](const auto& rounder) {
      return loss_in(H, side, X, cafeq::round(rounder, X.view(), quantizer, metric, side));
    };
    const double nearest = loss(Nearest{}), fed_back = loss(ErrorFeedback{.sweeps = 0}),
                 improved = loss(ErrorFeedback{.sweeps = 2});
    INFO(nearest << " " << fed_back << " " << improved);
    CHECK(fed_back < 0.7 * nearest);
    CHECK(improved < 1.02 * fed_back);
  }
}

TEST_CASE("A trellis in a pipeline uses the metric of a stored inverse") {
  const auto W = test::heavy_tailed(96, 64, 5, 0, 1000);
  const LearnedBlockDiagonal<Midrise<3>> learned{.block = 16, .quantizer = {}, .seed = 1};
  const Trellis quantizer{.rate = {48}, .window = 10};
  const auto nearest = Pipeline{learned, quantizer, Nearest{}}.quantize(W);
  const auto fed_back = Pipeline{learned, quantizer, ErrorFeedback{.sweeps = 0}}.quantize(W);
  CHECK(fed_back.quantizer().sequence == Sequence::column);
  CHECK(fed_back.error(W) < 0.03);
  CHECK(nearest.error(W) < 0.04);
  const auto x = test::gaussian<float>(3, 64, 6);
  const auto hat = dequantized(fed_back);
  const Linear layer(fed_back);
  Matrix<float> y(3, 96);
  layer.multiply_batch(x.view(), y.view());
  for (Index n = 0; n < 3; ++n)
    for (Index i = 0; i < 96; ++i) {
      double sum = 0;
      for (Index j = 0; j < 64; ++j) sum += double(x(n, j)) * double(hat(i, j));
      CHECK(double(y(n, i)) == Approx(sum).epsilon(1e-4).margin(1e-3));
    }
}

TEST_CASE("Sequences must run along the lines of a metric") {
  const auto X = test::gaussian<float>(8, 9, 5);
  Encoding<Trellis> encoding(Trellis{}, 8, 9);
  CHECK_THAT(test::error_of([&] {
               ErrorFeedback{}.round(X.view(), Metric::identity(9), Side::input, encoding);
             }).message(),
             Contains("columns on the input side"));
  CHECK_THAT(test::error_of([&] {
               ErrorFeedback{}.round(X.view(), Metric::identity(8), Side::output, encoding);
             }).message(),
             Contains("rows on the output side"));
}

TEST_CASE("smallest rounds value and output projections together") {
  const Index heads = test::sanitized ? 2 : 4;
  const HeadLayout layout{.head_dim = 32, .heads = heads, .kv_heads = heads / 2};
  const auto Wv = test::heavy_tailed(16 * heads, 160, 7, 0, 1000);
  const auto Wo = test::heavy_tailed(144, 32 * heads, 8, 0, 1000);
  const recipes::smallest recipe{.bits = 3.3, .window = 10};
  ThreadPool pool(2);
  const auto q = quantize_value_output(Wv, Wo, layout, recipe, {}, pool);
  CHECK(q.bits_per_weight() <= 3.3);
  CHECK(q.bits_per_weight() > 3.05);
  CHECK(q.error() <= q.nearest_error());
  CHECK(q.error() < 0.035);
  CHECK(q.output().quantizer().sequence == Sequence::column);
  CHECK(q.value().quantizer().sequence == Sequence::row);
  // The error is that of the products of what inference decodes.
  const auto V = dequantized(q.value()), O = dequantized(q.output());
  double error = 0, norm = 0;
  for (Index h = 0; h < heads; ++h)
    for (Index i = 0; i < 144; i += 7)
      for (Index j = 0; j < 160; ++j) {
        double exact = 0, hat = 0;
        for (Index d = 0; d < 32; ++d) {
          exact += double(Wo(i, h * 32 + d)) * double(Wv(h / 2 * 32 + d, j));
          hat += double(O(i, h * 32 + d)) * double(V(h / 2 * 32 + d, j));
        }
        error += (exact - hat) * (exact - hat);
        norm += exact * exact;
      }
  CHECK(error / norm == Approx(q.error()).epsilon(0.2));  // a seventh of the rows
  if (test::sanitized) return;                            // a second time
  const auto again = quantize_value_output(Wv, Wo, layout, recipe);
  CHECK(again.error() == q.error());
}

TEST_CASE(
    "smallest rounds query and key projections together, or balances them where positions are "
    "rotary") {
  const Index heads = test::sanitized ? 2 : 4;
  const HeadLayout layout{.head_dim = 16, .heads = heads, .kv_heads = heads / 2};
  const auto Wq = test::heavy_tailed(16 * heads, 200, 7, 0, 1000),
             Wk = test::heavy_tailed(8 * heads, 200, 8, 0, 1000);
  const recipes::smallest recipe{.bits = 3.3, .window = 10};
  const auto q = quantize_query_key(Wq, Wk, layout, recipe);
  CHECK(q.error() <= q.nearest_error());
  CHECK(q.error() < 0.04);
  QueryKeyOptions options;
  options.traits.rotary = Rotary{16, Rotary::Pairing::half_split};
  const auto rotary = quantize_query_key(Wq, Wk, layout, recipe, options);
  CHECK(rotary.error() < 0.06);
}
