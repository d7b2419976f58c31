#include "cafeq/pair/head_transform.hpp"

#include <limits>

#include "attention.hpp"
#include "cafeq/core/thread_pool.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using namespace cafeq::test;

TEST_CASE("any M leaves every product unchanged", "[head_transform]") {
  for (const HeadLayout layout : layouts()) {
    const HeadTransform M(layout, random_stack(layout, 5));
    for (const Index n : {Index(0), Index(1), Index(65), Index(130)}) {
      const auto first = gaussian(layout.heads * layout.head_dim, n, 1),
                 second = gaussian(layout.kv_heads * layout.head_dim, 33, 2);
      auto f = first, s = second;
      M.apply_first(f.view());
      M.apply_second(s.view());
      if (n > 0) CHECK(pair_error(first, second, f, s, layout) < 1e-12);
      if (n > 0) CHECK(pair_error(first, second, f, second, layout) > 1e-3);
    }
  }
}

TEST_CASE("strided and transposed views get the same bits", "[head_transform]") {
  const HeadLayout layout{.head_dim = 7, .heads = 4, .kv_heads = 2};
  const HeadTransform M(layout, random_stack(layout, 5));
  auto dense = gaussian(28, 129, 1);
  auto transposed = to_matrix<float>(dense.view().transposed());
  Matrix<float> wide(28, 300);
  const View<float> strided{wide.data() + 3, 28, 129, 300, 2};
  copy(dense.view(), strided);
  M.apply_first(dense.view());
  M.apply_first(transposed.view().transposed());
  M.apply_first(strided);
  CHECK(relative_error<float, float>(dense.view(), transposed.view().transposed()) == 0.0);
  CHECK(relative_error<float, float>(dense.view(), strided) == 0.0);
  CHECK(wide(0, 2) == 0.0f);
  CHECK(wide(0, 4) == 0.0f);
}

TEST_CASE("threads, double and half precision", "[head_transform]") {
  const HeadLayout layout{.head_dim = 5, .heads = 2};
  const HeadTransform M(layout, random_stack(layout, 5));
  const auto F = gaussian(10, 200, 1);
  auto inlined = F;
  M.apply_second(inlined.view());
  for (const Index threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    auto pooled = F;
    M.apply_second(pooled.view(), pool);
    CHECK(relative_error<float, float>(inlined.view(), pooled.view()) == 0.0);
  }
  auto wide = to_matrix<double>(F.view());
  M.apply_second(wide.view());
  CHECK(relative_error<double, float>(wide.view(), inlined.view()) < 1e-14);
  auto half = to_matrix<bf16>(F.view());
  M.apply_second(half.view());
  CHECK(relative_error<float, bf16>(inlined.view(), half.view()) < 1e-4);
}

TEST_CASE("transforms compose and invert", "[head_transform]") {
  const HeadLayout layout{.head_dim = 6, .heads = 4, .kv_heads = 2};
  const HeadTransform A(layout, random_stack(layout, 1)), B(layout, random_stack(layout, 2));
  const auto F = gaussian<double>(12, 9, 3), G = gaussian<double>(24, 9, 4);
  auto one = F, both = F, g_one = G, g_both = G;
  A.apply_second(one.view());
  B.apply_second(one.view());
  A.then(B).apply_second(both.view());
  A.apply_first(g_one.view());
  B.apply_first(g_one.view());
  A.then(B).apply_first(g_both.view());
  CHECK(distance(one, both) < 1e-13);
  CHECK(distance(g_one, g_both) < 1e-13);
  for (Index kv = 0; kv < 2; ++kv)
    CHECK(distance(linalg::product(A.matrix(kv), A.inverse(kv)), identity_matrix<double>(6)) <
          1e-13);
  CHECK(HeadTransform(layout).is_diagonal());
  CHECK_FALSE(A.is_diagonal());
}

TEST_CASE("bad matrices are refused by name", "[head_transform]") {
  const HeadLayout layout{.head_dim = 3, .heads = 2};
  auto M = random_stack(layout, 1);
  for (Index j = 0; j < 3; ++j) M(4, j) = M(3, j);
  CHECK(raises(ErrorCode::singular, "KV head 1", [&] { HeadTransform(layout, M); }));
  M(5, 2) = std::numeric_limits<double>::quiet_NaN();
  CHECK(raises(ErrorCode::non_finite, "M: row 5, column 2", [&] { HeadTransform(layout, M); }));
  CHECK(raises(ErrorCode::invalid_shape, "M: 3 rows",
               [&] { HeadTransform(layout, gaussian<double>(3, 3, 1)); }));
  CHECK(raises(ErrorCode::invalid_shape, "M: 2 columns",
               [&] { HeadTransform(layout, gaussian<double>(6, 2, 1)); }));
  CHECK(raises(ErrorCode::invalid_shape, "next",
               [&] { HeadTransform(layout).then(HeadTransform({.head_dim = 4, .heads = 2})); }));
  Matrix<float> F(5, 2);
  CHECK(raises(ErrorCode::invalid_shape, "first: 5 rows",
               [&] { HeadTransform(layout).apply_first(F.view()); }));
  CHECK(raises(ErrorCode::invalid_shape, "second: 5 rows",
               [&] { HeadTransform(layout).apply_second(F.view()); }));
}
