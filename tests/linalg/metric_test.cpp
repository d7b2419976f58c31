#include "cafeq/linalg/metric.hpp"

#include <limits>

#include "cafeq/linalg/dense.hpp"
#include "linalg/spd.hpp"
#include "support/catch.hpp"
#include "support/error_of.hpp"
#include "support/random.hpp"

using namespace cafeq;
using cafeq::test::error_of;
using test::spd;

TEST_CASE("the identity metric", "[loss][metric]") {
  const auto metric = Metric::identity(7);
  CHECK(metric.dim() == 7);
  CHECK(metric.is_identity());
  REQUIRE(metric.blocks().size() == 1);
  CHECK(metric.blocks()[0].weight(3) == 1.0);
  CHECK_FALSE(metric.blocks()[0].is_dense());
  CHECK(Metric().dim() == 0);
  CHECK(Metric().is_identity());
}

TEST_CASE("a diagonal metric keeps its weights", "[loss][metric]") {
  const auto metric = Metric::diagonal({1.0, 2.5, 0.25});
  CHECK(metric.dim() == 3);
  CHECK_FALSE(metric.is_identity());
  CHECK(metric.blocks()[0].weight(1) == 2.5);
  CHECK(metric.blocks()[0].weight(2) == 0.25);
}

TEST_CASE("a dense metric is copied from any view", "[loss][metric]") {
  const auto H = spd(5, 1);
  const auto metric = Metric::dense(H);
  CHECK(metric.dim() == 5);
  CHECK_FALSE(metric.is_identity());
  REQUIRE(metric.blocks()[0].is_dense());
  CHECK(metric.blocks()[0].dense(2, 4) == H(2, 4));
  CHECK(metric.blocks()[0].weight(3) == H(3, 3));
  const auto narrow = to_matrix<float>(H.view());
  CHECK(Metric::dense(narrow.view().transposed()).blocks()[0].dense(1, 2) == double(narrow(2, 1)));
}

TEST_CASE("block offsets follow one another", "[loss][metric]") {
  std::vector<Matrix<double>> blocks;
  for (const Index n : {4, 1, 7}) blocks.push_back(spd(n, std::uint64_t(n)));
  const auto metric = Metric::block_diagonal(std::move(blocks));
  CHECK(metric.dim() == 12);
  REQUIRE(metric.blocks().size() == 3);
  CHECK(metric.blocks()[1].offset == 4);
  CHECK(metric.blocks()[2].offset == 5);
  CHECK(metric.blocks()[2].size == 7);
}

TEST_CASE("what is no metric is refused", "[loss][metric]") {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double bad : {0.0, -1.0, infinity, std::numeric_limits<double>::quiet_NaN()}) {
    const auto error = error_of([&] { Metric::diagonal({1.0, bad}); });
    CHECK(error.code() == ErrorCode::not_positive_definite);
    CHECK_THAT(error.message(), Contains("metric") && Contains("weight 1"));
  }
  CHECK(error_of([] {
          const auto wide = test::gaussian<double>(3, 4, 1);
          Metric::dense(wide);
        }).code() == ErrorCode::invalid_shape);

  auto H = spd(4, 2);
  H(1, 3) += 1;
  const auto asymmetric = error_of([&] { Metric::dense(H); });
  CHECK(asymmetric.code() == ErrorCode::not_positive_definite);
  CHECK_THAT(asymmetric.message(), Contains("not symmetric"));

  H = spd(4, 2);
  H(2, 2) = -H(2, 2);
  CHECK(error_of([&] { Metric::dense(H); }).code() == ErrorCode::not_positive_definite);

  H = spd(4, 2);
  H(2, 1) = infinity;
  const auto non_finite = error_of([&] { Metric::dense(H); });
  CHECK(non_finite.code() == ErrorCode::non_finite);
  CHECK_THAT(non_finite.message(), Contains("row 2, column 1"));

  H = spd(4, 2);
  H(1, 2) = infinity;  // above the diagonal
  CHECK_THROWS_AS(Metric::dense(H), Error);
  H(1, 2) = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_AS(Metric::dense(H), Error);
}
