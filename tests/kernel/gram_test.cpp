#include "cafeq/kernel/gram.hpp"

#include <cstring>

#include "cafeq/core/thread_pool.hpp"
#include "support/allocations.hpp"
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
  return a.rows() == b.rows() && a.cols() == b.cols() &&
         (a.empty() || std::memcmp(a.data(), b.data(), std::size_t(a.size()) * 8) == 0);
}

}  // namespace

TEST_CASE("cross_gram is AᵀB on awkward sizes and strides", "[kernel][gram]") {
  for (const Index rows : {0, 1, 7, 64, 65, 129})
    for (const Index m : {0, 1, 17, 33})
      for (const Index n : {1, 7, 70, 129}) {
        if (m == 33 && n > 100) continue;
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

TEST_CASE("gram is cross_gram of a matrix with itself, to the bit", "[kernel][gram]") {
  for (const Index rows : {0, 1, 63, 130})
    for (const Index n : {0, 1, 7, 16, 33, 128, 150, 260}) {
      if (n == 260 && rows != 63) continue;
      const auto A = test::gaussian(rows, n, 5);
      CHECK(
          same_bits(kernel::gram<float>(A.view()), kernel::cross_gram<float>(A.view(), A.view())));
      const auto B = test::gaussian<double>(n, rows, 6);
      CHECK(same_bits(kernel::gram<double>(B.view().transposed()),
                      kernel::cross_gram<double>(B.view().transposed(), B.view().transposed())));
    }
}

TEST_CASE("rows added chunk by chunk give the bits of all rows at once, without an allocation",
          "[kernel][gram]") {
  const auto A = test::gaussian(150, 140, 11);
  const auto B = test::gaussian(150, 37, 12);
  const auto C = test::gaussian<double>(150, 70, 13);
  const auto cross = kernel::cross_gram<float>(A.view(), B.view());
  const auto gram = kernel::gram<float>(A.view());
  const auto wide = kernel::gram<double>(C.view());
  std::vector<double> scratch(std::size_t(kernel::gram_scratch(140)) + 1, 7.0);
  const std::span<double> part(scratch.data(), scratch.size() - 1);
  for (const Index chunk : {1, 48, 149}) {
    Matrix<double> X(140, 37);
    Matrix<double> G(140, 140);
    Matrix<double> W(70, 70);
    CHECK(test::allocations_of([&] {
            for (Index i = 0; i < 150; i += chunk) {
              const Index n = std::min(chunk, 150 - i);
              kernel::cross_gram_add<float>(A.view().row_block(i, n), B.view().row_block(i, n),
                                            X.view(), part);
              kernel::gram_add<float>(A.view().row_block(i, n), G.view(), part);
              kernel::gram_add<double>(C.view().row_block(i, n), W.view(), part);
            }
          }) == 0);
    CHECK(same_bits(X, cross));
    CHECK(same_bits(G, gram));
    CHECK(same_bits(W, wide));
  }
  CHECK(scratch.back() == 7.0);
}

TEST_CASE("gram does not depend on the number of threads", "[kernel][gram]") {
  const auto A = test::gaussian(200, 150, 9);
  const auto B = test::gaussian(200, 199, 10);
  const auto expected = kernel::cross_gram<float>(A.view(), B.view());
  for (const Index threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    CHECK(same_bits(kernel::cross_gram<float>(A.view(), B.view(), pool), expected));
    CHECK(same_bits(kernel::gram<float>(B.view(), pool), kernel::gram<float>(B.view())));
  }
}

TEST_CASE("gram_add_floats is AᵀA to what fp32 can sum, for any number of threads",
          "[kernel][gram]") {
  for (const Index rows : {0, 1, 511, 512, 700})
    for (const Index cols : {1, 7, 193, 400}) {
      if (rows == 700 && cols > 193 && test::sanitized) continue;
      auto A = test::gaussian(rows, cols, 1);
      for (Index i = 0; i < rows; ++i) A(i, cols / 2) *= 100;
      const Matrix<double> expected = kernel::gram<float>(View<const float>(A.view()));
      Matrix<double> one(cols, cols), three(cols, cols);
      ThreadPool pool(3);
      for (int twice = 0; twice < 2; ++twice) {
        kernel::gram_add_floats<>(A.view(), one.view());
        kernel::gram_add_floats<>(A.view(), three.view(), pool);
      }
      for (Index i = 0; i < cols; ++i)
        for (Index j = i; j < cols; ++j) {
          const double size = std::sqrt(expected(i, i) * expected(j, j));
          REQUIRE(std::abs(one(i, j) - 2 * expected(i, j)) <= 4e-6 * size);
          REQUIRE(one(i, j) == three(i, j));
        }
    }
}
