#include "cafeq/optimize/range_problem.hpp"

#include <limits>

#include "cafeq/core/thread_pool.hpp"
#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/golden.hpp"
#include "support/random.hpp"

using namespace cafeq;
using detail::RangeProblem;
using detail::RangeTerm;

namespace {

std::vector<Matrix<double>> random_matrices(const std::vector<Index>& sizes,
                                            std::uint64_t seed = 1) {
  std::vector<Matrix<double>> M;
  for (std::size_t m = 0; m < sizes.size(); ++m)
    M.push_back(test::gaussian<double>(sizes[m], sizes[m], seed + m, 0.4));
  return M;
}

/// W at unit RMS.
template <class T>
Matrix<double> unit(const Matrix<T>& W) {
  double sum = 0;
  for (Index i = 0; i < W.size(); ++i) sum += double(W.data()[i]) * double(W.data()[i]);
  auto result = to_matrix<double>(W.view());
  for (Index i = 0; i < W.size(); ++i) result.data()[i] *= std::sqrt(double(W.size()) / sum);
  return result;
}

/// X = W blockdiag(M) and ∇_M by the public surrogate on the whole of X.
template <class S>
double reference(const S& s, const Matrix<double>& W, ScaleSets sets,
                 const std::vector<Index>& order, const std::vector<Matrix<double>>& M,
                 std::vector<Matrix<double>>& gradient) {
  Matrix<double> X(W.rows(), W.cols());
  Index column = 0;
  for (const Index m : order) {
    const auto& block = M[std::size_t(m)];
    kernel::multiply_reference<double>(W.view().col_block(column, block.rows()), block.view(),
                                       X.view().col_block(column, block.rows()));
    column += block.rows();
  }
  Matrix<double> G(W.rows(), W.cols());
  const double f = detail::log_mean_range(s, X, sets, G.view());
  column = 0;
  for (const Index m : order) {
    auto& block = gradient[std::size_t(m)];
    kernel::multiply_reference<double>(W.view().col_block(column, block.rows()).transposed(),
                                       G.view().col_block(column, block.rows()), block.view(),
                                       kernel::Store::add);
    column += block.rows();
  }
  return f;
}

std::vector<Matrix<double>> zeros_like(const std::vector<Matrix<double>>& M) {
  std::vector<Matrix<double>> Z;
  for (const auto& m : M) Z.emplace_back(m.rows(), m.cols());
  return Z;
}

double relative_difference(const std::vector<Matrix<double>>& a,
                           const std::vector<Matrix<double>>& b) {
  double difference = 0;
  double size = 0;
  for (std::size_t m = 0; m < a.size(); ++m)
    for (Index i = 0; i < a[m].size(); ++i) {
      difference = std::max(difference, std::abs(a[m].data()[i] - b[m].data()[i]));
      size = std::max(size, std::abs(b[m].data()[i]));
    }
  return difference / size;
}

const ScaleSets every_kind[] = {
    ScaleSets::rows(),     ScaleSets::groups(8),   ScaleSets::groups(13),  ScaleSets::columns(),
    ScaleSets::columns(5), ScaleSets::columns(64), ScaleSets::columns(200)};

template <class S>
void check_against_reference(const S& s, Index rows, const std::vector<Index>& sizes,
                             const std::vector<Index>& order) {
  Index cols = 0;
  for (const Index m : order) cols += sizes[std::size_t(m)];
  const auto W = test::heavy_tailed(rows, cols, 5, 1, 3.0);
  const auto M = random_matrices(sizes);
  for (const ScaleSets sets : every_kind) {
    INFO("rows " << rows << ", cols " << cols << ", axis " << int(sets.axis) << ", group "
                 << sets.group);
    std::vector<RangeTerm> terms;
    terms.emplace_back(W, sets, order);
    RangeProblem problem(std::move(terms), sizes, s);
    auto expected = zeros_like(M);
    const double f = reference(s, unit(W), sets, order, M, expected);
    auto gradient = random_matrices(sizes, 77);  // what was there before does not matter
    CHECK(problem.evaluate(M, gradient) == Approx(f).epsilon(1e-6).margin(1e-6));
    CHECK(relative_difference(gradient, expected) < 3e-5);
    CHECK(problem.evaluate(M) == Approx(f).epsilon(1e-6).margin(1e-6));
  }
}

}  // namespace

TEST_CASE("the range problem agrees with the surrogate of the whole product", "[optimize][range]") {
  for (const Index rows : {1, 7, 100, 333}) {
    check_against_reference(PNorm{}, rows, {8, 5, 1}, {0, 1, 2});
    check_against_reference(LogSumExp{}, rows, {8, 5, 1}, {0, 1, 2});
  }
  check_against_reference(PNorm{.p = 16}, 50, {33}, {0});
  check_against_reference(PNorm{}, 1800, {16, 7}, {0, 1});  // slabs of more than one chunk
  check_against_reference(LogSumExp{}, 1800, {16, 7}, {0, 1});
}

TEST_CASE("column blocks may share a matrix", "[optimize][range]") {
  check_against_reference(PNorm{}, 120, {8, 5}, {0, 0, 1, 0, 1});
  check_against_reference(LogSumExp{}, 120, {8, 5}, {1, 0, 0});
}

TEST_CASE("the problem reproduces the golden losses", "[optimize][range]") {
  const auto golden = test::golden("losses.json");
  const auto W = test::golden_matrix(golden["W"]);
  std::vector<Matrix<double>> M;
  M.push_back(test::golden_matrix(golden["M"]));
  double sum = 0;
  for (Index i = 0; i < W.size(); ++i) sum += W.data()[i] * W.data()[i];
  const double square =
      sum / double(W.size());  // the problem scales W to unit RMS: f moves by its logarithm
  const auto check = [&](const auto& surrogate, const char* value, const char* slope) {
    std::vector<RangeTerm> terms;
    terms.emplace_back(W);
    RangeProblem problem(std::move(terms), {8}, surrogate);
    auto gradient = zeros_like(M);
    const double f = problem.evaluate(M, gradient) + problem.inverse_penalty(M, gradient);
    CHECK(f + std::log(square) == Approx(golden[value].get<double>()).epsilon(1e-6));
    std::vector<Matrix<double>> expected;
    expected.push_back(test::golden_matrix(golden[slope]));
    CHECK(relative_difference(gradient, expected) < 1e-5);
  };
  check(PNorm{.p = 8}, "p8", "p8_grad_M");
  check(LogSumExp{.t = float(5 * std::sqrt(square))}, "lse", "lse_grad_M");
}

TEST_CASE("terms add up, each with a normaliser of its own", "[optimize][range]") {
  const auto A = test::gaussian(40, 13, 1);
  const auto B = test::gaussian(90, 13, 2, 100.0);
  const std::vector<Index> sizes{8, 5};
  const auto M = random_matrices(sizes);
  const auto term = [&](const Matrix<float>& W, ScaleSets sets) {
    std::vector<RangeTerm> terms;
    terms.emplace_back(W, sets);
    return terms;
  };
  auto together = term(A, ScaleSets::rows());
  together.emplace_back(B, ScaleSets::columns());
  together.emplace_back(A, ScaleSets::groups(4));
  RangeProblem all(std::move(together), sizes, PNorm{});
  RangeProblem first(term(A, ScaleSets::rows()), sizes, PNorm{});
  RangeProblem second(term(B, ScaleSets::columns()), sizes, PNorm{});
  RangeProblem third(term(A, ScaleSets::groups(4)), sizes, PNorm{});
  auto gradient = zeros_like(M);
  auto sum = zeros_like(M);
  const double f = all.evaluate(M, gradient);
  double parts = 0;
  for (auto* problem : {&first, &second, &third}) {
    auto part = zeros_like(M);
    parts += problem->evaluate(M, part);
    for (std::size_t m = 0; m < M.size(); ++m)
      for (Index i = 0; i < M[m].size(); ++i) sum[m].data()[i] += part[m].data()[i];
  }
  CHECK(f == Approx(parts).epsilon(1e-12));
  CHECK(relative_difference(gradient, sum) < 1e-12);
}

TEST_CASE("with the inverse's penalty, f is blind to the scale of M", "[optimize][range]") {
  const auto W = test::gaussian(60, 21, 3);
  const std::vector<Index> sizes{8, 5};
  std::vector<RangeTerm> terms;
  terms.emplace_back(W, ScaleSets::rows(), std::vector<Index>{0, 1, 0});
  terms.emplace_back(W.view().col_block(0, 13), ScaleSets::groups(4));
  RangeProblem problem(std::move(terms), sizes, PNorm{});
  auto M = random_matrices(sizes);
  const auto value = [&](const std::vector<Matrix<double>>& at) {
    return problem.evaluate(at) + problem.inverse_penalty(at);
  };
  const double f = value(M);
  auto scaled = M;
  for (auto& m : scaled)
    for (Index i = 0; i < m.size(); ++i) m.data()[i] *= 37.0;
  CHECK(value(scaled) == Approx(f).epsilon(1e-6));

  // The penalty's own gradient, by differences.
  auto gradient = zeros_like(M);
  problem.inverse_penalty(M, gradient);
  for (std::size_t m = 0; m < M.size(); ++m)
    for (Index i = 0; i < M[m].size(); i += 3) {
      auto plus = M;
      auto minus = M;
      plus[m].data()[i] += 1e-6;
      minus[m].data()[i] -= 1e-6;
      CHECK(gradient[m].data()[i] ==
            Approx((problem.inverse_penalty(plus) - problem.inverse_penalty(minus)) / 2e-6)
                .epsilon(1e-5)
                .margin(1e-6));
    }

  for (Index j = 0; j < 8; ++j) M[0](3, j) = M[0](4, j);
  CHECK(problem.inverse_penalty(M) == std::numeric_limits<double>::infinity());
}

TEST_CASE("terms of zeros are left out; matrices that are not finite give values that are not",
          "[optimize][range]") {
  const auto W = test::gaussian(30, 9, 4);
  std::vector<RangeTerm> terms;
  terms.emplace_back(W);
  RangeProblem alone(std::move(terms), {9}, PNorm{});
  terms.clear();
  terms.emplace_back(W);
  const Matrix<float> zero(5, 9);
  const Matrix<float> empty(0, 9);
  terms.emplace_back(zero);
  terms.emplace_back(empty);
  CHECK(terms[1].vanishes());
  CHECK(terms[2].vanishes());
  RangeProblem with_zeros(std::move(terms), {9}, PNorm{});
  auto M = random_matrices({9});
  CHECK(alone.evaluate(M) == with_zeros.evaluate(M));
  CHECK(alone.inverse_penalty(M) == with_zeros.inverse_penalty(M));
  M[0](2, 3) = std::numeric_limits<double>::quiet_NaN();
  CHECK_FALSE(std::isfinite(alone.evaluate(M)));
  M[0](2, 3) = std::numeric_limits<double>::infinity();
  CHECK_FALSE(std::isfinite(alone.evaluate(M)));
}

TEST_CASE("views of any layout and element type make the same term", "[optimize][range]") {
  const auto W = test::gaussian(40, 12, 6);
  const auto Wt = to_matrix<double>(W.view().transposed());
  const auto M = random_matrices({12});
  const auto value = [&](const auto& view) {
    std::vector<RangeTerm> terms;
    terms.emplace_back(view);
    return RangeProblem(std::move(terms), {12}, PNorm{}).evaluate(M);
  };
  CHECK(value(W) == value(Wt.view().transposed()));
  CHECK(value(W) == Approx(value(to_matrix<fp16>(W.view()))).epsilon(1e-2));
  auto tiny = to_matrix<double>(W.view());
  for (Index i = 0; i < tiny.size(); ++i) tiny.data()[i] *= 1e-60;  // below every float
  CHECK(value(W) == Approx(value(tiny)).epsilon(1e-6));
}

TEST_CASE("neither threads nor repetition change a bit, and an evaluation allocates nothing",
          "[optimize][range]") {
  const auto W = test::gaussian(700, 60, 7);
  const std::vector<Index> sizes{32, 20, 8};
  const auto M = random_matrices(sizes);
  for (const ScaleSets sets : every_kind) {
    double expected = 0;
    std::vector<Matrix<double>> first = zeros_like(M);
    for (const Index threads : {1, 2, 3}) {
      ThreadPool pool(threads);
      std::vector<RangeTerm> terms;
      terms.emplace_back(W, sets);
      RangeProblem problem(std::move(terms), sizes, LogSumExp{}, pool);
      auto gradient = zeros_like(M);
      double f = 0;
      CHECK(test::allocations_of([&] { f = problem.evaluate(M, gradient); }) == 0);
      CHECK(problem.evaluate(M, gradient) == f);
      if (threads == 1) {
        expected = f;
        first = gradient;
      }
      CHECK(f == expected);
      CHECK(relative_difference(gradient, first) == 0.0);
    }
  }
}

TEST_CASE("problems that do not fit together are refused", "[optimize][range]") {
  const auto W = test::gaussian(4, 10, 8);
  const auto make = [&](std::vector<Index> sizes, std::vector<Index> order) {
    std::vector<RangeTerm> terms;
    terms.emplace_back(W, ScaleSets::rows(), std::move(order));
    return RangeProblem(std::move(terms), std::move(sizes), PNorm{});
  };
  CHECK_THROWS_WITH(make({4, 4}, {}), Contains("W: 10 columns") && Contains("8"));
  CHECK_THROWS_WITH(make({8, 8}, {}), Contains("W: 10 columns") && Contains("16"));
  CHECK_THROWS_WITH(make({5}, {0, 1}), Contains("matrix_of_block") && Contains("no matrix 1"));
  CHECK_THROWS_WITH(make({10, 0}, {0}), Contains("sizes: matrix 1"));
  CHECK_THROWS_WITH(RangeProblem({}, {3}, PNorm{.p = 3}), Contains("p is 3"));
  auto problem = make({5}, {0, 0});
  CHECK_THROWS_WITH(problem.evaluate(random_matrices({4})), Contains("M: matrix 0 is 4 x 4"));
  CHECK_THROWS_WITH(problem.evaluate(random_matrices({5, 5})), Contains("M: 2 matrices"));
  auto bad = W;
  bad(2, 7) = std::numeric_limits<float>::infinity();
  try {
    RangeTerm term(bad);
    FAIL();
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::non_finite);
    CHECK_THAT(error.message(), Contains("W: row 2, column 7"));
  }
  CHECK_THROWS_WITH(RangeTerm(W, ScaleSets::groups(-4)), Contains("group is -4"));
}
