#include "cafeq/linalg/dense.hpp"

#include <limits>

#include "linalg/spd.hpp"
#include "support/catch.hpp"
#include "support/golden.hpp"
#include "support/random.hpp"

using namespace cafeq;
using test::spd;

namespace {

/// A view that lives as long as the expression around it.
View<const double> see(const Matrix<double>& A) { return A.view(); }

Matrix<double> transposed(const Matrix<double>& A) {
  return to_matrix<double>(A.view().transposed());
}

double max_difference(const Matrix<double>& a, const Matrix<double>& b) {
  REQUIRE(a.rows() == b.rows());
  REQUIRE(a.cols() == b.cols());
  double worst = 0;
  for (Index i = 0; i < a.size(); ++i) {
    if (std::isnan(a.data()[i])) return std::numeric_limits<double>::infinity();
    worst = std::max(worst, std::abs(a.data()[i] - b.data()[i]));
  }
  return worst;
}

Matrix<double> diagonal(const std::vector<double>& d) {
  Matrix<double> D(Index(d.size()), Index(d.size()));
  for (Index i = 0; i < D.rows(); ++i) D(i, i) = d[std::size_t(i)];
  return D;
}

double orthogonality(const Matrix<double>& Q) {
  return max_difference(linalg::product(Q.view().transposed(), Q.view()),
                        identity_matrix<double>(Q.cols()));
}

Matrix<double> singular_matrix(Index n) {
  auto A = test::gaussian<double>(n, n, 3);
  for (Index j = 0; j < n; ++j) A(n - 1, j) = 2 * A(0, j);
  return A;
}

const Index sizes[] = {1, 2, 7, 17, 33};

}  // namespace

TEST_CASE("product of any strides", "[linalg]") {
  const auto A = test::gaussian<double>(7, 17, 1);
  const auto B = test::gaussian<double>(5, 17, 2);
  const auto C = linalg::product(A.view(), B.view().transposed());
  for (Index i = 0; i < 7; ++i)
    for (Index j = 0; j < 5; ++j) {
      double sum = 0;
      for (Index p = 0; p < 17; ++p) sum += A(i, p) * B(j, p);
      CHECK(C(i, j) == Approx(sum).margin(1e-12));
    }
  CHECK(max_difference(linalg::product(A.view().block(1, 2, 3, 4), see(identity_matrix<double>(4))),
                       to_matrix<double>(A.view().block(1, 2, 3, 4))) == 0);
}

TEST_CASE("LDL of a positive definite matrix", "[linalg]") {
  for (const Index n : sizes) {
    const auto H = spd(n, 4);
    const auto ldl = linalg::factor_ldl(H.view());
    REQUIRE(ldl);
    const auto LD = linalg::product(ldl->L.view(), see(diagonal(ldl->D)));
    CHECK(max_difference(linalg::product(LD.view(), ldl->L.view().transposed()), H) < 1e-10);
    for (Index i = 0; i < n; ++i) {
      CHECK(ldl->L(i, i) == 1.0);
      CHECK(ldl->D[std::size_t(i)] > 0);
      for (Index j = i + 1; j < n; ++j) REQUIRE(ldl->L(i, j) == 0.0);
    }
  }
  const auto golden = test::golden("ldlq.json");
  const auto ldl = linalg::factor_ldl(see(test::golden_matrix(golden["H"])));
  REQUIRE(ldl);
  CHECK(max_difference(ldl->L, test::golden_matrix(golden["L"])) < 1e-10);
}

TEST_CASE("what is not positive definite has no LDL", "[linalg]") {
  auto H = spd(6, 5);
  H(3, 3) = -1;
  CHECK_FALSE(linalg::factor_ldl(H.view()));
  CHECK_FALSE(linalg::solve_spd(H.view(), see(identity_matrix<double>(6))));
  CHECK_FALSE(linalg::factor_ldl(see(Matrix<double>(3, 3))));
  auto bad = identity_matrix<double>(3);
  bad(1, 1) = std::numeric_limits<double>::quiet_NaN();
  CHECK_FALSE(linalg::factor_ldl(bad.view()));
  bad(1, 1) = std::numeric_limits<double>::infinity();
  CHECK_FALSE(linalg::factor_ldl(bad.view()));
}

TEST_CASE("solves and inverses", "[linalg]") {
  for (const Index n : sizes) {
    const auto H = spd(n, 6);
    const auto A = test::gaussian<double>(n, n, 7);
    const auto B = test::gaussian<double>(n, 3, 8);
    const auto x = linalg::solve_spd(H.view(), B.view());
    REQUIRE(x);
    CHECK(max_difference(linalg::product(H.view(), x->view()), B) < 1e-8);
    const auto inverse = linalg::inverse(A.view());
    REQUIRE(inverse);
    CHECK(max_difference(linalg::product(inverse->view(), A.view()), identity_matrix<double>(n)) <
          1e-9);
    const auto y = linalg::product(inverse->view(), B.view());
    CHECK(max_difference(linalg::product(A.view(), y.view()), B) < 1e-9);
    // A transposed view is inverted as it is seen.
    const auto of_transposed = linalg::inverse(A.view().transposed());
    REQUIRE(of_transposed);
    const auto z = linalg::product(of_transposed->view(), B.view());
    CHECK(max_difference(linalg::product(A.view().transposed(), z.view()), B) < 1e-9);
  }
}

TEST_CASE("a singular or non-finite matrix has no inverse", "[linalg]") {
  CHECK_FALSE(linalg::inverse(see(singular_matrix(8))));
  CHECK_FALSE(linalg::inverse(see(Matrix<double>(4, 4))));
  auto A = identity_matrix<double>(4);
  A(2, 1) = std::numeric_limits<double>::quiet_NaN();
  CHECK_FALSE(linalg::inverse(A.view()));
  CHECK_FALSE(linalg::inverse(A.view().block(2, 1, 1, 1)));
  for (std::uint64_t seed = 1; seed < 20; ++seed) {  // two equal rows: a pivot that is exactly zero
    auto B = test::gaussian<double>(8, 8, seed);
    for (Index j = 0; j < 8; ++j) B(3, j) = B(4, j);
    CHECK_FALSE(linalg::inverse(B.view()));
  }
  CHECK_FALSE(linalg::inverse(see(diagonal({1.0, 1e-8})), 1e-6));
  CHECK(linalg::inverse(see(diagonal({1.0, 1e-8})), 1e-10));
}

TEST_CASE("thin QR of tall, square and wide matrices", "[linalg]") {
  for (const auto& [m, n] : {std::pair<Index, Index>{17, 5}, {9, 9}, {4, 11}, {1, 1}}) {
    const auto A = test::gaussian<double>(m, n, 9);
    const auto qr = linalg::thin_qr(A.view());
    CHECK(qr.Q.rows() == m);
    CHECK(qr.Q.cols() == std::min(m, n));
    CHECK(qr.R.cols() == n);
    CHECK(orthogonality(qr.Q) < 1e-13);
    CHECK(max_difference(linalg::product(qr.Q.view(), qr.R.view()), A) < 1e-12);
    for (Index i = 0; i < qr.R.rows(); ++i)
      for (Index j = 0; j < std::min(i, n); ++j) REQUIRE(qr.R(i, j) == 0.0);
  }
}

TEST_CASE("SVD, also of singular matrices", "[linalg]") {
  for (const Index n : sizes) {
    for (const auto& A :
         {test::gaussian<double>(n, n, 10), singular_matrix(n), Matrix<double>(n, n)}) {
      const auto s = linalg::svd(A.view());
      CHECK(orthogonality(s.U) < 1e-12);
      CHECK(orthogonality(s.V) < 1e-12);
      for (std::size_t i = 1; i < s.S.size(); ++i) CHECK(s.S[i] <= s.S[i - 1]);
      CHECK(s.S.back() >= 0);
      const auto US = linalg::product(s.U.view(), see(diagonal(s.S)));
      CHECK(max_difference(linalg::product(US.view(), s.V.view().transposed()), A) < 1e-11);
    }
  }
}

TEST_CASE("polar factor", "[linalg]") {
  const auto golden = test::golden("polar.json");
  CHECK(max_difference(linalg::polar(see(test::golden_matrix(golden["Z"]))),
                       test::golden_matrix(golden["M"])) < 1e-9);

  for (const Index n : sizes) {
    const auto A = test::gaussian<double>(n, n, 11);
    const auto M = linalg::polar(A.view());
    CHECK(orthogonality(M) < 1e-11);
    // MᵀA is symmetric positive semidefinite: that characterises the factor.
    const auto P = linalg::product(M.view().transposed(), A.view());
    CHECK(max_difference(P, transposed(P)) < 1e-10);
    CHECK(linalg::symmetric_eigen(P.view()).values.front() > -1e-10);
    // Neither scale nor an orthogonal matrix on the left changes it but for that matrix.
    auto scaled = A;
    for (Index i = 0; i < A.size(); ++i) scaled.data()[i] *= 1e-20;
    CHECK(max_difference(linalg::polar(scaled.view()), M) < 1e-10);
  }
  CHECK(orthogonality(linalg::polar(see(singular_matrix(9)))) < 1e-10);
  CHECK(orthogonality(linalg::polar(see(Matrix<double>(5, 5)))) < 1e-10);
  CHECK(orthogonality(linalg::polar(see(diagonal({1.0, 1e-7, 1e-9, 1e5})))) < 1e-10);
}

TEST_CASE("eigenvalues of symmetric matrices", "[linalg]") {
  for (const Index n : sizes) {
    const auto H = spd(n, 12);
    const auto e = linalg::symmetric_eigen(H.view());
    CHECK(orthogonality(e.vectors) < 1e-12);
    for (std::size_t i = 1; i < e.values.size(); ++i) CHECK(e.values[i] >= e.values[i - 1]);
    const auto VD = linalg::product(e.vectors.view(), see(diagonal(e.values)));
    CHECK(max_difference(linalg::product(VD.view(), e.vectors.view().transposed()), H) < 1e-9);
  }
}

TEST_CASE("random orthogonal matrices", "[linalg]") {
  for (const Index n : sizes) {
    const auto Q = linalg::random_orthogonal(n, CounterRng(1, 2));
    CHECK(orthogonality(Q) < 1e-12);
    CHECK(max_difference(Q, linalg::random_orthogonal(n, CounterRng(1, 2))) == 0);
  }
  CHECK(max_difference(linalg::random_orthogonal(7, CounterRng(1)),
                       linalg::random_orthogonal(7, CounterRng(2))) > 0.01);
  // Haar: no preferred sign. QR alone would make the diagonal of R negative, and Q(0, 0) with it.
  int positive = 0;
  for (std::uint64_t seed = 0; seed < 200; ++seed)
    positive += linalg::random_orthogonal(3, CounterRng(seed))(0, 0) > 0;
  CHECK(positive > 70);
  CHECK(positive < 130);
}
