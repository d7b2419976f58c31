#include "cafeq/linalg/inverse.hpp"

#include <cmath>
#include <cstring>
#include <limits>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;
using linalg::Inverter;

namespace {

/// The largest element of A·B − I in magnitude; infinite where one is NaN.
double distance_from_identity(View<const double> A, View<const double> B) {
  double worst = 0;
  for (Index i = 0; i < A.rows; ++i)
    for (Index j = 0; j < A.rows; ++j) {
      double sum = i == j ? -1 : 0;
      for (Index p = 0; p < A.rows; ++p) sum += A(i, p) * B(p, j);
      if (!(std::abs(sum) <= worst))
        worst = std::isnan(sum) ? std::numeric_limits<double>::infinity() : std::abs(sum);
    }
  return worst;
}

Matrix<double> identity_plus_noise(Index n, std::uint64_t seed) {
  auto A = test::gaussian<double>(n, n, seed, 0.5 / std::sqrt(double(n)));
  for (Index i = 0; i < n; ++i) A(i, i) += 1;
  return A;
}

bool inverts(const Matrix<double>& A, double min_rcond = 1e-14) {
  Matrix<double> X(A.rows(), A.cols());
  return Inverter().invert(A.view(), X.view(), min_rcond);
}

}  // namespace

TEST_CASE("A times its inverse is the identity, on both sides, whatever the size and the strides",
          "[linalg][inverse]") {
  Inverter inverter;  // its storage serves larger and smaller matrices in turn
  for (const Index n : {33, 1, 2, 7, 64, 8, 9, 15, 16, 17, 129, 5}) {
    INFO("n " << n);
    const auto A = identity_plus_noise(n, std::uint64_t(n));
    Matrix<double> X(n, n + 3);
    std::fill_n(X.data(), X.size(), 7.0);
    REQUIRE(inverter.invert(A.view(), X.view().col_block(1, n)));
    const View<const double> x = X.view().col_block(1, n);
    CHECK(distance_from_identity(A.view(), x) < 1e-13 * double(n));
    CHECK(distance_from_identity(x, A.view()) < 1e-13 * double(n));
    for (Index i = 0; i < n; ++i) CHECK((X(i, 0) == 7.0 && X(i, n + 1) == 7.0));
    // A transposed view is inverted as it is seen, a strided one too, and into itself.
    Matrix<double> Y(n, n);
    REQUIRE(inverter.invert(A.view().transposed(), Y.view()));
    CHECK(distance_from_identity(A.view().transposed(), Y.view()) < 1e-13 * double(n));
    auto B = A;
    REQUIRE(inverter.invert(B.view(), B.view()));
    for (Index i = 0; i < n; ++i)
      REQUIRE(std::memcmp(&B(i, 0), &x(i, 0), std::size_t(n) * sizeof(double)) == 0);
    Matrix<double> wide(n, 2 * n);
    const View<double> every_second{wide.data(), n, n, 2 * n, 2};
    copy(A.view(), every_second);
    REQUIRE(inverter.invert(every_second, Y.view()));
    for (Index i = 0; i < n; ++i)
      REQUIRE(std::memcmp(&Y(i, 0), &x(i, 0), std::size_t(n) * sizeof(double)) == 0);
  }
  Matrix<double> none;
  CHECK(inverter.invert(none.view(), none.view()));
}

TEST_CASE("rows are exchanged where a pivot is small or zero", "[linalg][inverse]") {
  for (const Index n : {2, 9, 16, 40}) {
    INFO("n " << n);
    // A permutation times a diagonal of powers of two: its inverse is exact.
    Matrix<double> P(n, n);
    for (Index i = 0; i < n; ++i)
      P(i, (5 * i + 3) % n == 0 && n % 5 == 0 ? i : (i + n / 2) % n) =
          std::ldexp(1.0, int(i % 7) - 3);
    Matrix<double> X(n, n);
    REQUIRE(Inverter().invert(P.view(), X.view()));
    for (Index i = 0; i < n; ++i)
      for (Index j = 0; j < n; ++j) REQUIRE(X(j, i) == (P(i, j) != 0 ? 1 / P(i, j) : 0.0));
    // Without an exchange the tiny pivots would cost all digits.
    auto A = test::gaussian<double>(n, n, 40 + std::uint64_t(n));
    for (Index i = 0; i < n; ++i) A(i, i) = 1e-18;
    REQUIRE(Inverter().invert(A.view(), X.view()));
    CHECK(distance_from_identity(A.view(), X.view()) < 1e-11);
  }
}

TEST_CASE("what is singular or not finite has no inverse", "[linalg][inverse]") {
  CHECK_FALSE(inverts(Matrix<double>(5, 5)));
  for (std::uint64_t seed = 1; seed < 20; ++seed) {  // two equal rows
    auto A = test::gaussian<double>(20, 20, seed);
    for (Index j = 0; j < 20; ++j) A(3, j) = A(17, j);
    CHECK_FALSE(inverts(A));
  }
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()})
    for (const Index n : {1, 4, 12})
      for (const Index at : {Index(0), n * n / 2, n * n - 1}) {
        auto A = identity_plus_noise(n, 3);
        A.data()[at] = bad;
        CHECK_FALSE(inverts(A));
        CHECK_FALSE(inverts(A, 0));
      }
  Matrix<double> D(2, 2);
  D(0, 0) = 1;
  D(1, 1) = 1e-8;
  CHECK_FALSE(inverts(D, 1e-6));
  CHECK(inverts(D, 1e-10));
  D(0, 0) = 1e-200;  // a condition does not depend on the scale
  D(1, 1) = 1e-202;
  CHECK(inverts(D, 1e-3));
}

TEST_CASE("an inverter allocates only for a matrix larger than all before", "[linalg][inverse]") {
  const auto A = identity_plus_noise(40, 1);
  Matrix<double> X(40, 40);
  Inverter inverter;
  inverter.invert(A.view(), X.view());
  CHECK(test::allocations_of([&] {
          inverter.invert(A.view(), X.view());
          inverter.invert(A.view().block(0, 0, 17, 17), X.view().block(0, 0, 17, 17));
        }) == 0);
}
