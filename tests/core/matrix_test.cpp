#include "cafeq/core/matrix.hpp"

#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

TEMPLATE_TEST_CASE("owned storage starts at a multiple of 64 bytes", "[core][matrix]", float,
                   double, bf16, fp16, std::uint8_t) {
  for (const Index n : {1, 7, 17, 33, 129}) {
    Matrix<TestType> m(n, n);
    CHECK(reinterpret_cast<std::uintptr_t>(m.data()) % 64 == 0);
    const Buffer<TestType> buffer(static_cast<std::size_t>(n));
    CHECK(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64 == 0);
  }
}

TEST_CASE("a matrix is row-major, dense and zero at first", "[core][matrix]") {
  Matrix<double> m(3, 5);
  CHECK(m.rows() == 3);
  CHECK(m.cols() == 5);
  CHECK(m.size() == 15);
  for (Index i = 0; i < m.size(); ++i) CHECK(m.data()[i] == 0);
  m(1, 2) = 4;
  CHECK(m.data()[7] == 4);
  CHECK(std::as_const(m)(1, 2) == 4);
  CHECK(m.row(1)[2] == 4);
  CHECK(std::as_const(m).row(1).size() == 5);
  CHECK(m.view().contiguous());
  static_assert(std::is_same_v<decltype(std::as_const(m).view()), View<const double>>);
}

TEST_CASE("a matrix may be empty", "[core][matrix]") {
  CHECK(Matrix<float>().empty());
  CHECK(Matrix<float>(0, 5).empty());
  CHECK(Matrix<float>(5, 0).empty());
  CHECK(Matrix<float>(5, 0).rows() == 5);
  CHECK(to_matrix<double>(Matrix<float>(0, 5).empty() ? View<const float>{nullptr, 0, 5, 5, 1}
                                                      : View<const float>{})
            .cols() == 5);
}

TEST_CASE("copies are deep and moves keep the elements in place", "[core][matrix]") {
  Matrix<float> a = test::gaussian<float>(4, 4, 1);
  const Matrix<float> b = a;
  const float* at = a.data();
  a(0, 0) += 1;
  CHECK(b(0, 0) != a(0, 0));
  const Matrix<float> c = std::move(a);
  CHECK(c.data() == at);
}

TEST_CASE("to_matrix makes a dense copy of any view", "[core][matrix]") {
  auto a = test::gaussian<double>(17, 33, 2);
  const auto transposed = to_matrix<double>(a.view().transposed());
  REQUIRE(transposed.rows() == 33);
  for (Index i = 0; i < 17; ++i)
    for (Index j = 0; j < 33; ++j) CHECK(transposed(j, i) == a(i, j));
  const auto narrow = to_matrix<fp16>(a.view());
  CHECK(float(narrow(3, 4)) == float(fp16(float(a(3, 4)))));
}

TEST_CASE("identity_matrix", "[core][matrix]") {
  const auto identity = identity_matrix<float>(7);
  for (Index i = 0; i < 7; ++i)
    for (Index j = 0; j < 7; ++j) CHECK(identity(i, j) == (i == j ? 1.0f : 0.0f));
}
