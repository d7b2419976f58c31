#include "cafeq/rounding/error_feedback.hpp"

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/kernel/gram.hpp"
#include "cafeq/linalg/dense.hpp"
#include "cafeq/quant/affine.hpp"
#include "cafeq/quant/codebook.hpp"
#include "cafeq/quant/midrise.hpp"
#include "cafeq/rounding/nearest.hpp"
#include "rounding/refit_lines.hpp"
#include "support/catch.hpp"
#include "support/golden.hpp"
#include "support/random.hpp"
#include "support/toy_quantizer.hpp"

using namespace cafeq;
using cafeq::test::ToyMidrise;

namespace {

/// tr((X − X̂) H (X − X̂)ᵀ) or its output-side twin, by the definition.
template <class Q>
double metric_error(View<const float> X, const Encoding<Q>& encoding, View<const double> H,
                    Side side) {
  Matrix<float> decoded(X.rows, X.cols);
  encoding.decode(decoded.view());
  Matrix<double> E(X.rows, X.cols);
  for (Index i = 0; i < X.rows; ++i)
    for (Index j = 0; j < X.cols; ++j) E(i, j) = double(X(i, j)) - double(decoded(i, j));
  const View<const double> lines = side == Side::input ? View<const double>(E.view())
                                                       : View<const double>(E.view()).transposed();
  double sum = 0;
  for (Index i = 0; i < lines.rows; ++i)
    for (Index a = 0; a < H.rows; ++a)
      for (Index b = 0; b < H.rows; ++b) sum += lines(i, a) * H(a, b) * lines(i, b);
  return sum;
}

Matrix<double> dense_metric(Index n, std::uint64_t seed) {
  const auto A = test::gaussian<float>(n + 8, n, seed);
  auto H = kernel::gram<float>(A.view());
  for (Index i = 0; i < n; ++i) H(i, i) += 0.1;
  return H;
}

void set_scales(Encoding<ToyMidrise>& encoding, const std::vector<double>& scales) {
  for (Index i = 0; i < encoding.rows(); ++i)
    encoding.params(i, 0).scale = float(scales[std::size_t(i)]);
}

}  // namespace

TEST_CASE("LDLQ and one sweep of coordinate descent give the golden codes") {
  const auto golden = test::golden("ldlq.json");
  const auto X = test::golden_matrix<float>(golden["X"]);
  const auto H = test::golden_matrix(golden["H"]);
  const auto metric = Metric::dense(H);
  Encoding<ToyMidrise> encoding({.bits = 3}, X.rows(), X.cols());
  set_scales(encoding, golden["scale"].get<std::vector<double>>());

  ErrorFeedback{.sweeps = 0}.round(X.view(), metric, Side::input, encoding);
  const auto codes = test::golden_matrix(golden["ldlq_codes"]);
  for (Index i = 0; i < X.rows(); ++i)
    for (Index j = 0; j < X.cols(); ++j) CHECK(int(encoding.code(i, j)) - 4 == int(codes(i, j)));

  // A sweep at fixed scales: the toy's refit is switched off by giving it the metric through the
  // line loops.
  Matrix<float> lines = to_matrix<float>(X.view().transposed());
  Matrix<float> E(X.cols(), X.rows());
  Workspace workspace;
  const auto encode = [&](Index j, std::span<const float> t, std::span<float> d) {
    encoding.encode_column(j, 0, t, d);
  };
  const auto L = to_matrix<float>(linalg::factor_ldl(H.view())->L.view());
  const auto Hf = to_matrix<float>(H.view());
  rounding::feed_back(std::as_const(lines).view(), L.view(), E.view(), workspace, encode);
  rounding::descend(std::as_const(lines).view(), Hf.view(), E.view(), workspace, encode);
  const auto swept = test::golden_matrix(golden["cd_codes"]);
  for (Index i = 0; i < X.rows(); ++i)
    for (Index j = 0; j < X.cols(); ++j) CHECK(int(encoding.code(i, j)) - 4 == int(swept(i, j)));

  const rounding::MetricFloats floats(metric);
  test::refit_lines(lines.view(), E.view(), floats, encoding, 0, workspace);
  const auto refit = golden["scale_refit"].get<std::vector<double>>();
  for (Index i = 0; i < X.rows(); ++i)
    CHECK(double(encoding.params(i, 0).scale) == Approx(refit[std::size_t(i)]).epsilon(1e-5));
}

TEST_CASE("Error feedback beats nearest in its metric, on both sides and for every group size") {
  for (const Index group : {per_row, per_tensor, Index(7), Index(16), Index(40)})
    for (const Side side : {Side::input, Side::output}) {
      const auto X = test::gaussian<float>(33, 40, 11);
      const Index n = side == Side::input ? X.cols() : X.rows();
      const auto H = dense_metric(n, 5);
      const auto metric = Metric::dense(H);
      const ToyMidrise quantizer{.bits = 3, .group = group};
      const auto near = round(Nearest{}, X.view(), quantizer, metric, side);
      const auto fed = round(ErrorFeedback{.sweeps = 0}, X.view(), quantizer, metric, side);
      const auto swept = round(ErrorFeedback{.sweeps = 3}, X.view(), quantizer, metric, side);
      const auto descent =
          round(ErrorFeedback{.sweeps = 1, .feedback = false}, X.view(), quantizer, metric, side);
      const double e0 = metric_error(X.view(), near, H.view(), side);
      const double e1 = metric_error(X.view(), fed, H.view(), side);
      const double e2 = metric_error(X.view(), swept, H.view(), side);
      INFO("group " << group << " side " << int(side));
      CHECK(e1 < 0.9 * e0);
      CHECK(e2 < 0.95 * e1);
      CHECK(metric_error(X.view(), descent, H.view(), side) < 0.9 * e0);
    }
}

TEST_CASE("Sweeps never increase the error") {
  const auto X = test::gaussian<float>(20, 70, 3);
  const auto H = dense_metric(70, 8);
  double before = std::numeric_limits<double>::infinity();
  for (int sweeps = 0; sweeps < 6; ++sweeps) {
    const auto encoding =
        round(ErrorFeedback{.sweeps = sweeps}, X.view(), ToyMidrise{.bits = 2}, Metric::dense(H));
    const double error = metric_error(X.view(), encoding, H.view(), Side::input);
    CHECK(error <= before * (1 + 1e-6));
    before = error;
  }
}

TEST_CASE("Adaptive rounding is never worse than nearest, whatever the grid and the mean") {
  for (const float mean : {0.0f, 1.0f, 3.0f}) {
    auto X = test::gaussian<float>(24, 64, 12);
    for (Index i = 0; i < X.size(); ++i) X.data()[i] = 1000 * (X.data()[i] + mean);
    const auto H = dense_metric(64, 3);
    const auto metric = Metric::dense(H);
    const auto compare = [&](const auto& quantizer) {
      const auto near = round(Nearest{}, X.view(), quantizer, metric);
      const auto fed =
          round(ErrorFeedback{.sweeps = 2, .feedback = false}, X.view(), quantizer, metric);
      CHECK(metric_error(X.view(), fed, H.view(), Side::input) <=
            metric_error(X.view(), near, H.view(), Side::input) * (1 + 1e-6));
    };
    INFO("mean " << mean);
    compare(Midrise<3>{});
    compare(Symmetric<4>{.group = 16});
    compare(Affine<3>{});
    compare(AffineIntegerZero<4>{});
    compare(AffineIntegerZero<3>{.group = 16});
    compare(nf4(32));
  }
}

TEST_CASE("Metrics of any magnitude give the same codes") {
  const auto X = test::gaussian<float>(9, 40, 2);
  const auto H = dense_metric(40, 3);
  const auto expected = round(ErrorFeedback{.sweeps = 2}, X.view(), ToyMidrise{}, Metric::dense(H));
  for (const double scale : {0x1p-160, 0x1p+130}) {
    auto scaled = H;
    for (Index i = 0; i < H.size(); ++i) scaled.data()[i] *= scale;
    const auto encoding =
        round(ErrorFeedback{.sweeps = 2}, X.view(), ToyMidrise{}, Metric::dense(scaled));
    for (Index i = 0; i < X.rows(); ++i)
      for (Index j = 0; j < X.cols(); ++j) REQUIRE(encoding.code(i, j) == expected.code(i, j));
  }
}

TEST_CASE("In the identity metric error feedback at fixed scales is rounding to nearest") {
  const auto X = test::gaussian<float>(17, 129, 4);
  const auto identity = identity_matrix<double>(129);
  const auto a = round(ErrorFeedback{.sweeps = 0}, X.view(), ToyMidrise{}, Metric::dense(identity));
  const auto b = round(Nearest{}, X.view(), ToyMidrise{}, Metric::identity(129));
  for (Index i = 0; i < X.rows(); ++i)
    for (Index j = 0; j < X.cols(); ++j) REQUIRE(a.code(i, j) == b.code(i, j));
}

TEST_CASE(
    "A block-diagonal metric rounds its blocks as separate metrics do, but for scales that they "
    "share") {
  const auto X = test::gaussian<float>(9, 24, 6);
  std::vector<Matrix<double>> blocks;
  blocks.push_back(dense_metric(16, 1));
  blocks.push_back(dense_metric(8, 2));
  const ToyMidrise quantizer{.bits = 3,
                             .group = 8};  // groups lie inside the blocks: nothing is shared
  const auto whole =
      round(ErrorFeedback{.sweeps = 2}, X.view(), quantizer, Metric::block_diagonal(blocks));
  const Matrix<float> left = to_matrix<float>(X.view().col_block(0, 16));
  const auto part =
      round(ErrorFeedback{.sweeps = 2}, left.view(), quantizer, Metric::dense(blocks[0]));
  for (Index i = 0; i < 9; ++i)
    for (Index j = 0; j < 16; ++j) REQUIRE(whole.code(i, j) == part.code(i, j));
}

TEST_CASE("Rows permuted, results permuted; threads change nothing") {
  const auto X = test::gaussian<float>(150, 33, 9);
  Matrix<float> reversed(150, 33);
  for (Index i = 0; i < 150; ++i) std::copy_n(X.row(149 - i).data(), 33, reversed.row(i).data());
  const auto metric = Metric::dense(dense_metric(33, 7));
  const auto a = round(ErrorFeedback{}, X.view(), ToyMidrise{}, metric);
  const auto b = round(ErrorFeedback{}, reversed.view(), ToyMidrise{}, metric);
  for (Index i = 0; i < 150; ++i)
    for (Index j = 0; j < 33; ++j) REQUIRE(a.code(i, j) == b.code(149 - i, j));
  for (const Index threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    const auto c = round(ErrorFeedback{}, X.view(), ToyMidrise{}, metric, Side::input, pool);
    for (Index i = 0; i < 150; ++i) {
      REQUIRE(c.params(i, 0).scale == a.params(i, 0).scale);
      for (Index j = 0; j < 33; ++j) REQUIRE(a.code(i, j) == c.code(i, j));
    }
  }
}

TEST_CASE("A weighted diagonal metric moves the scales towards the heavy columns") {
  Matrix<float> X(1, 64);
  for (Index j = 0; j < 64; ++j) X(0, j) = j < 8 ? 0.1f : 1.0f;
  std::vector<double> weights(64, 1e-3);
  for (std::size_t j = 0; j < 8; ++j) weights[j] = 1e3;
  const auto plain =
      round(ErrorFeedback{.sweeps = 8}, X.view(), ToyMidrise{.bits = 2}, Metric::identity(64));
  const auto heavy =
      round(ErrorFeedback{.sweeps = 8}, X.view(), ToyMidrise{.bits = 2}, Metric::diagonal(weights));
  CHECK(std::abs(heavy.value(0, 0) - 0.1f) < 0.2f * std::abs(plain.value(0, 0) - 0.1f));
}

TEST_CASE("Bad metrics are named") {
  const auto X = test::gaussian<float>(4, 6, 1);
  CHECK_THROWS_WITH(round(ErrorFeedback{}, X.view(), ToyMidrise{}, Metric::identity(5)),
                    Contains("metric: dimension 5"));
  auto H = identity_matrix<double>(6);
  H(2, 2) = -1;
  CHECK_THROWS_WITH(Metric::dense(H), Contains("not positive definite"));
  H(2, 2) = 1;
  H(0, 1) = 0.5;
  CHECK_THROWS_WITH(Metric::dense(H), Contains("not symmetric"));
  CHECK_THROWS_WITH(Metric::diagonal({1.0, 0.0}), Contains("weight 1"));
}

TEST_CASE("Degenerate shapes") {
  const Matrix<float> empty(0, 5);
  CHECK(round(ErrorFeedback{}, empty.view(), ToyMidrise{}, Metric::identity(5)).rows() == 0);
  Matrix<float> one(1, 1);
  one(0, 0) = 3;
  CHECK(round(ErrorFeedback{}, one.view(), ToyMidrise{}, Metric::identity(1)).value(0, 0) ==
        Approx(3));
  const Matrix<float> zero(3, 7);
  const auto encoding =
      round(ErrorFeedback{}, zero.view(), ToyMidrise{}, Metric::dense(dense_metric(7, 2)));
  for (Index j = 0; j < 7; ++j) CHECK(encoding.value(1, j) == 0);
}

TEST_CASE("No sweeps at all are rounding to nearest") {
  const auto X = test::gaussian<float>(17, 33, 1);
  for (const Side side : {Side::input, Side::output}) {
    const auto metric = Metric::dense(dense_metric(side == Side::input ? 33 : 17, 2));
    const auto a =
        round(ErrorFeedback{.sweeps = 0, .feedback = false}, X.view(), ToyMidrise{}, metric, side);
    const auto b = round(Nearest{}, X.view(), ToyMidrise{}, metric, side);
    for (Index i = 0; i < 17; ++i)
      for (Index j = 0; j < 33; ++j) REQUIRE(a.code(i, j) == b.code(i, j));
  }
}

TEST_CASE("Never worse than nearest, nor than fewer sweeps, for any shape") {
  for (const Index n : {1, 7, 17, 33}) {
    const auto X = test::gaussian<float>(n, 40 - n, std::uint64_t(n));
    for (const Side side : {Side::input, Side::output})
      for (const Index group : {per_row, per_tensor}) {
        const auto H = dense_metric(side == Side::input ? X.cols() : X.rows(), 4);
        const ToyMidrise quantizer{.bits = 2, .group = group};
        double before =
            metric_error(X.view(), round(Nearest{}, X.view(), quantizer, Metric::dense(H), side),
                         H.view(), side);
        for (const int sweeps : {1, 2, 4, 8}) {
          const double now = metric_error(X.view(),
                                          round(ErrorFeedback{.sweeps = sweeps, .feedback = false},
                                                X.view(), quantizer, Metric::dense(H), side),
                                          H.view(), side);
          INFO(n << " rows, side " << int(side) << ", group " << group << ", " << sweeps
                 << " sweeps");
          CHECK(now <= before * (1 + 1e-5));
          before = now;
        }
      }
  }
}

TEST_CASE("Where it ends no change of one code lowers the loss") {
  const auto X = test::gaussian<float>(6, 12, 7);
  for (const Side side : {Side::input, Side::output}) {
    const auto H = dense_metric(side == Side::input ? 12 : 6, 8);
    // A scale for the whole matrix is never refitted, so codes alone are chosen.
    auto encoding = round(ErrorFeedback{.sweeps = 30, .feedback = false}, X.view(),
                          ToyMidrise{.bits = 3, .group = per_tensor}, Metric::dense(H), side);
    const double best = metric_error(X.view(), encoding, H.view(), side);
    for (Index i = 0; i < 6; ++i)
      for (Index j = 0; j < 12; ++j) {
        const std::uint8_t chosen = encoding.code(i, j);
        for (std::uint8_t other = 0; other < 8; ++other) {
          encoding.code(i, j) = other;
          REQUIRE(metric_error(X.view(), encoding, H.view(), side) >= best * (1 - 1e-5));
        }
        encoding.code(i, j) = chosen;
      }
  }
}
