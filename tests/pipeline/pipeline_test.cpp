#include "cafeq/pipeline/pipeline.hpp"

#include <Eigen/Core>
#include <limits>

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/quant/affine.hpp"
#include "cafeq/quant/microfloat.hpp"
#include "cafeq/quant/midrise.hpp"
#include "cafeq/rounding/error_feedback.hpp"
#include "cafeq/transform/block_diagonal.hpp"
#include "cafeq/transform/compose.hpp"
#include "cafeq/transform/dual_scaling.hpp"
#include "cafeq/transform/hadamard.hpp"
#include "pipeline/dequantized.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/toy_quantizer.hpp"

using namespace cafeq;
using test::dequantized;

namespace {

template <class Q>
void require_equal(const Q& a, const Q& b) {
  const auto x = dequantized(a);
  const auto y = dequantized(b);
  REQUIRE(a.storage_bits() == b.storage_bits());
  for (Index i = 0; i < x.size(); ++i) REQUIRE(x.data()[i] == y.data()[i]);
}

/// A general, well conditioned block-diagonal transform.
BlockDiagonal skewed(Index dim, Index block) {
  std::vector<Matrix<double>> N;
  for (Index offset = 0; offset < dim; offset += block) {
    auto n = linalg::random_orthogonal(block, CounterRng(std::uint64_t(offset) + 3));
    for (Index i = 0; i < block; ++i)
      for (Index j = 0; j < block; ++j)
        n(i, j) *= (0.5 + double(i) / double(block)) * (0.4 + double(j) / double(block));
    N.push_back(std::move(n));
  }
  return BlockDiagonal::from_inverse(std::move(N));
}

}  // namespace

TEST_CASE("What error() says is the error of what dequantize() writes") {
  const auto W = test::heavy_tailed(33, 129, 5, 2);
  const auto check = [&](const auto& q) {
    const auto What = dequantized(q);
    CHECK(q.error(W) == Approx(test::relative_error(W.view(), What.view())).epsilon(1e-6));
  };
  check(Pipeline{Identity{}, Affine<3>{.group = 64}, Nearest{}}.quantize(W));
  check(Pipeline{BlockHadamard{32}, Midrise<2>{}, Nearest{}}.quantize(W));
  check(Pipeline{DualScaling{} * RandomizedHadamard{}, Affine<4>{.group = per_tensor},
                 ErrorFeedback{}}
            .quantize(W));
  check(Pipeline{RandomizedHadamard{}, test::ToyMidrise{.bits = 5, .group = 7}, Nearest{},
                 Side::output}
            .quantize(W));
}

TEST_CASE("Bits are counted one by one") {
  const auto W = test::gaussian<float>(10, 100, 1);
  const auto q = Pipeline{Identity{}, Midrise<3>{.group = 64}, Nearest{}}.quantize(W);
  CHECK(q.storage_bits() ==
        10 * 38 * 8 + 10 * 2 * 16 +
            16);  // codes in rows of whole bytes, two groups a row, the exponent
  const auto a = Pipeline{RandomizedHadamard{}, Affine<4>{}, Nearest{}}.quantize(W);
  CHECK(a.storage_bits() == 10 * 100 * 4 + 10 * 32 + 16 + 64);  // the seed of the signs
  CHECK(a.bits_per_weight() == Approx(double(a.storage_bits()) / 1000));
  CHECK(Index(q.codes().packed().bytes().size()) == 10 * 38);
}

TEST_CASE("Any view and element type: the same numbers give the same result") {
  const auto W = test::gaussian<float>(17, 40, 3);
  const auto pipeline = Pipeline{BlockHadamard{8}, Midrise<3>{.group = 16}, Nearest{}};
  const auto expected = pipeline.quantize(W);
  const auto transposed = to_matrix<float>(W.view().transposed());
  require_equal(pipeline.quantize(transposed.view().transposed()), expected);
  const auto wide_weights = to_matrix<double>(W.view());
  require_equal(pipeline.quantize(wide_weights), expected);
  Eigen::MatrixXf column_major(17, 40);
  for (Index i = 0; i < 17; ++i)
    for (Index j = 0; j < 40; ++j) column_major(i, j) = W(i, j);
  require_equal(pipeline.quantize(column_major), expected);
  const auto half = to_matrix<bf16>(W.view());
  const auto unpacked_half = to_matrix<float>(half.view());
  require_equal(pipeline.quantize(half), pipeline.quantize(unpacked_half));

  Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic> wide(17, 40);
  dequantize(expected, wide);
  const auto narrow = dequantized(expected);
  for (Index i = 0; i < 17; ++i)
    for (Index j = 0; j < 40; ++j) REQUIRE(float(wide(i, j)) == narrow(i, j));
}

TEST_CASE("Threads change nothing") {
  const auto W = test::heavy_tailed(150, 96, 8, 3);
  const auto fast =
      Pipeline{DualScaling{} * RandomizedHadamard{}, Affine<3>{.group = 32}, Nearest{}};
  const auto fed = Pipeline{skewed(96, 32), Midrise<3>{}, ErrorFeedback{.sweeps = 2}};
  const auto expected_fast = fast.quantize(W);
  const auto expected_fed = fed.quantize(W);
  for (const Index threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    require_equal(fast.quantize(W, pool), expected_fast);
    require_equal(fed.quantize(W, pool), expected_fed);
    CHECK(expected_fed.error(W, pool) == expected_fed.error(W));
  }
}

TEST_CASE("Error feedback rounds in the metric that the transform induces") {
  const auto W = test::gaussian<float>(64, 64, 4);
  for (const Side side : {Side::input, Side::output}) {
    const auto nearest = Pipeline{skewed(64, 32), Midrise<3>{}, Nearest{}, side}.quantize(W);
    const auto fed =
        Pipeline{skewed(64, 32), Midrise<3>{}, ErrorFeedback{.sweeps = 2}, side}.quantize(W);
    INFO("side " << int(side));
    CHECK(fed.error(W) < 0.97 * nearest.error(W));
  }
}

/// The same rounder without the promise to work row by row: pipelines then keep all of X at once.
struct AllRowsAtOnce {
  ErrorFeedback rounder;
  template <ScalarQuantizer Q>
  void round(View<const float> X, const Metric& metric, Side side, Encoding<Q>& encoding,
             ExecutorRef executor = {}) const {
    rounder.round(X, metric, side, encoding, executor);
  }
};
static_assert(rounds_row_by_row<ErrorFeedback> && !rounds_row_by_row<AllRowsAtOnce>);

TEST_CASE("Strips of rows change nothing, whatever their number and the threads'") {
  for (const Index rows : {1, 127, 128, 129, 515}) {
    const auto W = test::heavy_tailed(rows, 48, 4, 1);
    const auto transform = skewed(48, 16);
    const ErrorFeedback rounder{.sweeps = 2};
    const auto whole =
        Pipeline{transform, Midrise<3>{.group = 20}, AllRowsAtOnce{rounder}}.quantize(W);
    for (const Index threads : {1, 2, 3}) {
      ThreadPool pool(threads);
      require_equal(Pipeline{transform, Midrise<3>{.group = 20}, rounder}.quantize(W, pool), whole);
    }
    // One scale, or other state, for the whole tensor couples the rows.
    CHECK(detail::couples_rows(Midrise<3>{.group = per_tensor}));
    require_equal(
        Pipeline{transform, Midrise<3>{.group = per_tensor}, rounder}.quantize(W),
        Pipeline{transform, Midrise<3>{.group = per_tensor}, AllRowsAtOnce{rounder}}.quantize(W));
    const auto plain = Pipeline{BlockHadamard{16}, Affine<4>{.group = 32}, Nearest{}}.quantize(W);
    require_equal(
        plain,
        Pipeline{BlockHadamard{16}, Affine<4>{.group = 32}, AllRowsAtOnce{{.sweeps = 0}}}.quantize(
            W));
  }
  CHECK(detail::couples_rows(NvFp4{}));
}

/// A spec written for floats alone, which remembers nothing but what it was given.
struct DenseOnly {
  BlockHadamard inner{16};
  Hadamard fit(View<const float> W, ExecutorRef executor = {}) const {
    CHECK(W.contiguous());
    CHECK(floor_log2(largest_magnitude(W)) == 0);
    return inner.fit(W, executor);
  }
};
static_assert(TransformSpec<DenseOnly> && !FitsAnyView<DenseOnly>);
static_assert(FitsAnyView<BlockHadamard> && FitsAnyView<DualScaling> && FitsAnyView<Identity> &&
              FitsAnyView<decltype(DualScaling{} * DenseOnly{})>);

TEST_CASE(
    "A transform that is written for floats gets a dense copy of moderate magnitude, whatever the "
    "weights are") {
  const auto W = test::heavy_tailed(48, 40, 6, 1, 300.0);
  const auto fed = [](const auto& weights) {
    (void)Pipeline{DenseOnly{}, Midrise<3>{}, Nearest{}}.quantize(weights);
    (void)Pipeline{DenseOnly{}, Midrise<3>{.group = per_tensor}, Nearest{}}.quantize(weights);
    return Pipeline{DenseOnly{} * RandomSigns{3}, Midrise<3>{}, ErrorFeedback{}}.quantize(weights);
  };
  require_equal(fed(to_matrix<double>(W.view())), fed(W));
  CHECK(fed(W.view().transposed()).rows() == 40);
  CHECK(fed(to_matrix<bf16>(W.view())).cols() == 40);
}

TEST_CASE("The output side of W is the input side of its transpose") {
  const auto W = test::heavy_tailed(96, 64, 3, 2);
  const auto transposed = to_matrix<float>(W.view().transposed());
  const auto compare = [&](const auto& transform, const auto& rounder) {
    const auto input = Pipeline{transform, Midrise<3>{.group = per_tensor}, rounder}.quantize(W);
    const auto output =
        Pipeline{transform, Midrise<3>{.group = per_tensor}, rounder, Side::output}.quantize(
            transposed);
    CHECK(output.error(transposed) == Approx(input.error(W)).epsilon(1e-3));
  };
  compare(DualScaling{} * RandomizedHadamard{}, Nearest{});
  compare(DualScaling{} * RandomizedHadamard{}, ErrorFeedback{.sweeps = 2});
  compare(skewed(64, 32), Nearest{});
  compare(skewed(64, 32), ErrorFeedback{.sweeps = 2});
}

TEST_CASE("The scale of a metric does not matter") {
  const auto W = test::gaussian<float>(32, 64, 3);
  const auto error = [&](double d) {
    return Pipeline{Diagonal(std::vector<double>(64, d)), Midrise<3>{}, ErrorFeedback{}}
        .quantize(W)
        .error(W);
  };
  const double expected = error(1.5);
  CHECK(error(1.5e-20) == Approx(expected).epsilon(1e-3));
  CHECK(error(1.5e+20) == Approx(expected).epsilon(1e-3));
}

TEST_CASE("A Hadamard tames outlier channels") {
  const auto W = test::heavy_tailed(128, 256, 2, 4);
  const auto plain = Pipeline{Identity{}, Affine<3>{}, Nearest{}}.quantize(W);
  const auto rotated = Pipeline{RandomizedHadamard{}, Affine<3>{}, Nearest{}}.quantize(W);
  const auto scaled =
      Pipeline{DualScaling{} * RandomizedHadamard{}, Affine<3>{}, Nearest{}}.quantize(W);
  CHECK(rotated.error(W) < 0.5 * plain.error(W));
  CHECK(scaled.error(W) < rotated.error(W));
}

TEST_CASE("Degenerate matrices come back exactly, or to the rounding of one half") {
  const auto pipeline = Pipeline{Identity{}, Affine<3>{}, Nearest{}};
  Matrix<float> W(5, 9);
  CHECK(pipeline.quantize(W).error(W) == 0);
  for (Index i = 0; i < W.size(); ++i) W.data()[i] = 0.3f;
  CHECK(pipeline.quantize(W).error(W) < 1e-6);
  CHECK(Pipeline{Identity{}, Midrise<3>{}, Nearest{}}.quantize(W).error(W) < 1e-6);
  Matrix<float> one(1, 1);
  one(0, 0) = -7;
  CHECK(pipeline.quantize(one).error(one) < 1e-6);
  CHECK(Pipeline{RandomizedHadamard{}, Midrise<2>{}, Nearest{}}.quantize(one).error(one) < 1e-6);
}

TEST_CASE("Magnitudes near both ends of float behave as those near 1") {
  const auto W = test::gaussian<float>(16, 64, 6);
  const auto pipeline = Pipeline{RandomizedHadamard{}, Affine<4>{.group = 16}, ErrorFeedback{}};
  const double expected = pipeline.quantize(W).error(W);
  for (const float scale : {0x1p-120f, 0x1p+124f}) {
    Matrix<float> extreme(16, 64);
    for (Index i = 0; i < W.size(); ++i) extreme.data()[i] = W.data()[i] * scale;
    const auto q = pipeline.quantize(extreme);
    CHECK(q.error(extreme) == Approx(expected).epsilon(1e-3));
    const auto back = dequantized(q);
    for (Index i = 0; i < back.size(); ++i) REQUIRE(std::isfinite(back.data()[i]));
  }
  Matrix<double> huge(4, 4);
  for (Index i = 0; i < 16; ++i)
    huge.data()[i] = (i % 2 == 0 ? 1e300 : -3e299) * double(i + 1) / 16;
  CHECK(pipeline.quantize(huge).error(huge) < 0.05);
}

TEST_CASE("Bad input is named") {
  const auto pipeline = Pipeline{Identity{}, Affine<3>{}, Nearest{}};
  auto W = test::gaussian<float>(4, 6, 1);
  W(2, 5) = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH(pipeline.quantize(W), Contains("W: row 2, column 5 is nan"));
  W(2, 5) = -std::numeric_limits<float>::infinity();
  CHECK_THROWS_WITH(pipeline.quantize(W), Contains("row 2, column 5 is -inf"));
  W(2, 5) = 0;
  const Matrix<float> empty(0, 6);
  CHECK_THROWS_WITH(pipeline.quantize(empty), Contains("W is 0 x 6"));
  CHECK_THROWS_WITH(pipeline.quantize(as_view(W.data(), 4, 6, 2)), Contains("elements overlap"));
  CHECK_THROWS_WITH((Pipeline{Identity{}, Affine<3>{.group = -5}, Nearest{}}.quantize(W)),
                    Contains("group is -5"));
  CHECK_THROWS_WITH((Pipeline{BlockHadamard{0}, Affine<3>{}, Nearest{}}.quantize(W)),
                    Contains("block is 0"));
  CHECK_THROWS_WITH((Pipeline{skewed(8, 8), Affine<3>{}, Nearest{}}.quantize(W)),
                    Contains("dimension 8 does not fit 6 columns"));
  const auto q = pipeline.quantize(W);
  Matrix<float> wrong(6, 4);
  CHECK_THROWS_WITH(dequantize(q, wrong), Contains("out is 6 x 4"));
  CHECK_THROWS_WITH(q.error(wrong), Contains("W is 6 x 4"));
  W(1, 1) = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH(q.error(W), Contains("W: row 1, column 1 is nan"));
  try {
    pipeline.quantize(empty);
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::invalid_shape);
  }
}
