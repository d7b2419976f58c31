#include "cafeq/model/gram_collector.hpp"

#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/error_of.hpp"
#include "support/random.hpp"

using namespace cafeq;
using test::error_of;

namespace {

/// Adds so many random inputs.
void add(GramCollector& grams, const std::string& name, Index count, Index dim,
         std::uint64_t seed) {
  const auto X = test::gaussian<float>(count, dim, seed);
  grams.add(name, X);
}

}  // namespace

TEST_CASE("Matrices that read the same input share its Gram") {
  GramCollector grams;
  grams.share("q", {"k", "v"});
  CHECK(grams.find("k") == nullptr);  // nothing has been read yet
  const auto X = test::gaussian<float>(10, 6, 1), Y = test::gaussian<float>(10, 3, 2);
  grams.add("k", X.view());
  grams.add("o", Y.view());
  REQUIRE(grams.find("q") != nullptr);
  CHECK(grams.find("q") == grams.find("v"));
  CHECK(grams.find("q")->count() == 10);
  CHECK(grams.find("o")->dim() == 3);
  CHECK(grams.find("gate") == nullptr);
  REQUIRE(grams.inputs().size() == 2);
  CHECK(grams.inputs()[0].name == "q");
  CHECK(grams.inputs()[0].readers == std::vector<std::string>{"k", "v"});
  CHECK(error_of([&] { grams.share("o", {"v"}); }).code() == ErrorCode::invalid_argument);
}

TEST_CASE("Errors of inputs name the matrix that reads them") {
  GramCollector grams(GramKind::diagonal);
  add(grams, "down", 4, 5, 1);
  const Error error = error_of([&] { add(grams, "down", 4, 6, 1); });
  CHECK(error.code() == ErrorCode::invalid_shape);
  CHECK_THAT(error.message(), Contains("down") && Contains("6"));
}

TEST_CASE("What several runs have collected is merged by name") {
  const auto X = test::gaussian<float>(8, 4, 1), Y = test::gaussian<float>(5, 4, 2);
  GramCollector one, other;
  one.share("q", {"k"});
  one.add("q", X.view());
  other.share("q", {"k"});
  other.add("q", Y.view());
  other.add("o", Y.view());
  one.merge(other);
  CHECK(one.find("k")->count() == 13);
  CHECK(one.find("o")->count() == 5);
  double sum = 0;
  for (const auto* part : {&X, &Y})
    for (Index i = 0; i < part->rows(); ++i) sum += double((*part)(i, 1)) * double((*part)(i, 2));
  CHECK(one.find("q")->product(1, 2) == Approx(sum));

  GramCollector different;
  add(different, "q", 5, 7, 2);
  CHECK_THAT(error_of([&] { one.merge(different); }).message(), Contains("q"));
}
