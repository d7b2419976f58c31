#include "cafeq/rounding/lines.hpp"

#include <cmath>

#include "cafeq/kernel/gram.hpp"
#include "cafeq/linalg/dense.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

namespace {

Matrix<double> line_metric(Index n, std::uint64_t seed) {
  const auto A = test::gaussian<float>(2 * n + 4, n, seed, 1 / std::sqrt(double(2 * n + 4)));
  return kernel::gram<float>(A.view());
}

/// tr(Eᵀ H E).
double loss(View<const float> E, View<const double> H) {
  double sum = 0;
  for (Index a = 0; a < H.rows; ++a)
    for (Index b = 0; b < H.rows; ++b)
      for (Index l = 0; l < E.cols; ++l) sum += double(E(a, l)) * H(a, b) * double(E(b, l));
  return sum;
}

/// Stands in for a grid where results are compared as numbers: nothing jumps.
float smooth(float target) { return 0.8f * target + 0.1f; }

struct Recorder {
  Matrix<float>& targets;
  std::vector<Index> order;

  void operator()(Index j, std::span<const float> target, std::span<float> decoded) {
    order.push_back(j);
    for (Index l = 0; l < targets.cols(); ++l) {
      targets(j, l) = target[std::size_t(l)];
      decoded[std::size_t(l)] = smooth(target[std::size_t(l)]);
    }
  }
};

}  // namespace

TEST_CASE("Error feedback hands each line its target, last line first") {
  for (const Index n : {0, 1, 7, 16, 17, 33, 129})
    for (const Index m : {1, 7, 33}) {
      INFO(n << " lines of " << m);
      const auto X = test::gaussian<float>(n, m, 1);
      auto L = test::gaussian<float>(n, n, 2, 1 / std::sqrt(double(n) + 1));
      for (Index i = 0; i < n; ++i)
        for (Index j = i; j < n; ++j)
          L(i, j) = i == j ? 1.0f : std::nanf("");  // only what is below the diagonal may be read
      Matrix<float> E(n, m), targets(n, m);
      Workspace workspace;
      Recorder recorder{targets, {}};
      rounding::feed_back(X.view(), std::as_const(L).view(), E.view(), workspace, recorder);

      // t_j = x_j + Σ_{i>j} L_ij e_i, by the definition.
      Matrix<double> errors(n, m);
      double worst = 0;
      for (Index j = n - 1; j >= 0; --j)
        for (Index l = 0; l < m; ++l) {
          double t = double(X(j, l));
          for (Index i = j + 1; i < n; ++i) t += double(L(i, j)) * errors(i, l);
          errors(j, l) = double(X(j, l)) - (double(0.8f) * t + double(0.1f));
          worst = std::max({worst, std::abs(double(targets(j, l)) - t),
                            std::abs(double(E(j, l)) - errors(j, l))});
        }
      CHECK(worst < 1e-4);
      REQUIRE(Index(recorder.order.size()) == n);
      for (Index j = 0; j < n; ++j) CHECK(recorder.order[std::size_t(j)] == n - 1 - j);
    }
}

TEST_CASE("What error feedback leaves is what D weighs: tr(EᵀHE) = Σ D_j ‖t_j − q_j‖²") {
  const Index n = 40, m = 9;
  const auto X = test::gaussian<float>(n, m, 3);
  const auto H = line_metric(n, 4);
  const auto factor = linalg::factor_ldl(H.view());
  REQUIRE(factor);
  const auto L = to_matrix<float>(factor->L.view());
  Matrix<float> E(n, m);
  Workspace workspace;
  double weighed = 0;
  rounding::feed_back(X.view(), L.view(), E.view(), workspace,
                      [&](Index j, std::span<const float> t, std::span<float> q) {
                        for (std::size_t l = 0; l < t.size(); ++l) {
                          q[l] = std::nearbyint(t[l] * 2) / 2;
                          weighed +=
                              factor->D[std::size_t(j)] * double(t[l] - q[l]) * double(t[l] - q[l]);
                        }
                      });
  CHECK(loss(std::as_const(E).view(), H.view()) == Approx(weighed).epsilon(1e-4));
}

TEST_CASE("A sweep of coordinate descent minimises over one line after the other") {
  for (const Index n : {1, 7, 16, 17, 33, 129})
    for (const Index m : {1, 7, 33}) {
      INFO(n << " lines of " << m);
      const auto X = test::gaussian<float>(n, m, 5);
      const auto H = line_metric(n, 6);
      const auto Hf = to_matrix<float>(H.view());
      auto E = test::gaussian<float>(n, m, 7, 0.3);
      auto errors = to_matrix<double>(E.view());
      Matrix<float> targets(n, m);
      Workspace workspace;
      Recorder recorder{targets, {}};
      rounding::descend(X.view(), Hf.view(), E.view(), workspace, recorder);
      double worst = 0;
      for (Index j = 0; j < n; ++j)
        for (Index l = 0; l < m; ++l) {
          double gradient = 0;
          for (Index i = 0; i < n; ++i) gradient += H(j, i) * errors(i, l);
          const double t = double(X(j, l)) - errors(j, l) + gradient / H(j, j);
          errors(j, l) = double(X(j, l)) - (double(0.8f) * t + double(0.1f));
          worst = std::max({worst, std::abs(double(targets(j, l)) - t),
                            std::abs(double(E(j, l)) - errors(j, l))});
        }
      CHECK(worst < 2e-4);
      for (Index j = 0; j < n; ++j) CHECK(recorder.order[std::size_t(j)] == j);
    }
}

TEST_CASE("With a grid no sweep increases the loss; without one, sweeps solve the system") {
  const Index n = 50, m = 20;
  const auto X = test::gaussian<float>(n, m, 8);
  const auto H = line_metric(n, 9);
  const auto Hf = to_matrix<float>(H.view());
  Workspace workspace;
  Matrix<float> E(n, m);
  const auto to_grid = [](Index, std::span<const float> t, std::span<float> q) {
    for (std::size_t l = 0; l < t.size(); ++l) q[l] = std::nearbyint(t[l]);
  };
  for (Index i = 0; i < n; ++i)
    for (Index l = 0; l < m; ++l) E(i, l) = X(i, l) - std::nearbyint(X(i, l));
  double before = loss(std::as_const(E).view(), H.view());
  const double nearest = before;
  for (int sweep = 0; sweep < 6; ++sweep) {
    rounding::descend(X.view(), Hf.view(), E.view(), workspace, to_grid);
    const double now = loss(std::as_const(E).view(), H.view());
    CHECK(now <= before * (1 + 1e-5));
    before = now;
  }
  CHECK(before < 0.8 * nearest);

  const auto exact = [](Index, std::span<const float> t, std::span<float> q) {
    std::copy(t.begin(), t.end(), q.begin());
  };
  for (int sweep = 0; sweep < 400; ++sweep)
    rounding::descend(X.view(), Hf.view(), E.view(), workspace, exact);
  CHECK(loss(std::as_const(E).view(), H.view()) < 1e-6 * nearest);
}

TEST_CASE("Lines may be part of a wider matrix, and scratch is given back") {
  const Index n = 33, m = 10;
  const auto wide = test::gaussian<float>(n, 3 * m, 10);
  const auto X = wide.view().col_block(m, m);
  const auto copied = to_matrix<float>(X);
  const auto H = line_metric(n, 11);
  const auto L = to_matrix<float>(linalg::factor_ldl(H.view())->L.view());
  const auto Hf = to_matrix<float>(H.view());
  const auto to_grid = [](Index, std::span<const float> t, std::span<float> q) {
    for (std::size_t l = 0; l < t.size(); ++l) q[l] = std::nearbyint(t[l]);
  };
  Workspace workspace;
  Matrix<float> E(n, m), wide_E(n, 3 * m);
  rounding::feed_back(copied.view(), L.view(), E.view(), workspace, to_grid);
  rounding::descend(copied.view(), Hf.view(), E.view(), workspace, to_grid);
  rounding::feed_back(X, L.view(), wide_E.view().col_block(m, m), workspace, to_grid);
  rounding::descend(X, Hf.view(), wide_E.view().col_block(m, m), workspace, to_grid);
  for (Index i = 0; i < n; ++i)
    for (Index l = 0; l < m; ++l) {
      REQUIRE(wide_E(i, m + l) == E(i, l));
      REQUIRE(wide_E(i, l) == 0);
      REQUIRE(wide_E(i, 2 * m + l) == 0);
    }
}
