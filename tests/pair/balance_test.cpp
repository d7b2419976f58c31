#include "cafeq/pair/balance.hpp"

#include <cmath>

#include "attention.hpp"
#include "cafeq/core/thread_pool.hpp"
#include "support/catch.hpp"
#include "support/golden.hpp"

using namespace cafeq;
using detail::balance_grams;
using namespace cafeq::test;

namespace {

Matrix<float> skewed(Index rows, Index cols, std::uint64_t seed, double decay) {
  auto F = gaussian(rows, cols, seed);
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < cols; ++j) F(i, j) *= float(std::pow(decay, double(i)));
  const auto Q = linalg::random_orthogonal(rows, CounterRng(seed));
  const auto wide = to_matrix<double>(F.view());
  const auto turned = linalg::product(Q.view(), wide.view());
  return to_matrix<float>(turned.view());
}

/// The balanced factors, in fp64.
std::pair<Matrix<double>, Matrix<double>> balanced(View<const float> first,
                                                   View<const float> second,
                                                   const HeadTransform& M) {
  auto f = to_matrix<double>(first), s = to_matrix<double>(second);
  M.apply_first(f.view());
  M.apply_second(s.view());
  return {f, s};
}

bool finite(const HeadTransform& M) {
  for (Index kv = 0; kv < M.layout().kv_heads; ++kv)
    for (Index i = 0; i < M.layout().head_dim; ++i)
      for (Index j = 0; j < M.layout().head_dim; ++j)
        if (!std::isfinite(M.matrix(kv)(i, j)) || !std::isfinite(M.inverse(kv)(i, j))) return false;
  return true;
}

}  // namespace

TEST_CASE("balance finds the singular values of the product", "[balance]") {
  const auto json = golden("pair.json");
  const auto X1 = golden_matrix(json["X1"]), X2 = golden_matrix(json["X2"]);  // P = X1 X2ᵀ
  const auto G1 = kernel::gram<double>(X1.view()), G2 = kernel::gram<double>(X2.view());
  const auto head = balance_grams(G1.view(), G2.view());
  for (std::size_t i = 0; i < 4; ++i)
    CHECK(head.singular_values[i] == Approx(json["sing"][i].get<double>()).epsilon(1e-9));
  const auto identity = identity_matrix<double>(4);
  CHECK(distance(identity, linalg::product(head.M.view(), head.inverse.view())) < 1e-12);
  // Both balanced Gram matrices are diag(S).
  const HeadLayout layout{.head_dim = 4};
  const auto M = balance(X1.view().transposed(), X2.view().transposed(), layout);
  auto f = to_matrix<double>(X1.view().transposed()), s = to_matrix<double>(X2.view().transposed());
  M.apply_first(f.view());
  M.apply_second(s.view());
  for (const auto& F : {f, s}) {
    const auto G = kernel::gram<double>(F.view().transposed());
    for (Index i = 0; i < 4; ++i)
      for (Index j = 0; j < 4; ++j)
        CHECK(G(i, j) == Approx(i == j ? head.singular_values[std::size_t(i)] : 0.0).margin(1e-9));
  }
}

TEST_CASE("balanced factors have equal Gram matrices, turned by M0", "[balance]") {
  for (const HeadLayout layout :
       {HeadLayout{.head_dim = 8, .heads = 2}, HeadLayout{.head_dim = 6, .heads = 6, .kv_heads = 2},
        HeadLayout{.head_dim = 1, .heads = 3}}) {
    const auto first = gaussian(layout.heads * layout.head_dim, 40, 1, 30.0),
               second = gaussian(layout.kv_heads * layout.head_dim, 25, 2, 0.01);
    const auto M0 = linalg::random_orthogonal(layout.head_dim, CounterRng(9));
    const auto plain = balance(first.view(), second.view(), layout);
    const auto turned = balance(first.view(), second.view(), layout, M0.view());
    const auto [f, s] = balanced(first.view(), second.view(), turned);
    const auto grams = detail::pair_grams(f.view(), s.view(), layout, {});
    for (Index kv = 0; kv < layout.kv_heads; ++kv) {
      CHECK(distance(grams.first[std::size_t(kv)], grams.second[std::size_t(kv)]) < 1e-9);
      const auto expected = linalg::product(M0.view().transposed(), plain.matrix(kv));
      CHECK(distance(expected, to_matrix<double>(turned.matrix(kv))) < 1e-12);
    }
    CHECK(pair_error(first, second, f, s, layout) < 1e-14);
  }
}

TEST_CASE("skewed spectra keep the product in single precision", "[balance]") {
  const HeadLayout layout{.head_dim = 16};
  for (const double decay : {0.7, 0.3, 0.1}) {
    const auto first = skewed(16, 60, 1, decay), second = skewed(16, 50, 2, decay);
    const auto M = balance(first.view(), second.view(), layout);
    REQUIRE(finite(M));
    auto f = first, s = second;
    M.apply_first(f.view());
    M.apply_second(s.view());
    CHECK(pair_error(first, second, f, s, layout) < 1e-12);
  }
}

TEST_CASE("factors that lack rank still give an invertible M", "[balance]") {
  const HeadLayout layout{.head_dim = 8, .heads = 2, .kv_heads = 1};
  auto full = gaussian(16, 40, 1), second = gaussian(8, 30, 2);
  const Matrix<float> none1(16, 40), none2(8, 30);
  auto zero_row = second;
  for (Index j = 0; j < 30; ++j) zero_row(3, j) = 0;
  auto rank_one = second;
  for (Index i = 0; i < 8; ++i)
    for (Index j = 0; j < 30; ++j) rank_one(i, j) = float(i + 1) * second(0, j);
  auto disjoint1 = full, disjoint2 = second;  // no product at all
  for (Index i = 0; i < 16; ++i)
    for (Index j = 0; j < 40; ++j) disjoint1(i, j) *= i % 8 < 4 ? 1.0f : 0.0f;
  for (Index i = 0; i < 4; ++i)
    for (Index j = 0; j < 30; ++j) disjoint2(i, j) = 0;
  const auto narrow = gaussian(8, 3, 4), narrow_first = gaussian(16, 3, 5),
             huge = gaussian(8, 30, 6, 1e30), tiny = gaussian(16, 40, 7, 1e-30);
  const std::vector<std::pair<const Matrix<float>*, const Matrix<float>*>> cases{
      {&none1, &second},  {&full, &none2},          {&none1, &none2},
      {&full, &zero_row}, {&full, &rank_one},       {&disjoint1, &disjoint2},
      {&full, &narrow},   {&narrow_first, &second}, {&narrow_first, &narrow},
      {&tiny, &huge},     {&tiny, &second}};
  for (const auto& [a, b] : cases) {
    const auto M = balance(a->view(), b->view(), layout);
    REQUIRE(finite(M));
    CHECK(distance(identity_matrix<double>(8), linalg::product(M.matrix(0), M.inverse(0))) < 1e-5);
    const auto [f, s] = balanced(a->view(), b->view(), M);
    CHECK(dense_pair_error<double>(a->view(), b->view(), f.view(), s.view(), layout) < 1e-12);
    const auto D = balance_diagonal(a->view(), b->view(), layout);
    CHECK(finite(D));
    CHECK(D.is_diagonal());
  }
}

TEST_CASE("the diagonal balance equalises corresponding rows", "[balance]") {
  const HeadLayout layout{.head_dim = 5, .heads = 4, .kv_heads = 2};
  const auto first = gaussian(20, 31, 1, 7.0), second = gaussian(10, 12, 2, 0.1);
  const auto M = balance_diagonal(first.view(), second.view(), layout);
  const auto [f, s] = balanced(first.view(), second.view(), M);
  const auto grams = detail::pair_grams(f.view(), s.view(), layout, {});
  for (std::size_t kv = 0; kv < 2; ++kv)
    for (Index i = 0; i < 5; ++i) CHECK(grams.first[kv](i, i) == Approx(grams.second[kv](i, i)));
  // In one dimension there is nothing but the diagonal (the full balance may flip a sign).
  const HeadLayout channels = channel_layout(9);
  const auto a = gaussian(9, 20, 3, 5.0), b = gaussian(9, 30, 4);
  const auto full = balance(a.view(), b.view(), channels),
             diagonal = balance_diagonal(a.view(), b.view(), channels);
  for (Index c = 0; c < 9; ++c)
    CHECK(std::abs(full.matrix(c)(0, 0)) == Approx(diagonal.matrix(c)(0, 0)));
}

TEST_CASE("balance does not depend on threads", "[balance]") {
  const HeadLayout layout{.head_dim = 6, .heads = 8, .kv_heads = 4};
  const auto first = gaussian(48, 40, 1), second = gaussian(24, 70, 2);
  const auto M = balance(first.view(), second.view(), layout),
             D = balance_diagonal(first.view(), second.view(), layout);
  for (const Index threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    const auto pooled = balance(first.view(), second.view(), layout, {}, {}, pool);
    const auto diagonal = balance_diagonal(first.view(), second.view(), layout, pool);
    for (Index kv = 0; kv < 4; ++kv) {
      CHECK(relative_error<double, double>(M.matrix(kv), pooled.matrix(kv)) == 0.0);
      CHECK(relative_error<double, double>(D.matrix(kv), diagonal.matrix(kv)) == 0.0);
    }
  }
}

TEST_CASE("bad input of balance", "[balance]") {
  const HeadLayout layout{.head_dim = 4};
  auto first = gaussian(4, 5, 1);
  const auto second = gaussian(4, 6, 2), M0 = gaussian(3, 3, 3);
  const auto wide_M0 = to_matrix<double>(M0.view());
  CHECK(raises(ErrorCode::invalid_shape, "M0: 3 x 3",
               [&] { balance(first.view(), second.view(), layout, wide_M0.view()); }));
  CHECK(raises(ErrorCode::invalid_argument, "floor",
               [&] { balance(first.view(), second.view(), layout, {}, {.floor = 0}); }));
  CHECK(raises(ErrorCode::invalid_shape, "second: 3 rows",
               [&] { balance(first.view(), M0.view(), layout); }));
  first(2, 1) = INFINITY;
  CHECK(raises(ErrorCode::non_finite, "first: row 2, column 1",
               [&] { balance(first.view(), second.view(), layout); }));
  CHECK(raises(ErrorCode::non_finite, "first",
               [&] { balance_diagonal(first.view(), second.view(), layout); }));
}

TEST_CASE("a floor that is no part of the largest singular value", "[balance]") {
  CHECK_FALSE(BalanceOptions{}.fault());
  CHECK_FALSE(BalanceOptions{.floor = 1}.fault());
  for (const double floor : {0.0, -1.0, 1.5, std::numeric_limits<double>::quiet_NaN()}) {
    const auto fault = BalanceOptions{.floor = floor}.fault();
    REQUIRE(fault);
    CHECK(fault->code() == ErrorCode::invalid_argument);
    CHECK(fault->message() == message("floor: ", floor, ", must be in (0, 1]"));
  }
}
