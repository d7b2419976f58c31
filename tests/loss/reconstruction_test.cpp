#include "cafeq/loss/reconstruction.hpp"

#include <limits>

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/linalg/dense.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

namespace {

/// tr(E H Eᵀ), E = W − Ŵ, in long double.
double quadratic(const Matrix<float>& W, const Matrix<float>& W_hat, const Matrix<double>& H) {
  long double sum = 0;
  for (Index i = 0; i < W.rows(); ++i)
    for (Index j = 0; j < W.cols(); ++j)
      for (Index l = 0; l < W.cols(); ++l)
        sum += static_cast<long double>(double(W(i, j)) - double(W_hat(i, j))) *
               static_cast<long double>(H(j, l)) *
               static_cast<long double>(double(W(i, l)) - double(W_hat(i, l)));
  return double(sum);
}

Matrix<double> spd(Index n, std::uint64_t seed) {
  const auto A = test::gaussian<double>(n + 3, n, seed);
  return linalg::product(A.view().transposed(), A.view());
}

Matrix<double> block_matrix(const Matrix<double>& A, const Matrix<double>& B) {
  Matrix<double> H(A.rows() + B.rows(), A.rows() + B.rows());
  copy(A.view(), H.view().block(0, 0, A.rows(), A.rows()));
  copy(B.view(), H.view().block(A.rows(), A.rows(), B.rows(), B.rows()));
  return H;
}

}  // namespace

TEST_CASE("errors of small known matrices", "[loss][reconstruction]") {
  Matrix<float> W(2, 2);
  Matrix<float> W_hat(2, 2);
  W(0, 0) = 3;
  W(1, 1) = 4;
  W_hat(0, 0) = 3;
  W_hat(1, 0) = 2;
  W_hat(1, 1) = 3;
  CHECK(squared_error(W, W_hat) == 5.0);
  CHECK(relative_error(W, W_hat) == 0.2);
  CHECK(relative_error(W, W) == 0.0);
}

TEST_CASE("error of a zero matrix", "[loss][reconstruction]") {
  const Matrix<float> zero(3, 5);
  auto other = zero;
  CHECK(relative_error(zero, other) == 0.0);
  other(2, 4) = 1e-30f;
  CHECK(relative_error(zero, other) == std::numeric_limits<double>::infinity());
  CHECK(relative_error(zero, other, Metric::identity(5), Side::input) ==
        std::numeric_limits<double>::infinity());
  const Matrix<float> empty(0, 5);
  CHECK(relative_error(empty, empty) == 0.0);
  CHECK(squared_error(empty, empty) == 0.0);
  other(1, 1) = std::numeric_limits<float>::quiet_NaN();
  CHECK(std::isnan(relative_error(zero, other)));
}

TEST_CASE("errors over any strides and element types", "[loss][reconstruction]") {
  for (const Index rows : {1, 7, 33})
    for (const Index cols : {1, 7, 8, 17, 129}) {
      const auto W = test::gaussian(rows, cols, 1);
      const auto W_hat = test::gaussian(rows, cols, 2);
      const double expected = test::relative_error<float, float>(W.view(), W_hat.view());
      CHECK(relative_error(W, W_hat) == Approx(expected).epsilon(1e-13));
      // Transposed, transposed against dense, every second column, doubles.
      const auto Wt = to_matrix<float>(W.view().transposed());
      CHECK(relative_error(Wt.view().transposed(), W_hat) == Approx(expected).epsilon(1e-13));
      CHECK(relative_error(W.view().transposed(), W_hat.view().transposed()) ==
            Approx(expected).epsilon(1e-13));
      Matrix<double> wide(rows, 2 * cols);
      copy(W_hat.view(), View<double>{wide.data(), rows, cols, 2 * cols, 2});
      CHECK(relative_error(W, View<const double>{wide.data(), rows, cols, 2 * cols, 2}) ==
            Approx(expected).epsilon(1e-13));
      const auto half = to_matrix<fp16>(W.view());
      const auto brain = to_matrix<bf16>(W.view());
      CHECK(relative_error(W, half) < 2e-7);
      CHECK(relative_error(W, brain) < 2e-5);
      CHECK(relative_error(half, half) == 0.0);
    }
}

TEST_CASE("differences are exact where fp32 would lose them", "[loss][reconstruction]") {
  Matrix<float> W(1, 2);
  Matrix<float> W_hat(1, 2);
  W(0, 0) = 1e20f;
  W(0, 1) = 1.0f;
  W_hat(0, 0) = 1e20f;
  W_hat(0, 1) = 1.0f + 0x1p-20f;
  CHECK(squared_error(W, W_hat) == 0x1p-40);
  W(0, 0) = W_hat(0, 0) = 0;
  W_hat(0, 1) = 0x1p-80f;
  CHECK(squared_error(W, W_hat) == (1.0 - 0x1p-80) * (1.0 - 0x1p-80));
}

TEST_CASE("errors in a metric", "[loss][reconstruction]") {
  const auto W = test::gaussian(13, 9, 3);
  const auto W_hat = test::gaussian(13, 9, 4);
  const Matrix<float> zero(13, 9);
  CHECK(squared_error(W, W_hat, Metric::identity(9), Side::input) ==
        Approx(squared_error(W, W_hat)).epsilon(1e-13));
  CHECK(squared_error(W, W_hat, Metric::identity(13), Side::output) ==
        Approx(squared_error(W, W_hat)).epsilon(1e-13));

  const auto H = spd(9, 5);
  const double expected = quadratic(W, W_hat, H);
  CHECK(squared_error(W, W_hat, Metric::dense(H), Side::input) == Approx(expected).epsilon(1e-12));
  CHECK(relative_error(W, W_hat, Metric::dense(H), Side::input) ==
        Approx(expected / quadratic(W, zero, H)).epsilon(1e-12));
  CHECK(squared_error(W.view().transposed(), W_hat.view().transposed(), Metric::dense(H),
                      Side::output) == Approx(expected).epsilon(1e-12));

  std::vector<double> weights;
  Matrix<double> D(9, 9);
  for (Index j = 0; j < 9; ++j) {
    weights.push_back(double(j) + 0.5);
    D(j, j) = weights.back();
  }
  CHECK(squared_error(W, W_hat, Metric::diagonal(weights), Side::input) ==
        Approx(quadratic(W, W_hat, D)).epsilon(1e-12));

  std::vector<Matrix<double>> blocks;
  blocks.push_back(spd(2, 6));
  blocks.push_back(spd(7, 7));
  const auto whole = block_matrix(blocks[0], blocks[1]);
  CHECK(squared_error(W, W_hat, Metric::block_diagonal(blocks), Side::input) ==
        Approx(quadratic(W, W_hat, whole)).epsilon(1e-12));
}

TEST_CASE("errors do not depend on the number of threads", "[loss][reconstruction]") {
  const auto W = test::gaussian(500, 129, 8);
  const auto W_hat = test::gaussian(500, 129, 9);
  const auto metric = Metric::dense(spd(129, 10));
  const double plain = relative_error(W, W_hat);
  const double weighted = relative_error(W, W_hat, metric, Side::input);
  for (const Index threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    CHECK(relative_error(W, W_hat, pool) == plain);
    CHECK(squared_error(W, W_hat, pool) == squared_error(W, W_hat));
    CHECK(relative_error(W, W_hat, metric, Side::input, pool) == weighted);
  }
}

TEST_CASE("shapes that do not fit are refused", "[loss][reconstruction]") {
  const Matrix<float> W(3, 4);
  const Matrix<float> other(4, 3);
  CHECK_THROWS_WITH(relative_error(W, other), Contains("W is 3 x 4") && Contains("W_hat is 4 x 3"));
  CHECK_THROWS_WITH(squared_error(W, W, Metric::identity(3), Side::input),
                    Contains("metric") && Contains("4 columns"));
  CHECK_THROWS_WITH(squared_error(W, W, Metric::identity(4), Side::output),
                    Contains("metric") && Contains("3 rows"));
  try {
    relative_error(W, other);
    FAIL();
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::invalid_shape);
  }
}
