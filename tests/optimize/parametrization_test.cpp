#include "cafeq/optimize/parametrization.hpp"

#include <limits>

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/linalg/dense.hpp"
#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/golden.hpp"
#include "support/random.hpp"

using namespace cafeq;
using detail::CayleyParametrization;
using detail::GeneralParametrization;

namespace {

double max_difference(const Matrix<double>& a, const Matrix<double>& b) {
  double worst = 0;
  for (Index i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a.data()[i] - b.data()[i]));
  return worst;
}

std::vector<Matrix<double>> starts(std::initializer_list<Index> sizes) {
  std::vector<Matrix<double>> M;
  for (const Index k : sizes)
    M.push_back(linalg::random_orthogonal(k, CounterRng(9, std::uint64_t(k))));
  return M;
}

std::vector<double> random_unknowns(Index n, double scale) {
  const auto P = test::gaussian<double>(1, n, 17, scale);
  return {P.data(), P.data() + n};
}

}  // namespace

TEST_CASE("Cayley's transform reproduces the golden rotation", "[optimize][parametrization]") {
  const auto golden = test::golden("losses.json");
  const auto P = test::golden_matrix(golden["P"]);
  std::vector<Matrix<double>> start;
  start.push_back(identity_matrix<double>(8));
  CayleyParametrization cayley(start);
  auto M = start;
  std::vector<double> skew;  // the upper triangle of the skew part of P
  for (Index i = 0; i < 8; ++i)
    for (Index j = i + 1; j < 8; ++j) skew.push_back((P(i, j) - P(j, i)) / 2);
  cayley.matrices(skew, M);
  CHECK(max_difference(M[0], test::golden_matrix(golden["cayley_Q"])) < 1e-11);
}

TEST_CASE("the origin is the start, and every point is orthogonal where the start is",
          "[optimize][parametrization]") {
  const auto start = starts({1, 2, 7, 33});
  CayleyParametrization cayley(start);
  CHECK(cayley.size() == 0 + 1 + 21 + 33 * 16);
  auto M = start;
  cayley.matrices(cayley.origin(), M);
  for (std::size_t m = 0; m < M.size(); ++m) CHECK(max_difference(M[m], start[m]) < 1e-14);
  for (const double scale : {0.1, 1.0, 1e4}) {
    cayley.matrices(random_unknowns(cayley.size(), scale), M);
    for (std::size_t m = 0; m < M.size(); ++m)
      CHECK(max_difference(linalg::product(M[m].view().transposed(), M[m].view()),
                           identity_matrix<double>(M[m].rows())) < 1e-10);
    CHECK(max_difference(M[2], start[2]) > 0.01);
  }
}

TEST_CASE("Cayley's gradient agrees with differences, from any start",
          "[optimize][parametrization]") {
  std::vector<Matrix<double>> start = starts({3});
  start.push_back(test::gaussian<double>(5, 5, 2));
  CayleyParametrization cayley(start);
  const std::vector<Matrix<double>> G{test::gaussian<double>(3, 3, 3),
                                      test::gaussian<double>(5, 5, 4)};  // f = Σ <G_m, M_m>
  auto M = start;
  const auto f = [&](const std::vector<double>& P) {
    cayley.matrices(P, M);
    double sum = 0;
    for (std::size_t m = 0; m < M.size(); ++m)
      for (Index i = 0; i < M[m].size(); ++i) sum += M[m].data()[i] * G[m].data()[i];
    return sum;
  };
  auto P = random_unknowns(cayley.size(), 0.4);
  f(P);
  std::vector<double> gradient(P.size());
  cayley.gradient(G, gradient);
  for (std::size_t i = 0; i < P.size(); ++i) {
    auto plus = P;
    auto minus = P;
    plus[i] += 1e-6;
    minus[i] -= 1e-6;
    CHECK(gradient[i] == Approx((f(plus) - f(minus)) / 2e-6).epsilon(1e-6).margin(1e-7));
  }
}

TEST_CASE("unknowns that are not finite give matrices that are not",
          "[optimize][parametrization]") {
  const auto start = starts({4});
  CayleyParametrization cayley(start);
  auto M = start;
  auto P = cayley.origin();
  P[3] = std::numeric_limits<double>::infinity();
  cayley.matrices(P, M);
  CHECK_FALSE(std::isfinite(M[0](0, 0)));
}

TEST_CASE("Cayley's transform does not depend on the number of threads",
          "[optimize][parametrization]") {
  const auto start = starts({17, 8, 33, 5});
  CayleyParametrization expected(start);
  const auto P = random_unknowns(expected.size(), 0.3);
  auto M = start;
  expected.matrices(P, M);
  std::vector<double> gradient(P.size());
  expected.gradient(start, gradient);
  for (const Index threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    CayleyParametrization cayley(start, pool);
    auto N = start;
    cayley.matrices(P, N);
    for (std::size_t m = 0; m < M.size(); ++m) CHECK(max_difference(M[m], N[m]) == 0.0);
    std::vector<double> again(P.size());
    cayley.gradient(start, again);
    CHECK(again == gradient);
  }
}

TEST_CASE("Cayley's transform allocates nothing once it has run", "[optimize][parametrization]") {
  const auto start = starts({17, 33, 5});
  CayleyParametrization cayley(start);
  const auto P = random_unknowns(cayley.size(), 0.3);
  auto M = start;
  std::vector<double> gradient(P.size());
  cayley.matrices(P, M);
  CHECK(test::allocations_of([&] {
          cayley.matrices(P, M);
          cayley.gradient(start, gradient);
        }) == 0);
}

TEST_CASE("a general matrix is its own unknowns", "[optimize][parametrization]") {
  const auto start = starts({2, 5});
  const GeneralParametrization general(start);
  CHECK(general.size() == 29);
  auto M = start;
  for (auto& m : M) std::fill_n(m.data(), m.size(), 0.0);
  general.matrices(general.origin(), M);
  for (std::size_t m = 0; m < 2; ++m) CHECK(max_difference(M[m], start[m]) == 0.0);
  const auto x = random_unknowns(29, 1.0);
  general.matrices(x, M);
  std::vector<double> back(29);
  general.gradient(M, back);
  CHECK(back == x);
}
