#include "cafeq/kernel/gram.hpp"

#include <cstring>

#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

namespace {

template <class T>
void check_cross(View<const T> A, View<const T> B) {
  const auto G = kernel::cross_gram<T>(A, B);
  REQUIRE(G.rows() == A.cols);
  REQUIRE(G.cols() == B.cols);
  for (Index i = 0; i < A.cols; ++i)
    for (Index j = 0; j < B.cols; ++j) {
      double sum = 0;
      double size = 0;
      for (Index r = 0; r < A.rows; ++r) {
        sum += double(A(r, i)) * double(B(r, j));
        size += std::abs(double(A(r, i)) * double(B(r, j)));
      }
      REQUIRE(std::abs(G(i, j) - sum) <= 1e-14 * (1 + double(A.rows) / 16) * size);
    }
}

bool same_bits(const Matrix<double>& a, const Matrix<double>& b) {
  return a.rows() == b.rows() && a.cols() == b.cols() && (a.empty() || std::memcmp(a.data(), b.data(), std::size_t(a.size()) * 8) == 0);
}

}  // namespace

TEST_CASE("cross_gram is AᵀB on awkward sizes and strides", "[kernel][gram]") {
  for (const Index rows : {0, 1, 7, 64, 65, 129})
    for (const Index m : {0, 1, 17, 33})
      for (const Index n : {1, 7, 70, 129}) {
        const auto A = test::gaussian(rows, m, 1);
        const auto B = test::gaussian(rows, n, 2);
        check_cross<float>(A.view(), B.view());
      }
  const auto At = test::gaussian(9, 77, 3);
  const auto B = test::gaussian(77, 26, 4);
  check_cross<float>(At.view().transposed(), B.view());
  check_cross<float>(At.view().transposed(), View<const float>{B.data(), 77, 13, 26, 2});
  const auto wide = test::gaussian<double>(40, 11, 5);
  check_cross<double>(wide.view(), wide.view());
}

TEST_CASE("gram is exactly symmetric and exact for products of floats", "[kernel][gram]") {
  const auto A = test::heavy_tailed(150, 67, 7, 3);
  const auto G = kernel::gram<float>(A.view());
  for (Index i = 0; i < 67; ++i)
    for (Index j = 0; j < i; ++j) REQUIRE(G(i, j) == G(j, i));
  // One row: no rounding at all, where fp32 would round.
  const auto row = A.view().row_block(0, 1);
  const auto one = kernel::gram<float>(row);
  for (Index i = 0; i < 67; ++i)
    for (Index j = 0; j < 67; ++j) REQUIRE(one(i, j) == double(row(0, i)) * double(row(0, j)));
}

TEST_CASE("gram does not depend on the number of threads", "[kernel][gram]") {
  const auto A = test::gaussian(200, 150, 9);
  const auto B = test::gaussian(200, 199, 10);
  const auto expected = kernel::cross_gram<float>(A.view(), B.view());
  for (const Index threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    CHECK(same_bits(kernel::cross_gram<float>(A.view(), B.view(), pool), expected));
  }
}
