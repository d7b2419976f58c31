#include "cafeq/linalg/input_gram.hpp"

#include "cafeq/core/thread_pool.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/error_of.hpp"
#include "support/random.hpp"

using namespace cafeq;
using test::error_of;

namespace {

/// Sums of fp32 products are this exact, relative to the lengths of both columns.
constexpr double close = 2e-6;

void check_sums(const InputGram& gram, const Matrix<double>& expected) {
  for (Index i = 0; i < gram.dim(); ++i)
    for (Index j = 0; j < gram.dim(); ++j) {
      const double size = std::sqrt(expected(i, i) * expected(j, j));
      if (gram.kind() == GramKind::whole || i == j)
        REQUIRE(std::abs(gram.product(i, j) - expected(i, j)) <= close * size);
      else REQUIRE(gram.product(i, j) == 0);
    }
}

}  // namespace

TEST_CASE("An input Gram is the sum of x xᵀ, in portions of any strides and elements") {
  const Index rows = 700, dim = 37;  // more than is summed in fp32 at a time
  auto X = test::gaussian<float>(rows, dim, 1);
  for (Index i = 0; i < rows; ++i) X(i, 5) *= 1000;  // a massive activation
  const auto halves = to_matrix<bf16>(X.view());
  const auto rounded = to_matrix<float>(halves.view());
  const auto columns = to_matrix<float>(rounded.view().transposed());
  const Matrix<double> expected = kernel::gram<float>(View<const float>(rounded.view()));

  for (const GramKind kind : {GramKind::whole, GramKind::diagonal}) {
    InputGram whole(dim, kind), portions(dim, kind), strided(dim, kind), bytes(dim, kind);
    ThreadPool pool(3);
    whole.add(rounded.view(), pool);
    portions.add(rounded.view().row_block(0, 1));
    portions.add(rounded.view().row_block(1, 600));
    portions.add(rounded.view().row_block(601, rows - 601));
    strided.add(columns.view().transposed());
    bytes.add(halves.view(), pool);
    for (const InputGram* gram : {&whole, &portions, &strided, &bytes}) {
      CHECK(gram->count() == rows);
      CHECK(gram->dim() == dim);
      check_sums(*gram, expected);
    }
    // The same bits for any number of threads.
    InputGram alone(dim, kind);
    alone.add(rounded.view());
    for (Index i = 0; i < dim; ++i)
      for (Index j = 0; j < dim; ++j) REQUIRE(alone.product(i, j) == whole.product(i, j));
  }
}

TEST_CASE("Grams of parts of the inputs are merged, and a whole one has a diagonal") {
  const auto X = test::gaussian<float>(90, 19, 2);
  InputGram all(19, GramKind::whole), first = all, second = all;
  all.add(X.view());
  first.add(X.view().row_block(0, 40));
  second.add(X.view().row_block(40, 50));
  first.merge(second);
  CHECK(first.count() == 90);
  for (Index i = 0; i < 19; ++i)
    for (Index j = 0; j < 19; ++j)
      CHECK(first.product(i, j) == Approx(all.product(i, j)).margin(1e-4));

  const InputGram diagonal = all.diagonal();
  CHECK(diagonal.kind() == GramKind::diagonal);
  CHECK(diagonal.count() == 90);
  for (Index j = 0; j < 19; ++j) CHECK(diagonal.square(j) == all.square(j));
  CHECK(error_of([&] { first.merge(diagonal); }).code() == ErrorCode::invalid_shape);
  CHECK(error_of([&] { first.merge(InputGram(18, GramKind::whole)); }).code() ==
        ErrorCode::invalid_shape);
}

TEST_CASE("The metric of inputs does not depend on their size and has a ridge") {
  auto X = test::gaussian<float>(60, 8, 3);
  for (Index i = 0; i < 60; ++i) X(i, 3) = 0;  // nothing is known of it
  auto large = X;
  for (Index i = 0; i < large.size(); ++i) large.data()[i] *= 1024;
  for (const GramKind kind : {GramKind::whole, GramKind::diagonal}) {
    InputGram gram(8, kind), scaled(8, kind);
    gram.add(X.view());
    scaled.add(large.view());
    const Metric metric = gram.metric(0.1), same = scaled.metric(0.1);
    REQUIRE(metric.blocks().size() == 1);
    CHECK(metric.blocks()[0].is_dense() == (kind == GramKind::whole));
    double trace = 0;
    for (Index j = 0; j < 8; ++j) {
      trace += metric.blocks()[0].weight(j);
      CHECK(metric.blocks()[0].weight(j) == same.blocks()[0].weight(j));
    }
    CHECK(trace == Approx(8 * 1.1));
    CHECK(metric.blocks()[0].weight(3) == Approx(0.1));
    CHECK_FALSE(metric.is_identity());
    CHECK(error_of([&] { gram.metric(0); }).code() == ErrorCode::invalid_argument);
  }
  CHECK(InputGram(5, GramKind::whole).metric().is_identity());
  CHECK(InputGram(5, GramKind::diagonal).metric().is_identity());
}

TEST_CASE("What cannot be an input leaves the sums as they were") {
  InputGram gram(4, GramKind::whole);
  auto X = test::gaussian<float>(3, 4, 4);
  gram.add(X.view());
  const double before = gram.product(1, 2);
  X(2, 1) = std::numeric_limits<float>::quiet_NaN();
  CHECK(error_of([&] { gram.add(X.view()); }).code() == ErrorCode::non_finite);
  CHECK(error_of([&] { gram.add(X.view().col_block(0, 3)); }).code() == ErrorCode::invalid_shape);
  CHECK(gram.product(1, 2) == before);
  CHECK(gram.count() == 3);
  CHECK(error_of([] { InputGram(Matrix<double>(3, 2), 1); }).code() == ErrorCode::invalid_shape);
}
