#include "cafeq/rounding/weighted_fit.hpp"

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/quant/affine.hpp"
#include "cafeq/quant/codebook.hpp"
#include "cafeq/quant/gguf.hpp"
#include "cafeq/quant/microfloat.hpp"
#include "cafeq/quant/midrise.hpp"
#include "cafeq/rounding/error_feedback.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

namespace {

/// Inputs of which one in fifty is a hundred times as loud as the others.
std::vector<double> loud(Index n) {
  std::vector<double> weights(std::size_t(n), 1.0);
  for (Index j = 7; j < n; j += 50) weights[std::size_t(j)] = 1e4;
  return weights;
}

/// Σ w (x − x̂)² of the nearest codes of a row.
template <class Q>
double row_error(Encoding<Q>& encoding, View<const float> X, std::span<const double> weights,
                 Index i) {
  encoding.encode(X);
  double sum = 0;
  for (Index j = 0; j < X.cols; ++j) {
    const double e = double(X(i, j)) - double(encoding.value(i, j));
    sum += weights[std::size_t(j)] * e * e;
  }
  return sum;
}

Matrix<float> weights_for_grids(Index rows, Index cols, std::uint64_t seed) {
  auto X = test::gaussian<float>(rows, cols, seed);
  for (float& x : std::span(X.data(), std::size_t(X.size()))) x *= 1024;
  return X;
}

}  // namespace

TEMPLATE_TEST_CASE("Scales fitted with weights leave less of the weighted error in every row", "",
                   (Affine<2>), (Affine<3>), (AffineIntegerZero<3>), (Midrise<2>), (Symmetric<3>),
                   (SymmetricK<3, 6>), (AffineK<4, 32, 6>), Iq4Nl, MxFp4) {
  TestType quantizer{};
  if (quantizer.group == per_row) quantizer.group = 64;
  const auto X = weights_for_grids(6, 512, 1);
  const auto weights = loud(X.cols());
  Encoding<TestType> plain(quantizer, X.rows(), X.cols());
  plain.fit(X.view());
  auto fitted = plain;
  rounding::fit_weighted(X.view(), Metric::diagonal(weights), fitted);

  double before = 0, after = 0;
  for (Index i = 0; i < X.rows(); ++i) {
    const double was = row_error(plain, X.view(), weights, i),
                 is = row_error(fitted, X.view(), weights, i);
    CHECK(is <= was * (1 + 1e-6));
    before += was;
    after += is;
  }
  // Loud inputs are most of it, and the scale can suit one of them in a group; not quite where it
  // is a power of two.
  CHECK(after < (std::is_same_v<TestType, MxFp4> ? 0.95 : 0.5) * before);
}

TEST_CASE(
    "No scale and offset of a small group are much better than the ones fitted with weights") {
  const Index n = 16;
  const auto X = weights_for_grids(12, n, 2);
  auto weights = loud(n);
  for (Index j = 0; j < n; ++j) weights[std::size_t(j)] *= 1 + double(j % 5);
  const Affine<2> quantizer{.group = n};
  Encoding<Affine<2>> encoding(quantizer, X.rows(), n);
  encoding.fit(X.view());
  rounding::fit_weighted(X.view(), Metric::diagonal(weights), encoding);

  double found = 0, least = 0;
  for (Index i = 0; i < X.rows(); ++i) {
    found += row_error(encoding, X.view(), weights, i);
    const auto [low, high] = std::minmax_element(X.row(i).begin(), X.row(i).end());
    double best = 1e300;
    for (int a = 1; a <= 150; ++a)
      for (int b = 0; b <= 150; ++b) {
        const double scale = double(*high - *low) / 3 * a / 150.0,
                     offset = double(*low) + double(*high - *low) * b / 150.0;
        double error = 0;
        for (Index j = 0; j < n; ++j) {
          const double x = double(X(i, j));
          const double code = std::clamp(std::nearbyint((x - offset) / scale), 0.0, 3.0);
          const double e = x - offset - scale * code;
          error += weights[std::size_t(j)] * e * e;
        }
        best = std::min(best, error);
      }
    least += best;
  }
  CHECK(found < 1.1 * least);
}

TEST_CASE("Fitting with weights follows the metric, whatever its unit, its form and the threads") {
  const auto X = weights_for_grids(9, 200, 3);
  auto weights = loud(X.cols());
  const Affine<3> quantizer{.group = 64};
  const auto fit = [&](const Metric& metric, ExecutorRef executor = {}) {
    Encoding<Affine<3>> encoding(quantizer, X.rows(), X.cols());
    encoding.fit(X.view());
    rounding::fit_weighted(X.view(), metric, encoding, executor);
    return std::vector(encoding.all_params().begin(), encoding.all_params().end());
  };
  const auto same = [](const auto& a, const auto& b) {
    return std::ranges::equal(a, b, [](const auto& x, const auto& y) {
      return x.scale.bits == y.scale.bits && x.offset.bits == y.offset.bits;
    });
  };
  const auto expected = fit(Metric::diagonal(weights));
  Encoding<Affine<3>> plain(quantizer, X.rows(), X.cols());
  plain.fit(X.view());
  CHECK(same(fit(Metric::identity(X.cols())), plain.all_params()));
  CHECK_FALSE(same(expected, plain.all_params()));

  ThreadPool threads(3);
  CHECK(same(fit(Metric::diagonal(weights), threads), expected));
  Matrix<double> H(X.cols(), X.cols());
  for (Index j = 0; j < X.cols(); ++j) H(j, j) = weights[std::size_t(j)];
  CHECK(same(fit(Metric::unfactored(std::move(H))), expected));
  for (double& weight : weights) weight *= 0x1p-20;
  CHECK(same(fit(Metric::diagonal(weights)), expected));
}

TEST_CASE("A scale of the whole tensor is left as it is, and weights of zero fit") {
  const auto X = weights_for_grids(4, 64, 4);
  Encoding<Midrise<3>> encoding({.group = per_tensor}, X.rows(), X.cols());
  encoding.fit(X.view());
  const auto before = encoding.params(0, 0).scale.bits;
  rounding::fit_weighted(X.view(), Metric::diagonal(loud(64)), encoding);
  CHECK(encoding.params(0, 0).scale.bits == before);

  const Matrix<float> zero(2, 64);
  Encoding<Affine<3>> zeros({.group = 32}, 2, 64);
  zeros.fit(zero.view());
  rounding::fit_weighted(zero.view(), Metric::diagonal(loud(64)), zeros);
  zeros.encode(zero.view());
  CHECK(zeros.value(1, 63) == 0.0f);
}

TEST_CASE("Error feedback that fits its scales has less error where some inputs are loud") {
  const auto X = weights_for_grids(64, 256, 5);
  const auto weights = loud(X.cols());
  const auto A = test::gaussian<double>(300, X.cols(), 6);
  Matrix<double> H(X.cols(), X.cols());
  for (Index i = 0; i < X.cols(); ++i)
    for (Index j = 0; j < X.cols(); ++j) {
      for (Index k = 0; k < A.rows(); ++k) H(i, j) += A(k, i) * A(k, j);
      H(i, j) *= std::sqrt(weights[std::size_t(i)] * weights[std::size_t(j)]);
    }
  const Metric metric = Metric::dense(H);
  const auto error = [&](const ErrorFeedback& rounder) {
    const auto encoding = round(rounder, X.view(), Affine<3>{.group = 64}, metric);
    Matrix<float> decoded(X.rows(), X.cols());
    encoding.decode(decoded.view());
    double sum = 0;
    for (Index i = 0; i < X.rows(); ++i)
      for (Index a = 0; a < X.cols(); ++a)
        for (Index b = 0; b < X.cols(); ++b)
          sum += double(X(i, a) - decoded(i, a)) * H(a, b) * double(X(i, b) - decoded(i, b));
    return sum;
  };
  const double fitted = error({.sweeps = 3, .fit_scales = true});
  CHECK(fitted < 0.8 * error({.sweeps = 3}));
  // On the output side a row stands alone, and its scale suits plain error.
  const auto Y = weights_for_grids(256, 64, 7);
  const auto a = round(ErrorFeedback{.fit_scales = true}, Y.view(), Midrise<3>{}, metric,
                       Side::output),
             b = round(ErrorFeedback{}, Y.view(), Midrise<3>{}, metric, Side::output);
  CHECK(std::ranges::equal(a.codes(100), b.codes(100)));
}
