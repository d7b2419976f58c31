#include "cafeq/optimize/learn_transform.hpp"

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/optimize/adam.hpp"
#include "cafeq/optimize/lbfgs.hpp"
#include "support/catch.hpp"
#include "support/golden.hpp"
#include "support/random.hpp"

using namespace cafeq;
using detail::CayleyParametrization;
using detail::learn_transform;
using detail::RangeProblem;
using detail::RangeTerm;

namespace {

std::vector<RangeTerm> one_term(const Matrix<float>& W, ScaleSets sets = {},
                                std::vector<Index> order = {}) {
  std::vector<RangeTerm> terms;
  terms.emplace_back(W, sets, std::move(order));
  return terms;
}

std::vector<Matrix<double>> starts(const std::vector<Index>& sizes) {
  std::vector<Matrix<double>> M;
  for (const Index k : sizes)
    M.push_back(linalg::random_orthogonal(k, CounterRng(3, std::uint64_t(k))));
  return M;
}

double orthogonality(const Matrix<double>& M) {
  const auto P = linalg::product(M.view().transposed(), M.view());
  double worst = 0;
  for (Index i = 0; i < P.rows(); ++i)
    for (Index j = 0; j < P.cols(); ++j)
      worst = std::max(worst, std::abs(P(i, j) - (i == j ? 1.0 : 0.0)));
  return worst;
}

/// ‖W − Q(W M) M⁻¹‖² / ‖W‖² of a midrise grid, three bits, one scale a row from its largest
/// magnitude.
double quantization_error(const Matrix<float>& W, const std::vector<Matrix<double>>& M) {
  const auto wide = to_matrix<double>(W.view());
  Matrix<double> X(W.rows(), W.cols());
  Index column = 0;
  for (const auto& m : M) {
    kernel::multiply<double>(wide.view().col_block(column, m.rows()), m.view(),
                             X.view().col_block(column, m.rows()));
    column += m.rows();
  }
  auto E = X;
  for (Index i = 0; i < X.rows(); ++i) {
    double peak = 0;
    for (const double v : X.row(i)) peak = std::max(peak, std::abs(v));
    const double s = peak / 3.5;
    for (double& v : E.row(i)) v -= s * (std::clamp(std::floor(v / s), -4.0, 3.0) + 0.5);
  }
  double error = 0;
  double norm = 0;
  column = 0;
  for (const auto& m : M) {
    const auto N = linalg::inverse(m.view());
    const auto back = linalg::product(E.view().col_block(column, m.rows()), N->view());
    for (Index i = 0; i < back.size(); ++i) error += back.data()[i] * back.data()[i];
    column += m.rows();
  }
  for (Index i = 0; i < W.size(); ++i) norm += wide.data()[i] * wide.data()[i];
  return error / norm;
}

}  // namespace

TEST_CASE("learning lowers the objective and the quantization error", "[optimize][learn]") {
  const auto W = test::heavy_tailed(96, 48, 1, 2);
  const auto start = starts({32, 16});
  const double before = quantization_error(W, start);
  const auto check = [&](const auto& surrogate, Parametrization parametrization, double ratio) {
    const auto r = learn_transform(one_term(W), start, surrogate, parametrization, Lbfgs{});
    CHECK(r.value < r.start - 0.2);
    CHECK(r.iterations > 5);
    CHECK(r.evaluations >= r.iterations);
    CHECK(quantization_error(W, r.M) < ratio * before);
    // The value is the objective at the matrices that are returned.
    RangeProblem problem(one_term(W), {32, 16}, surrogate);
    const double penalty =
        parametrization == Parametrization::general ? problem.inverse_penalty(r.M) : 0.0;
    CHECK(problem.evaluate(r.M) + penalty == Approx(r.value).epsilon(1e-9));
    CHECK(problem.evaluate(start) == Approx(r.start).epsilon(1e-9));
    if (parametrization == Parametrization::orthogonal)
      for (const auto& M : r.M) CHECK(orthogonality(M) < 1e-11);
    return r;
  };
  const auto orthogonal = check(PNorm{}, Parametrization::orthogonal, 0.8);
  const auto general = check(PNorm{}, Parametrization::general, 0.8);
  CHECK(general.value < orthogonal.value);
  check(PNorm{.p = 16}, Parametrization::orthogonal, 0.8);
  check(LogSumExp{}, Parametrization::orthogonal, 0.8);
}

TEST_CASE("Adam learns too", "[optimize][learn]") {
  const auto W = test::heavy_tailed(64, 16, 2);
  Adam adam;
  adam.steps = 300;
  const auto slow =
      learn_transform(one_term(W), starts({16}), PNorm{}, Parametrization::orthogonal, adam);
  const auto fast =
      learn_transform(one_term(W), starts({16}), PNorm{}, Parametrization::orthogonal, Lbfgs{});
  CHECK(slow.value < slow.start - 0.1);
  CHECK(slow.value == Approx(fast.value).margin(0.1));
  CHECK(slow.evaluations == 301);
}

TEST_CASE("the gradient of the whole chain agrees with the golden one", "[optimize][learn]") {
  const auto golden = test::golden("losses.json");
  const auto W = test::golden_matrix(golden["W"]);
  double sum = 0;
  for (Index i = 0; i < W.size(); ++i) sum += W.data()[i] * W.data()[i];
  const double square = sum / double(W.size());
  const LogSumExp lse{.t = float(5 * std::sqrt(square))};
  std::vector<RangeTerm> terms;
  terms.emplace_back(W);
  RangeProblem problem(std::move(terms), {8}, lse);
  std::vector<Matrix<double>> M;
  M.push_back(test::golden_matrix(golden["M0"]));
  auto by_M = M;
  CayleyParametrization cayley(M);
  const auto P = test::golden_matrix(golden["P"]);
  const auto expected = test::golden_matrix(golden["cayley_grad_P"]);
  std::vector<double> skew;  // the upper triangle of the skew part of P
  for (Index i = 0; i < 8; ++i)
    for (Index j = i + 1; j < 8; ++j) skew.push_back((P(i, j) - P(j, i)) / 2);
  cayley.matrices(skew, M);
  CHECK(problem.evaluate(M, by_M) + std::log(square) ==
        Approx(golden["cayley_lse"].get<double>()).epsilon(1e-6));
  std::vector<double> gradient(28);
  cayley.gradient(by_M, gradient);
  for (Index i = 0, n = 0; i < 8; ++i)
    for (Index j = i + 1; j < 8; ++j, ++n)
      CHECK(gradient[std::size_t(n)] == Approx(expected(i, j) - expected(j, i)).margin(6e-6));
}

TEST_CASE("nothing to learn returns the start", "[optimize][learn]") {
  const Matrix<float> zero(8, 12);
  const auto start = starts({8, 4});
  const auto r =
      learn_transform(one_term(zero), start, PNorm{}, Parametrization::orthogonal, Lbfgs{});
  REQUIRE(r.M.size() == 2);
  for (Index i = 0; i < 64; ++i) CHECK(r.M[0].data()[i] == start[0].data()[i]);
  CHECK(r.evaluations == 0);
  // Blocks of one weight: the only rotation is the identity.
  const auto one = learn_transform(one_term(test::gaussian(9, 2, 1)), starts({1, 1}), PNorm{},
                                   Parametrization::orthogonal, Lbfgs{});
  CHECK(one.value == one.start);
}

TEST_CASE("permuting the rows of W does not change what is learned", "[optimize][learn]") {
  const auto W = test::heavy_tailed(40, 8, 5);
  Matrix<float> reversed(40, 8);
  copy(View<const float>{W.data() + 39 * 8, 40, 8, -8, 1}, reversed.view());
  const auto a =
      learn_transform(one_term(W), starts({8}), PNorm{}, Parametrization::orthogonal, Lbfgs{});
  const auto b = learn_transform(one_term(reversed), starts({8}), PNorm{},
                                 Parametrization::orthogonal, Lbfgs{});
  CHECK(a.value == Approx(b.value).margin(2e-3));
}

TEST_CASE("matrices shared by several blocks are learned for all of them", "[optimize][learn]") {
  const auto W = test::heavy_tailed(60, 48, 6, 1);
  const auto terms = one_term(W, ScaleSets::groups(16), {0, 1, 0, 1, 1, 0});
  const auto r =
      learn_transform(terms, starts({8, 8}), PNorm{}, Parametrization::orthogonal, Lbfgs{});
  CHECK(r.M.size() == 2);
  CHECK(r.value < r.start - 0.05);
}

TEST_CASE("what is learned does not depend on the number of threads", "[optimize][learn]") {
  const auto W = test::heavy_tailed(300, 24, 7, 1);
  Lbfgs o;
  o.max_iterations = 15;
  const auto expected =
      learn_transform(one_term(W), starts({16, 8}), PNorm{}, Parametrization::orthogonal, o);
  for (const Index threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    const auto r = learn_transform(one_term(W), starts({16, 8}), PNorm{},
                                   Parametrization::orthogonal, o, pool);
    CHECK(r.value == expected.value);
    for (std::size_t m = 0; m < 2; ++m)
      CHECK(std::equal(r.M[m].data(), r.M[m].data() + r.M[m].size(), expected.M[m].data()));
  }
}

TEST_CASE("starts that cannot be learned from are refused", "[optimize][learn]") {
  const auto W = test::gaussian(8, 6, 8);
  const auto refuses = [&](std::vector<Matrix<double>> start, Parametrization parametrization,
                           ErrorCode code, const char* text) {
    try {
      learn_transform(one_term(W), std::move(start), PNorm{}, parametrization, Lbfgs{});
      FAIL("no error: " << text);
    } catch (const Error& error) {
      CHECK(error.code() == code);
      CHECK_THAT(error.message(), Contains(text));
    }
  };
  std::vector<Matrix<double>> start;
  start.emplace_back(6, 5);
  refuses(start, Parametrization::orthogonal, ErrorCode::invalid_shape, "start: matrix 0 is 6 x 5");
  start = starts({6});
  start[0](1, 2) = std::nan("");
  refuses(start, Parametrization::orthogonal, ErrorCode::non_finite, "start: row 1, column 2");
  start[0] = Matrix<double>(6, 6);
  refuses(start, Parametrization::general, ErrorCode::singular, "start: matrix 0 is singular");
  refuses(starts({4}), Parametrization::orthogonal, ErrorCode::invalid_shape, "W: 6 columns");
}
