#include "cafeq/kernel/dense_product.hpp"

#include <cstring>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;
using kernel::Store;

namespace {

template <class T>
bool same_bits(View<const T> a, View<const T> b) {
  for (Index i = 0; i < a.rows; ++i)
    for (Index j = 0; j < a.cols; ++j)
      if (std::memcmp(&a(i, j), &b(i, j), sizeof(T)) != 0) return false;
  return true;
}

/// Every element is one chain of fused multiply-adds: kernel and reference agree in every bit
/// wherever the machine fuses.
template <class T>
bool agree(View<const T> a, View<const T> b, Index depth) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  (void)depth;
  return same_bits<T>(a, b);
#else
  const T limit = T(4) * std::numeric_limits<T>::epsilon() * T(depth + 1);
  for (Index i = 0; i < a.rows; ++i)
    for (Index j = 0; j < a.cols; ++j)
      if (!(std::abs(a(i, j) - b(i, j)) <= limit * (T(4) + std::abs(b(i, j))))) return false;
  return true;
#endif
}

template <class T>
void check_all(Index m, Index k, Index n) {
  INFO("m " << m << ", k " << k << ", n " << n);
  const auto A = test::gaussian<T>(m, k, 1);
  const auto At = test::gaussian<T>(k, m, 2);
  const auto B = test::gaussian<T>(k, n, 3);
  const auto Bt = test::gaussian<T>(n, k, 4);
  const auto wide = test::gaussian<T>(m, 2 * k + 1, 5);
  const View<const T> strided{wide.data(), m, k, wide.cols(), 2};
  const View<const T> left[] = {A.view(), At.view().transposed(), strided};
  const View<const T> right[] = {B.view(), Bt.view().transposed()};
  for (const auto& a : left)
    for (const auto& b : right)
      for (const Store store : {Store::overwrite, Store::add}) {
        auto expected = test::gaussian<T>(m, n + 5, 6);
        auto actual = expected;
        kernel::multiply_reference<T>(a, b, expected.view().col_block(2, n), store);
        kernel::multiply<T>(a, b, actual.view().col_block(2, n), store);
        // The whole of C with its margins: nothing beside the block may change.
        REQUIRE(agree<T>(actual.view(), expected.view(), k));
        if (a.col_stride != 1 && a.row_stride != 1) continue;
        auto packed = test::gaussian<T>(m, n + 5, 6);
        kernel::multiply<T>(a, kernel::PackedMatrix<T>(b).panels(), packed.view().col_block(2, n),
                            store);
        REQUIRE(same_bits<T>(packed.view(), actual.view()));
      }
}

}  // namespace

TEST_CASE("multiply agrees with its reference on awkward sizes and strides", "[kernel][product]") {
  const Index sizes[] = {0, 1, 7, 17, 33};
  for (const Index m : sizes)
    for (const Index k : sizes)
      for (const Index n : sizes) {
        check_all<float>(m, k, n);
        check_all<double>(m, k, n);
      }
  check_all<float>(129, 129, 129);
  check_all<double>(25, 129, 64);
  for (Index m = 1; m <= 26; ++m)
    check_all<float>(m, 5, 16);  // every tail of the six-row tile, packed and direct
}

TEST_CASE("multiply is one chain over k across its panels", "[kernel][product]") {
  // 256 rows of B make a panel; the sum continues in the next one.
  for (const Index k : {255, 256, 257, 700}) {
    check_all<float>(7, k, 19);
    check_all<double>(30, k, 9);
  }
}

TEST_CASE("multiply of factors whose rows compete for one cache set", "[kernel][product]") {
  const auto wide = test::gaussian<float>(180, 1024, 7);
  const auto wider = test::gaussian<double>(140, 512, 8);
  const auto A = wide.view().block(0, 3, 150, 110).transposed();
  for (const Index n : {16, 37, 130}) {
    auto expected = test::gaussian<float>(110, n, 9);
    auto actual = expected;
    kernel::multiply_reference<float>(A, wide.view().block(30, 500, 150, n), expected.view(),
                                      Store::add);
    kernel::multiply<float>(A, wide.view().block(30, 500, 150, n), actual.view(), Store::add);
    CHECK(agree<float>(actual.view(), expected.view(), 150));
    Matrix<double> expected_double(70, n);
    Matrix<double> actual_double(70, n);
    kernel::multiply_reference<double>(wider.view().block(0, 1, 140, 70).transposed(),
                                       wider.view().col_block(200, n), expected_double.view());
    kernel::multiply<double>(wider.view().block(0, 1, 140, 70).transposed(),
                             wider.view().col_block(200, n), actual_double.view());
    CHECK(agree<double>(actual_double.view(), expected_double.view(), 140));
  }
}

TEST_CASE("packing and multiplying allocate nothing but the panels' own storage",
          "[kernel][product]") {
  const auto A = test::gaussian(50, 40, 1);
  const auto B = test::gaussian(40, 40, 2);
  Matrix<float> C(50, 40);
  kernel::PackedMatrix<float> packed(B.view());
  CHECK(test::allocations_of([&] {
          packed.assign(B.view());
          packed.assign(B.view().block(0, 0, 40, 33));
          kernel::multiply<float>(A.view(), packed.panels(), C.view().col_block(0, 33));
          kernel::multiply<float>(A.view(), B.view(), C.view());
        }) == 0);
}

TEST_CASE("multiply of known matrices", "[kernel][product]") {
  Matrix<double> A(2, 3);
  Matrix<double> B(3, 2);
  for (Index i = 0; i < 6; ++i) {
    A.data()[i] = double(i + 1);  // 1 2 3 / 4 5 6
    B.data()[i] = double(i + 7);  // 7 8 / 9 10 / 11 12
  }
  Matrix<double> C(2, 2);
  kernel::multiply<double>(A.view(), B.view(), C.view());
  CHECK(C(0, 0) == 58);
  CHECK(C(0, 1) == 64);
  CHECK(C(1, 0) == 139);
  CHECK(C(1, 1) == 154);
  kernel::multiply<double>(A.view(), B.view(), C.view(), Store::add);
  CHECK(C(1, 1) == 308);
}

TEST_CASE("multiply with no inner dimension clears or keeps", "[kernel][product]") {
  const Matrix<float> A(3, 0);
  const Matrix<float> B(0, 20);
  auto C = test::gaussian(3, 20, 1);
  const auto before = C;
  kernel::multiply<float>(A.view(), B.view(), C.view(), Store::add);
  CHECK(same_bits<float>(C.view(), before.view()));
  kernel::multiply<float>(A.view(), B.view(), C.view());
  for (Index i = 0; i < C.size(); ++i) REQUIRE(C.data()[i] == 0.0f);
}

TEST_CASE("an element of a product does not depend on the shape around it", "[kernel][product]") {
  const auto A = test::gaussian(50, 300, 11);
  const auto B = test::gaussian(300, 40, 12);
  Matrix<float> whole(50, 40);
  kernel::multiply<float>(A.view(), B.view(), whole.view());
  for (const auto& [i, j, rows, cols] :
       {std::array<Index, 4>{3, 5, 1, 1}, {0, 0, 7, 16}, {11, 17, 30, 23}, {49, 39, 1, 1}}) {
    Matrix<float> part(rows, cols);
    kernel::multiply<float>(A.view().row_block(i, rows), B.view().col_block(j, cols), part.view());
    CHECK(same_bits<float>(part.view(), whole.view().block(i, j, rows, cols)));
  }
}

TEST_CASE("multiply handles negative strides", "[kernel][product]") {
  const auto A = test::gaussian(9, 12, 21);
  const auto B = test::gaussian(12, 10, 22);
  const View<const float> flipped{A.data() + A.size() - 1, 9, 12, -12, -1};
  Matrix<float> expected(9, 10);
  Matrix<float> actual(9, 10);
  kernel::multiply_reference<float>(flipped, B.view(), expected.view());
  kernel::multiply<float>(flipped, B.view(), actual.view());
  CHECK(agree<float>(actual.view(), expected.view(), 12));
}
