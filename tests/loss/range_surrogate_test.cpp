#include "cafeq/loss/range_surrogate.hpp"

#include <limits>

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/linalg/dense.hpp"
#include "support/catch.hpp"
#include "support/golden.hpp"
#include "support/random.hpp"

using namespace cafeq;

namespace {

double smooth_range(const PNorm& s, const std::vector<double>& x) {
  double sum = 0;
  for (const double v : x) sum += std::pow(v, s.p);
  return std::pow(sum / double(x.size()), 1.0 / s.p);
}

double smooth_range(const LogSumExp& s, const std::vector<double>& x) {
  double sum = 0;
  for (const double v : x) sum += std::exp(double(s.t) * v) + std::exp(-double(s.t) * v);
  return std::log(sum) / double(s.t);
}

/// f by its definition, in fp64.
template <class S>
double reference(const S& surrogate, const Matrix<double>& X, ScaleSets sets) {
  const auto view = sets.axis == ScaleSets::Axis::row ? X.view() : X.view().transposed();
  const Index group = sets.group > 0 ? sets.group : view.cols;
  double total = 0;
  for (Index i = 0; i < view.rows; ++i)
    for (Index j = 0; j < view.cols; j += group) {
      std::vector<double> x;
      for (Index l = j; l < std::min(j + group, view.cols); ++l) x.push_back(view(i, l));
      const double R = smooth_range(surrogate, x);
      total += double(x.size()) * R * R;
    }
  return std::log(total / double(X.size()));
}

template <class S>
void check_definition(const S& surrogate, Index rows, Index cols, ScaleSets sets) {
  auto X = test::gaussian<double>(rows, cols, 31);
  for (Index i = 0; i < X.size(); ++i) X.data()[i] = double(float(X.data()[i]));
  Matrix<double> G(rows, cols);
  CHECK(detail::log_mean_range(surrogate, X, sets, G.view()) ==
        Approx(reference(surrogate, X, sets)).epsilon(1e-5).margin(1e-6));
  CHECK(detail::log_mean_range(surrogate, X, sets) ==
        Approx(reference(surrogate, X, sets)).epsilon(1e-5).margin(1e-6));
  for (Index e = 0; e < X.size(); e += std::max<Index>(1, X.size() / 40)) {
    auto plus = X;
    auto minus = X;
    plus.data()[e] += 1e-5;
    minus.data()[e] -= 1e-5;
    const double slope =
        (reference(surrogate, plus, sets) - reference(surrogate, minus, sets)) / 2e-5;
    CHECK(G.data()[e] == Approx(slope).epsilon(2e-4).margin(1e-6));
  }
}

const ScaleSets every_kind[] = {ScaleSets::rows(), ScaleSets::groups(4), ScaleSets::groups(1000),
                                ScaleSets::columns(), ScaleSets::columns(3)};

}  // namespace

TEST_CASE("surrogates reproduce the golden ranges", "[loss][range]") {
  const auto golden = test::golden("losses.json");
  const auto W = test::golden_matrix(golden["W"]);
  const auto M = test::golden_matrix(golden["M"]);
  const auto X = linalg::product(W.view(), M.view());
  const auto N = linalg::inverse(M.view());
  double norm = 0;
  for (Index i = 0; i < N->size(); ++i) norm += N->data()[i] * N->data()[i];
  const double penalty = std::log(norm / 8);
  CHECK(detail::log_mean_range(LogSumExp{}, X) + penalty ==
        Approx(golden["lse"].get<double>()).epsilon(1e-6));
  CHECK(detail::log_mean_range(PNorm{}, X) + penalty ==
        Approx(golden["p8"].get<double>()).epsilon(1e-6));
  for (Index i = 0; i < X.rows(); ++i) {
    const double R = golden["R"][std::size_t(i)].get<double>();
    CHECK(detail::log_mean_range(LogSumExp{.t = 5}, X.view().row_block(i, 1)) ==
          Approx(std::log(R * R)).epsilon(1e-6));
  }
}

TEST_CASE("surrogates are what they say, and so are their gradients", "[loss][range]") {
  for (const ScaleSets sets : every_kind) {
    for (const auto& [rows, cols] :
         {std::pair<Index, Index>{1, 1}, {5, 7}, {9, 17}, {17, 33}, {3, 129}}) {
      INFO(rows << " x " << cols << ", group " << sets.group << ", axis " << int(sets.axis));
      check_definition(PNorm{}, rows, cols, sets);
      check_definition(PNorm{.p = 16}, rows, cols, sets);
      check_definition(PNorm{.p = 2}, rows, cols, sets);
      check_definition(LogSumExp{}, rows, cols, sets);
    }
  }
}

TEST_CASE("the p-norm's f moves with the logarithm of the scale, at any magnitude",
          "[loss][range]") {
  const auto X = test::heavy_tailed(9, 40, 3);
  const double f = detail::log_mean_range(PNorm{.p = 16}, X);
  for (const float factor : {1e-30f, 1e-8f, 1e12f, 1e30f}) {
    auto scaled = X;
    for (Index i = 0; i < X.size(); ++i) scaled.data()[i] *= factor;
    CHECK(detail::log_mean_range(PNorm{.p = 16}, scaled) ==
          Approx(f + 2 * std::log(double(factor))).epsilon(1e-6));
  }
}

TEST_CASE("p = 2 is the mean square", "[loss][range]") {
  const auto X = test::gaussian(8, 21, 4);
  double sum = 0;
  for (Index i = 0; i < X.size(); ++i) sum += double(X.data()[i]) * double(X.data()[i]);
  for (const ScaleSets sets : every_kind)
    CHECK(detail::log_mean_range(PNorm{.p = 2}, X, sets) ==
          Approx(std::log(sum / 168)).epsilon(1e-6));
}

TEST_CASE("rows of zeros add nothing to the p-norm and keep the weights of the others",
          "[loss][range]") {
  auto X = test::gaussian(6, 17, 5);
  for (Index j = 0; j < 17; ++j) X(2, j) = X(4, j) = 0;
  Matrix<float> G(6, 17);
  CHECK(detail::log_mean_range(PNorm{}, X, {}, G.view()) ==
        Approx(reference(PNorm{}, to_matrix<double>(X.view()), {})).epsilon(1e-6));
  for (Index j = 0; j < 17; ++j) CHECK((G(2, j) == 0.0f && G(4, j) == 0.0f && G(0, j) != 0.0f));
  CHECK(detail::log_mean_range(LogSumExp{}, X, {}, G.view()) ==
        Approx(reference(LogSumExp{}, to_matrix<double>(X.view()), {})).epsilon(1e-6));
  for (Index j = 0; j < 17; ++j) CHECK(G(2, j) == 0.0f);
  const Matrix<float> zero(3, 8);
  Matrix<float> none(3, 8);
  CHECK(detail::log_mean_range(PNorm{}, zero, {}, none.view()) ==
        -std::numeric_limits<double>::infinity());
  for (Index i = 0; i < 24; ++i) CHECK(none.data()[i] == 0.0f);
}

TEST_CASE("log-sum-exp does not overflow", "[loss][range]") {
  const auto X = test::gaussian(4, 33, 6, 1e4);
  Matrix<float> G(4, 33);
  const double f = detail::log_mean_range(LogSumExp{.t = 50}, X, {}, G.view());
  double total = 0;
  for (Index i = 0; i < 4; ++i) {
    const double peak = double(kernel::row_peak(X.row(i).data(), 33));
    total += peak * peak;
  }
  CHECK(f == Approx(std::log(total / 4)).epsilon(1e-6));  // nothing but the largest entry counts
  CHECK_NOTHROW(check_finite(G.view(), "G"));
}

TEST_CASE("ranges do not depend on the number of threads", "[loss][range]") {
  const auto X = test::gaussian(700, 65, 7);
  Matrix<float> expected(700, 65);
  const double f = detail::log_mean_range(PNorm{}, X, ScaleSets::groups(32), expected.view());
  for (const Index threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    Matrix<float> G(700, 65);
    CHECK(detail::log_mean_range(PNorm{}, X, ScaleSets::groups(32), G.view(), pool) == f);
    CHECK(std::equal(G.data(), G.data() + G.size(), expected.data()));
  }
}

TEST_CASE("bringing sums to a larger peak", "[loss][range]") {
  const auto x = test::gaussian(1, 40, 9);
  std::vector<float> slope(40);
  std::vector<float> moved(40);
  const auto check = [&](const auto& s) {
    const float peak = kernel::row_peak(x.data(), 40);
    const double near = kernel::row_sum(s.kernel(), x.data(), 40, peak, slope.data());
    const double far = kernel::row_sum(s.kernel(), x.data(), 40, 2 * peak, moved.data());
    const PeakChange change = s.change(peak, 2 * peak);
    CHECK(far == Approx(near * change.sum).epsilon(1e-5));
    CHECK(double(moved[3]) == Approx(double(slope[3]) * change.slope).epsilon(1e-5));
    CHECK(s.range(2 * peak, far, 40).squared ==
          Approx(s.range(peak, near, 40).squared).epsilon(1e-5));
    CHECK(s.change(peak, peak).sum == 1.0);
    CHECK(s.change(0.0f, 0.0f).slope == 1.0);
  };
  check(PNorm{});
  check(LogSumExp{});
}

TEST_CASE("parameters out of range are refused", "[loss][range]") {
  const Matrix<float> X(2, 2);
  for (const int p : {-2, 0, 1, 7, 66})
    CHECK_THROWS_WITH(detail::log_mean_range(PNorm{p}, X), Contains("p is " + std::to_string(p)));
  for (const float t : {0.0f, -1.0f, std::numeric_limits<float>::infinity(),
                        std::numeric_limits<float>::quiet_NaN()})
    CHECK_THROWS_WITH(detail::log_mean_range(LogSumExp{t}, X), Contains("t is "));
  CHECK_THROWS_WITH(detail::log_mean_range(PNorm{}, X, ScaleSets::groups(-1)),
                    Contains("group is -1"));
  const Matrix<float> empty(0, 3);
  CHECK_THROWS_WITH(detail::log_mean_range(PNorm{}, empty), Contains("X: 0 x 3"));
  Matrix<float> G(2, 3);
  CHECK_THROWS_WITH(detail::log_mean_range(PNorm{}, X, {}, G.view()),
                    Contains("gradient is 2 x 3"));
}

TEST_CASE("surrogates and scale sets say what is wrong with them", "[loss][range]") {
  CHECK_FALSE(fault_of(PNorm{}, 2, 2));
  CHECK_FALSE(fault_of(LogSumExp{}, 2, 2));
  CHECK_FALSE(ScaleSets::groups(32).fault());
  for (const auto& fault :
       {fault_of(PNorm{7}, 2, 2), fault_of(LogSumExp{-1}, 2, 2), ScaleSets::groups(-1).fault()}) {
    REQUIRE(fault);
    CHECK(fault->code() == ErrorCode::invalid_argument);
  }
  CHECK(fault_of(PNorm{7}, 2, 2)->message() == "p-norm: p is 7, must be even, 2 to 64");
  CHECK(fault_of(LogSumExp{-1}, 2, 2)->message() == "log-sum-exp: t is -1, must be positive");
  CHECK(ScaleSets::groups(-1).fault()->message() ==
        "scale sets: group is -1, must be positive, or 0 for whole rows or columns");
}
