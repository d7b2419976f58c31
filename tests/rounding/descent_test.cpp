#include "cafeq/rounding/error_feedback.hpp"

#include "cafeq/kernel/gram.hpp"
#include "cafeq/rounding/nearest.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/toy_quantizer.hpp"

using namespace cafeq;
using test::ToyMidrise;

namespace {

Matrix<double> metric_matrix(Index n, std::uint64_t seed) {
  const auto A = test::gaussian<float>(n + 4, n, seed);
  return kernel::gram<float>(A.view());
}

/// Of X − X̂ in the metric, by the definition; lines are the columns (input side) or rows.
double loss(View<const float> X, const Encoding<ToyMidrise>& encoding, View<const double> H,
            Side side) {
  Matrix<double> E(X.rows, X.cols);
  for (Index i = 0; i < X.rows; ++i)
    for (Index j = 0; j < X.cols; ++j) E(i, j) = double(X(i, j)) - double(encoding.value(i, j));
  const View<const double> lines = side == Side::input ? View<const double>(E.view()).transposed()
                                                       : View<const double>(E.view());
  double sum = 0;
  for (Index a = 0; a < H.rows; ++a)
    for (Index b = 0; b < H.rows; ++b)
      for (Index l = 0; l < lines.cols; ++l) sum += lines(a, l) * H(a, b) * lines(b, l);
  return sum;
}

}  // namespace

TEST_CASE("No sweeps at all are rounding to nearest") {
  const auto X = test::gaussian<float>(17, 33, 1);
  for (const Side side : {Side::input, Side::output}) {
    const auto metric = Metric::dense(metric_matrix(side == Side::input ? 33 : 17, 2));
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
        const auto H = metric_matrix(side == Side::input ? X.cols() : X.rows(), 4);
        const ToyMidrise quantizer{.bits = 2, .group = group};
        double before =
            loss(X.view(), round(Nearest{}, X.view(), quantizer, Metric::dense(H), side), H.view(),
                 side);
        for (const int sweeps : {1, 2, 4, 8}) {
          const double now = loss(X.view(),
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
    const auto H = metric_matrix(side == Side::input ? 12 : 6, 8);
    // A scale for the whole matrix is never refitted, so codes alone are chosen.
    auto encoding = round(ErrorFeedback{.sweeps = 30, .feedback = false}, X.view(),
                          ToyMidrise{.bits = 3, .group = per_tensor}, Metric::dense(H), side);
    const double best = loss(X.view(), encoding, H.view(), side);
    for (Index i = 0; i < 6; ++i)
      for (Index j = 0; j < 12; ++j) {
        const std::uint8_t chosen = encoding.code(i, j);
        for (std::uint8_t other = 0; other < 8; ++other) {
          encoding.code(i, j) = other;
          REQUIRE(loss(X.view(), encoding, H.view(), side) >= best * (1 - 1e-5));
        }
        encoding.code(i, j) = chosen;
      }
  }
}
