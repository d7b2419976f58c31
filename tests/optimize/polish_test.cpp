#include "cafeq/optimize/polish.hpp"

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/quant/midrise.hpp"
#include "cafeq/rounding/nearest.hpp"
#include "support/catch.hpp"
#include "support/golden.hpp"
#include "support/random.hpp"

using namespace cafeq;
using detail::als;
using detail::itq;

namespace {

detail::MatrixBlocks rotations(std::initializer_list<Index> sizes) {
  detail::MatrixBlocks blocks;
  for (const Index k : sizes)
    blocks.push_back(linalg::random_orthogonal(k, CounterRng(std::uint64_t(k) + blocks.size())));
  return blocks;
}

/// X = W·blockdiag(blocks).
void multiply_blocks(View<const float> W, const detail::MatrixBlocks& blocks, View<float> X) {
  detail::BlockFactor factor(detail::sizes_of(blocks));
  detail::set_factor(factor, blocks, {}, {});
  factor.multiply(W, X, {});
}

/// ‖W − Q(W M) N‖² / ‖W‖² with codes by `rounder` in the metric N Nᵀ.
template <class R>
double error_of(const Matrix<float>& W, const detail::MatrixBlocks& M,
                const detail::MatrixBlocks& N, const R& rounder) {
  Matrix<float> X(W.rows(), W.cols());
  multiply_blocks(W.view(), M, X.view());
  detail::MatrixBlocks H;
  for (const auto& n : N)
    H.push_back(linalg::product(n.view(), View<const double>(n.view()).transposed()));
  const auto encoding =
      round(rounder, std::as_const(X).view(), Midrise<3>{}, Metric::block_diagonal(H));
  Matrix<float> decoded(W.rows(), W.cols()), back(W.rows(), W.cols());
  encoding.decode(decoded.view());
  multiply_blocks(std::as_const(decoded).view(), N, back.view());
  return test::relative_error(W.view(), std::as_const(back).view());
}

detail::MatrixBlocks transposes(const detail::MatrixBlocks& blocks) {
  detail::MatrixBlocks result;
  for (const auto& b : blocks) result.push_back(to_matrix<double>(b.view().transposed()));
  return result;
}

}  // namespace

TEST_CASE("ITQ keeps M orthogonal and lowers the error with every few rounds") {
  const auto W = test::heavy_tailed(400, 40, 3, 2, 100.0);
  double before = std::numeric_limits<double>::infinity();
  for (const int rounds : {0, 2, 10, 30}) {
    auto M = rotations({16, 16, 8});
    itq(W.view(), M, Midrise<3>{}, rounds);
    for (const auto& m : M) {
      const auto G = kernel::gram<double>(m.view());
      for (Index i = 0; i < G.rows(); ++i)
        for (Index j = 0; j < G.cols(); ++j)
          CHECK(G(i, j) == Approx(i == j ? 1.0 : 0.0).margin(1e-10));
    }
    const double error = error_of(W, M, transposes(M), Nearest{});
    CHECK(error < before);
    before = error;
  }
}

TEST_CASE("ALS beats the best rotation, and more rounds are never worse") {
  const auto W = test::heavy_tailed(400, 40, 3, 2, 100.0);
  auto M = rotations({16, 16, 8});
  itq(W.view(), M, Midrise<3>{}, 10);
  const auto N0 = transposes(M);
  const ErrorFeedback rounder{.sweeps = 2};
  const double start = error_of(W, M, N0, rounder);
  double before = start;
  for (const int rounds : {1, 4, 12}) {
    const auto N = als(W.view(), N0, Midrise<3>{}, rounder, rounds);
    detail::MatrixBlocks inverse;
    for (const auto& n : N) inverse.push_back(*linalg::inverse(n.view()));
    const double error = error_of(W, inverse, N, rounder);
    CHECK(error < before * 1.01);
    before = std::min(before, error);
  }
  CHECK(before < 0.93 * start);
}

TEST_CASE("The least-squares step of ALS is the golden one") {
  const auto golden = test::golden("pair.json");
  const auto W = test::golden_matrix<float>(golden["als_W"]);
  const auto Q = test::golden_matrix<float>(golden["als_Q"]);
  const auto expected = test::golden_matrix(golden["als_N"]);
  const auto G = kernel::gram<float>(Q.view());
  const auto C = kernel::cross_gram<float>(Q.view(), W.view());
  const auto N = linalg::solve_spd(G.view(), C.view());
  REQUIRE(N);
  for (Index i = 0; i < 4; ++i)
    for (Index j = 0; j < 4; ++j) CHECK((*N)(i, j) == Approx(expected(i, j)).margin(1e-6));
}

TEST_CASE("Matrices of low rank and of zeros come through the polish") {
  Matrix<float> W(50, 16);
  for (const bool zero : {true, false}) {
    if (!zero)
      for (Index i = 0; i < 50; ++i)
        for (Index j = 0; j < 16; ++j) W(i, j) = float(i % 5) * float(j + 1);  // rank 1
    auto M = rotations({16});
    itq(W.view(), M, Midrise<3>{}, 5);
    const auto N = als(W.view(), transposes(M), Midrise<3>{}, ErrorFeedback{}, 5);
    const auto inverse = linalg::inverse(N[0].view());
    REQUIRE(inverse);
    for (Index i = 0; i < 256; ++i) REQUIRE(std::isfinite(inverse->data()[i]));
  }
}

TEST_CASE("Threads change nothing in the polish") {
  const auto W = test::heavy_tailed(200, 32, 4, 1, 100.0);
  auto M = rotations({16, 16});
  itq(W.view(), M, Midrise<2>{}, 4);
  const auto N = als(W.view(), transposes(M), Midrise<2>{}, ErrorFeedback{}, 3);
  for (const Index threads : {2, 3}) {
    ThreadPool pool(threads);
    auto M2 = rotations({16, 16});
    itq(W.view(), M2, Midrise<2>{}, 4, pool);
    const auto N2 = als(W.view(), transposes(M2), Midrise<2>{}, ErrorFeedback{}, 3, pool);
    for (std::size_t b = 0; b < 2; ++b)
      for (Index i = 0; i < 256; ++i) {
        REQUIRE(M[b].data()[i] == M2[b].data()[i]);
        REQUIRE(N[b].data()[i] == N2[b].data()[i]);
      }
  }
}

TEST_CASE("The polish refuses blocks and scales that do not fit") {
  const auto W = test::heavy_tailed(20, 32, 4);
  auto M = rotations({16});
  CHECK_THROWS_WITH(itq(W.view(), M, Midrise<2>{}, 1), Contains("cover 16 of the 32 columns"));
  CHECK_THROWS_WITH(als(W.view(), M, Midrise<2>{}, ErrorFeedback{}, 1),
                    Contains("cover 16 of the 32 columns"));
  auto both = rotations({16, 16});
  const std::vector<float> scale(31, 1.0f);
  CHECK_THROWS_WITH(itq(W.view(), both, Midrise<2>{}, 1, {}, scale),
                    Contains("column_scale has 31 factors for 32 columns"));
  both[1] = Matrix<double>(16, 15);
  CHECK_THROWS_WITH(als(W.view(), both, Midrise<2>{}, ErrorFeedback{}, 1),
                    Contains("a block is 16 x 15"));
}
