// Pipelines and recipes in a metric of the inputs.
#include <array>

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/linalg/input_gram.hpp"
#include "cafeq/loss/reconstruction.hpp"
#include "cafeq/model/any_recipe.hpp"
#include "cafeq/pipeline/quantize.hpp"
#include "cafeq/pipeline/recipes.hpp"
#include "cafeq/quant/codebook.hpp"
#include "cafeq/quant/microfloat.hpp"
#include "pipeline/dequantized.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/error_of.hpp"
#include "support/random.hpp"

using namespace cafeq;
using test::error_of;

namespace {

/// Inputs of which a few are massive, as those of language models are, and others correlated.
Metric massive_inputs(Index dim, GramKind kind = GramKind::whole) {
  auto X = test::gaussian<float>(4 * dim, dim, 7);
  for (Index i = 0; i < X.rows(); ++i) {
    for (Index j = 1; j < dim; ++j) X(i, j) += 0.5f * X(i, j - 1);
    X(i, dim / 3) *= 40;
    X(i, dim - 1) *= 15;
  }
  InputGram gram(dim, kind);
  gram.add(X.view());
  return gram.metric();
}

template <class Q>
double error_in(const Q& q, const Matrix<float>& W, const Metric& metric) {
  const Matrix<float> hat = test::dequantized(q);
  return relative_error(W, hat, metric, Side::input);
}

/// By how much the error in the metric falls that the metric is known, at equal bits.
template <class R>
double gain(const R& recipe, const Matrix<float>& W, const Metric& metric) {
  const auto blind = quantize(W, recipe), knowing = quantize(W, recipe, metric);
  CHECK(knowing.bits_per_weight() <= blind.bits_per_weight() + 0.15);
  return error_in(blind, W, metric) / error_in(knowing, W, metric);
}

}  // namespace

TEST_CASE("The plain metric changes no bit of any recipe's result") {
  const auto W = test::heavy_tailed(40, 48, 1, 3);
  const auto check = [&](const auto& recipe) {
    const auto plain = test::dequantized(quantize(W, recipe));
    const auto same = test::dequantized(quantize(W, recipe, Metric::identity(48)));
    CHECK(std::equal(plain.data(), plain.data() + plain.size(), same.data()));
  };
  check(recipes::rtn<3>{});
  check(recipes::mse<3>{});
  check(recipes::fast<3>{});
  check(recipes::learned<3>{});
  check(recipes::smallest{.bits = 4});
}

TEST_CASE("Every recipe that feeds errors back gains in the metric of massive inputs") {
  const Index rows = test::sanitized ? 64 : 128, cols = 96;
  const auto W = test::heavy_tailed(rows, cols, 2, 3);
  for (const GramKind kind : {GramKind::whole, GramKind::diagonal}) {
    INFO(name_of(kind));
    const Metric metric = massive_inputs(cols, kind);
    CHECK(gain(recipes::fast<3>{}, W, metric) > 3);
    CHECK(gain(recipes::hadamard<3>{}, W, metric) > 3);
    CHECK(gain(recipes::learned<3>{}, W, metric) > 2);
    CHECK(gain(recipes::smallest{.bits = 4}, W, metric) > 3);
  }
  // Scales by rows of the weights as they are: nothing but what is fed back.
  CHECK(gain(recipes::mse<3>{}, W, massive_inputs(cols)) > 1.1);
  CHECK(gain(recipes::rtn<3>{}, W, massive_inputs(cols)) == 1);
}

TEST_CASE("Code books and small floats gain in the metric of massive inputs too") {
  const auto W = test::heavy_tailed(64, 96, 2, 3);
  const Metric metric = massive_inputs(96);
  const auto check = [&](const auto& quantizer, double least) {
    INFO(quantizer.name);
    const Pipeline pipeline{RandomizedHadamard{}, quantizer, ErrorFeedback{}};
    const double blind = error_in(pipeline.quantize(W), W, metric);
    CHECK(blind > least * error_in(pipeline.quantize(W, metric), W, metric));
  };
  check(nf4(32), 3);
  check(MxFp4{}, 3);
  check(NvFp4{}, 3);
}

TEST_CASE("A result tells its error in a metric") {
  const auto W = test::heavy_tailed(70, 96, 5, 3);
  const Metric metric = massive_inputs(96), diagonal = massive_inputs(96, GramKind::diagonal);
  const auto check = [&](const auto& q) {
    CHECK(q.error(W, Metric::identity(96)) == Approx(q.error(W)).epsilon(1e-6));
    for (const Metric& H : {metric, diagonal})
      CHECK(q.error(W, H) == Approx(error_in(q, W, H)).epsilon(1e-5));
    ThreadPool threads(3);
    CHECK(q.error(W, metric, threads) == q.error(W, metric));
    CHECK_THAT(error_of([&] { q.error(W, Metric::identity(95)); }).message(),
               Contains("a metric of dimension 95 does not fit the 96 columns"));
    CHECK(error_of([&] { q.error(W.view().row_block(0, 69), metric); }).code() ==
          ErrorCode::invalid_shape);
  };
  check(quantize(W, recipes::fast<3>{}, metric));
  check(quantize(W, recipes::smallest{.bits = 4}, metric));
  check(
      Pipeline{RandomizedHadamard{}, Affine<3>{.group = 32}, Nearest{}, Side::output}.quantize(W));
}

TEST_CASE("A metric is seen in the basis of the transform") {
  // The same codes as when W M is rounded in M⁻¹ H M⁻ᵀ.
  const auto W = test::gaussian<float>(20, 32, 3);
  const Metric metric = massive_inputs(32);
  const Hadamard R(Signs(32, 5));
  const Pipeline pipeline{R, Affine<4>{.group = 16}, ErrorFeedback{.sweeps = 2}};
  const auto q = pipeline.quantize(W, metric);

  const auto M = to_dense<double>(R);
  const auto H = metric.to_dense();
  Matrix<double> G(32, 32);
  for (Index i = 0; i < 32; ++i)
    for (Index j = 0; j < 32; ++j)
      for (Index a = 0; a < 32; ++a)
        for (Index b = 0; b < 32; ++b) G(i, j) += M(a, i) * H(a, b) * M(b, j);
  Matrix<float> X = W;
  apply_right(R, X.view());
  const Pipeline behind{Identity{}, Affine<4>{.group = 16}, ErrorFeedback{.sweeps = 2}};
  const Metric rotated = Metric::dense(std::as_const(G));
  const double expected = error_in(behind.quantize(X, rotated), X, rotated);
  CHECK(error_in(q, W, metric) == Approx(expected).epsilon(0.02));
}

TEST_CASE("Results in a metric do not depend on threads, and magnitudes do not matter") {
  auto W = test::gaussian<float>(70, 40, 4);
  const Metric metric = massive_inputs(40);
  ThreadPool pool(3);
  for (const AnyRecipe& usual :
       {AnyRecipe(recipes::fast<>{.bits = 3}), AnyRecipe(recipes::learned<>{.bits = 3}),
        AnyRecipe(recipes::smallest{.bits = 4})}) {
    INFO(usual->name());
    const auto recipe = usual->in_metric();
    REQUIRE(recipe);
    CHECK((*recipe)->options() == usual->options());
    CHECK((*recipe)->advice(64, std::array<PairedMatrix, 2>{}).always);
    Matrix<float> one(70, 40), three(70, 40), plain(70, 40);
    const QuantizedMatrix q = (*recipe)->quantize(W, metric, {});
    CHECK(q.matrix.storage_bits() <= (*recipe)->storage_bits(70, 40));
    q.matrix.dequantize(one.view());
    (*recipe)->quantize(W, metric, pool).matrix.dequantize(three.view());
    CHECK(std::equal(one.data(), one.data() + one.size(), three.data()));
    usual->quantize(W, metric, {}).matrix.dequantize(plain.view());
    CHECK(relative_error(W, one, metric, Side::input) <
          relative_error(W, plain, metric, Side::input));
  }
  CHECK_FALSE(AnyRecipe(recipes::rtn<>{})->in_metric());

  const auto q = quantize(W, recipes::smallest{.bits = 4}, metric);
  auto large = W;
  for (Index i = 0; i < large.size(); ++i) large.data()[i] = std::ldexp(large.data()[i], 60);
  const auto huge = quantize(large, recipes::smallest{.bits = 4}, metric);
  CHECK(huge.error(large) == Approx(q.error(W)));
}

TEST_CASE("What does not fit a metric is named") {
  const auto W = test::gaussian<float>(6, 8, 5);
  const Metric metric = massive_inputs(9);
  CHECK(error_of([&] { quantize(W, recipes::fast<3>{}, metric); }).code() ==
        ErrorCode::invalid_shape);
  CHECK(error_of([&] { quantize(W, recipes::fast<3>{}, Metric::identity(9)); }).code() ==
        ErrorCode::invalid_shape);
  const Pipeline output{RandomizedHadamard{}, Affine<3>{}, ErrorFeedback{}, Side::output};
  const Error error = error_of([&] { output.quantize(W, massive_inputs(8)); });
  CHECK(error.code() == ErrorCode::invalid_argument);
  CHECK_THAT(error.message(), Contains("output side"));
  Matrix<double> indefinite = identity_matrix<double>(8);
  indefinite(2, 2) = -1;
  CHECK(error_of([&] {
          quantize(W, recipes::fast<3>{}, Metric::unfactored(std::move(indefinite)));
        }).code() == ErrorCode::not_positive_definite);
  auto broken = W;
  broken(3, 4) = INFINITY;
  CHECK(error_of([&] { quantize(broken, recipes::fast<3>{}, massive_inputs(8)); }).code() ==
        ErrorCode::non_finite);
}

TEST_CASE("Rows of very different sizes keep their own scales in columns that are sequences") {
  auto W = test::gaussian<float>(200, 64, 6);
  for (Index i = 0; i < 200; ++i)
    for (Index j = 0; j < 64; ++j) W(i, j) *= std::exp(0.05f * float(i % 60));
  for (float& w : W.row(17)) w = 0;
  const Metric metric = massive_inputs(64);
  const auto q = quantize(W, recipes::smallest{.bits = 4}, metric);
  CHECK(q.quantizer().sequence == Sequence::scaled_column);
  const Matrix<float> hat = test::dequantized(q);
  // Each row is as exact as the others, relative to its own size.
  for (const Index i : {0, 59, 120, 199}) {
    const auto row = View<const float>(W.view()).row_block(i, 1);
    CHECK(relative_error(row, View<const float>(hat.view()).row_block(i, 1)) < 0.03);
  }
  for (const float w : hat.row(17)) CHECK(w == 0);
}
