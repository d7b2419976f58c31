#include "cafeq/rounding/rounder.hpp"

#include "cafeq/quant/midrise.hpp"
#include "cafeq/rounding/error_feedback.hpp"
#include "cafeq/rounding/nearest.hpp"
#include "support/catch.hpp"
#include "support/error_of.hpp"
#include "support/random.hpp"
#include "support/toy_quantizer.hpp"

using namespace cafeq;
using test::ToyMidrise;

namespace {

/// A rounder of the caller's own: every code the lowest.
struct Lowest {
  template <ScalarQuantizer Q>
  void round(View<const float>, const Metric&, Side, Encoding<Q>& encoding,
             ExecutorRef = {}) const {
    for (Index i = 0; i < encoding.rows(); ++i)
      for (auto& code : encoding.codes(i)) code = 0;
  }
};
struct Incomplete {
  void round(View<const float>) const {}
};

static_assert(RounderFor<Lowest, ToyMidrise>);
static_assert(RounderFor<Nearest, ToyMidrise> && RounderFor<ErrorFeedback, ToyMidrise>);
static_assert(!RounderFor<Incomplete, ToyMidrise>);
static_assert(!RounderFor<Lowest, int>);

// Only one that says so is spared the metric.
static_assert(uses_metric<Lowest> && uses_metric<ErrorFeedback> && !uses_metric<Nearest>);

}  // namespace

TEST_CASE("round() fits the parameters, then leaves the codes to the rounder") {
  const auto X = test::gaussian<float>(5, 9, 1);
  const ToyMidrise quantizer{.bits = 3, .group = 4};
  const auto encoding = round(Lowest{}, X.view(), quantizer, Metric::identity(9));
  CHECK(encoding.rows() == 5);
  CHECK(encoding.cols() == 9);
  for (Index i = 0; i < 5; ++i)
    for (Index j = 0; j < 9; ++j) {
      CHECK(encoding.code(i, j) == 0);
      const Index begin = j / 4 * 4;
      CHECK(
          encoding.params(i, j).scale ==
          quantizer
              .fit(X.row(i).subspan(std::size_t(begin), std::size_t(std::min<Index>(4, 9 - begin))))
              .scale);
    }
}

TEST_CASE("A metric of the wrong dimension is named with its side, whatever the rounder") {
  const auto X = test::gaussian<float>(5, 9, 1);
  const auto message_of = [&](Index n, Side side) {
    const Error error =
        test::error_of([&] { round(Lowest{}, X.view(), ToyMidrise{}, Metric::identity(n), side); });
    CHECK(error.code() == ErrorCode::invalid_shape);
    return error.message();
  };
  CHECK(message_of(5, Side::input) ==
        "metric: dimension 5 does not fit X of 5 x 9 on its input side");
  CHECK(message_of(9, Side::output) ==
        "metric: dimension 9 does not fit X of 5 x 9 on its output side");
  CHECK(round(Lowest{}, X.view(), ToyMidrise{}, Metric::identity(5), Side::output).rows() == 5);
  CHECK(test::error_of([&] {
          Encoding<ToyMidrise> e({}, 5, 9);
          ErrorFeedback{}.round(X.view(), Metric::identity(8), Side::input, e);
        }).code() == ErrorCode::invalid_shape);
}
