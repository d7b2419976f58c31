#include "cafeq/loss/pair_product.hpp"

#include <cmath>

#include "../pair/attention.hpp"
#include "cafeq/core/thread_pool.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace {

Matrix<float> perturbed(const Matrix<float>& F, double size, std::uint64_t seed) {
  auto result = F;
  const auto noise = gaussian(F.rows(), F.cols(), seed, size);
  for (Index i = 0; i < F.size(); ++i) result.data()[i] += noise.data()[i];
  return result;
}

}  // namespace

TEST_CASE("the pair error is that of the products", "[pair_product]") {
  for (const HeadLayout layout : layouts())
    for (const Index n : {Index(1), Index(17), Index(129)})
      for (const double size : {1.0, 1e-2, 1e-4}) {
        const auto first = gaussian(layout.heads * layout.head_dim, n, 1),
                   second = gaussian(layout.kv_heads * layout.head_dim, 33, 2);
        const auto h1 = perturbed(first, size, 3), h2 = perturbed(second, size, 4);
        const double expected =
            dense_pair_error<float>(first.view(), second.view(), h1.view(), h2.view(), layout);
        CHECK(pair_error(first, second, h1, h2, layout) == Approx(expected).epsilon(1e-10));
        CHECK(pair_error(first, second, first, h2, layout) ==
              Approx(dense_pair_error<float>(first.view(), second.view(), first.view(), h2.view(),
                                             layout))
                  .epsilon(1e-10));
      }
}

TEST_CASE("an output projection enters as a transposed view", "[pair_product]") {
  const HeadLayout layout{.head_dim = 5, .heads = 6, .kv_heads = 3};
  const auto Wo = gaussian(19, 30, 1), Wv = gaussian(15, 23, 2);
  const auto Wo_hat = perturbed(Wo, 0.1, 3), Wv_hat = perturbed(Wv, 0.1, 4);
  const double error =
      pair_error(Wo.view().transposed(), Wv, Wo_hat.view().transposed(), Wv_hat, layout);
  const double expected = dense_pair_error<float>(
      Wo.view().transposed(), Wv.view(), Wo_hat.view().transposed(), Wv_hat.view(), layout);
  CHECK(error == Approx(expected).epsilon(1e-10));
  const auto copied = to_matrix<float>(Wo.view().transposed());
  const auto copied_hat = to_matrix<float>(Wo_hat.view().transposed());
  CHECK(error == pair_error(copied, Wv, copied_hat, Wv_hat, layout));
}

TEST_CASE("errors far below the weights' precision do not cancel", "[pair_product]") {
  const HeadLayout layout{.head_dim = 4, .heads = 2};
  const auto first = gaussian<double>(8, 21, 1), second = gaussian<double>(8, 30, 2);
  auto hat = second;
  hat(3, 5) += 1e-12;  // the squared error relative to the product is below 1e-26
  double column = 0;
  for (Index j = 0; j < 21; ++j) column += first(3, j) * first(3, j);
  const double step = hat(3, 5) - second(3, 5);
  const PairProduct<double> product(first.view(), second.view(), layout);
  CHECK(product.squared_error(first.view(), hat.view()) ==
        Approx(column * step * step).epsilon(1e-12));
  CHECK(product.squared_error(first.view(), second.view()) == 0.0);
}

TEST_CASE("zero products and zero heads", "[pair_product]") {
  const HeadLayout layout{.head_dim = 3, .heads = 2, .kv_heads = 1};
  const Matrix<float> zero1(6, 4), zero2(3, 5);
  const auto first = gaussian(6, 4, 1), second = gaussian(3, 5, 2);
  CHECK(pair_error(zero1, second, zero1, second, layout) == 0.0);
  CHECK(std::isinf(pair_error(zero1, second, first, second, layout)));
  CHECK(pair_error(first, second, zero1, second, layout) == Approx(1.0));
  auto nan = first;
  nan(1, 1) = NAN;
  CHECK(std::isnan(pair_error(first, second, nan, second, layout)));
  CHECK(std::isnan(pair_error(zero1, zero2, nan, zero2, layout)));
}

TEST_CASE("the pair error does not depend on threads", "[pair_product]") {
  const HeadLayout layout{.head_dim = 3, .heads = 12, .kv_heads = 4};
  const auto first = gaussian(36, 70, 1), second = gaussian(12, 40, 2);
  const auto h1 = perturbed(first, 0.1, 3), h2 = perturbed(second, 0.1, 4);
  const double inlined = pair_error(first, second, h1, h2, layout);
  for (const Index threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    CHECK(pair_error(first, second, h1, h2, layout, pool) == inlined);
  }
}

TEST_CASE("factors that do not fit the layout are named", "[pair_product]") {
  const HeadLayout layout{.head_dim = 4, .heads = 4, .kv_heads = 2};
  const auto first = gaussian(16, 3, 1), second = gaussian(8, 3, 2), wrong = gaussian(15, 3, 3);
  CHECK(raises(ErrorCode::invalid_shape, "first: 15 rows, but heads * head_dim is 4 * 4 = 16",
               [&] { pair_error(wrong, second, wrong, second, layout); }));
  CHECK(raises(ErrorCode::invalid_shape, "second: 15 rows, but kv_heads * head_dim is 2 * 4 = 8",
               [&] { pair_error(first, wrong, first, wrong, layout); }));
  CHECK(raises(ErrorCode::invalid_shape, "first_hat",
               [&] { pair_error(first, second, wrong, second, layout); }));
  CHECK(raises(ErrorCode::invalid_shape, "second_hat",
               [&] { pair_error(first, second, first, wrong, layout); }));
}
