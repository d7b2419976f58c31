#include "cafeq/transform/rotation.hpp"

#include "cafeq/transform/hadamard.hpp"
#include "laws.hpp"

using namespace cafeq;
using namespace cafeq::test;

TEST_CASE("dense rotations obey the laws") {
  for (const Index n : sweep<Index>({0, 1, 2, 7, 12, 17, 33, 64, 129}, {0, 1, 2, 7, 17, 33})) {
    const DenseOrthogonal seeded(n, 7);
    check_laws(seeded);
    CHECK(seeded.storage_bits() == 64);
    if (n == 0) continue;
    const auto Q = linalg::random_orthogonal(n, CounterRng(3));
    const DenseOrthogonal given(Q.view());
    check_laws(given, 2e-3);
    CHECK(given.storage_bits() == 16 * n * n);
    CHECK(max_difference(to_dense<double>(given), Q.view()) < 1e-2);
  }
  const auto general = gaussian<double>(5, 5, 1);
  const auto oblong = gaussian<float>(5, 6, 1);
  check_error([&] { DenseOrthogonal{general}; }, ErrorCode::invalid_argument, "not orthogonal");
  check_error([&] { DenseOrthogonal{oblong}; }, ErrorCode::invalid_shape, "5 x 6");
}

TEST_CASE("random rotations are a function of the seed") {
  const auto W = gaussian<float>(3, 24, 1);
  const auto a = to_dense<double>(RandomRotation{1}.fit(W.view()));
  CHECK(max_difference(a.view(), to_dense<double>(RandomRotation{1}.fit(W.view()))) == 0);
  CHECK(max_difference(a.view(), to_dense<double>(RandomRotation{2}.fit(W.view()))) > 0.1);
}

TEST_CASE("a Kronecker product obeys the laws and is one") {
  std::vector<Matrix<double>> blocks;
  blocks.push_back(gaussian<double>(5, 5, 3));
  const auto A = BlockDiagonal::from_forward(blocks, InversePrecision::fp16);
  const Hadamard B(Signs(12, 4));
  const Kronecker product(A, B);
  check_laws(product);
  CHECK_FALSE(product.is_orthogonal());
  CHECK(product.storage_bits() == A.storage_bits() + 64);
  const auto M = to_dense<double>(product), a = to_dense<double>(A), b = to_dense<double>(B);
  Matrix<double> expected(60, 60);
  for (Index i = 0; i < 60; ++i)
    for (Index j = 0; j < 60; ++j) expected(i, j) = a(i / 12, j / 12) * b(i % 12, j % 12);
  CHECK(max_difference(M.view(), expected.view()) < 1e-12);
  check_laws(Kronecker(DenseOrthogonal(7, 1), Kronecker(DenseOrthogonal(3, 2), Signs(4, 3))));
}

TEST_CASE("random Kronecker factors") {
  const auto W = gaussian<float>(2, 172, 1);
  const auto even = RandomKronecker{}.fit(W.view());
  CHECK(even.left().dim() == 4);
  CHECK(even.right().dim() == 43);
  CHECK(even.is_orthogonal());
  if (!sanitized) check_laws(even);
  check_laws(RandomKronecker{}.fit(W.view().col_block(0, 35)));
  CHECK(RandomKronecker{.left = 43}.fit(W.view()).left().dim() == 43);
  check_error([&] { RandomKronecker{.left = 5}.fit(W.view()); }, ErrorCode::invalid_argument,
              "left is 5");
}

TEST_CASE("rotations say what is wrong with them") {
  CHECK_FALSE(fault_of(RandomRotation{}, 3, 7));
  for (const Index left : {0, 1, 3, 12})
    CHECK_FALSE(fault_of(RandomKronecker{.left = left}, 3, 12));
  for (const Index left : {-1, 5, 24}) {
    const auto fault = fault_of(RandomKronecker{.left = left}, 3, 12);
    REQUIRE(fault);
    CHECK(fault->code() == ErrorCode::invalid_argument);
    CHECK(fault->message() ==
          message("RandomKronecker: left is ", left, ", must divide the width 12"));
  }
  CHECK(fault_of(DenseOrthogonal(6, 1), 6, 7)->code() == ErrorCode::invalid_shape);
  const auto W = gaussian<float>(3, 12, 1);
  CHECK_FALSE(fault_of(RandomKronecker{}.fit(W.view()), 3, 12));
}
