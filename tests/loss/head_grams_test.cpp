#include "cafeq/loss/head_grams.hpp"

#include "cafeq/core/thread_pool.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

namespace {

/// F_h F_hᵀ by loops, each element one chain of fused multiply-adds.
Matrix<double> reference(View<const float> head) {
  Matrix<double> gram(head.rows, head.rows);
  for (Index i = 0; i < head.rows; ++i)
    for (Index j = 0; j < head.rows; ++j)
      for (Index c = 0; c < head.cols; ++c)
        gram(i, j) = std::fma(double(head(i, c)), double(head(j, c)), gram(i, j));
  return gram;
}

}  // namespace

TEST_CASE("Gram matrices of heads are chains of fused multiply-adds", "[loss][head_grams]") {
  for (const Index d : {1, 3, 16, 33, 130})
    for (const Index n : {0, 1, 17, 129}) {
      constexpr Index heads = 3;
      const auto F = test::gaussian(heads * d, n, 5);
      Matrix<float> turned(n, heads * d);
      copy(F.view(), turned.view().transposed());
      ThreadPool pool(2);
      const auto grams = detail::head_grams(F.view(), heads, {});
      const auto of_transposed =
          detail::head_grams(std::as_const(turned).view().transposed(), heads, pool);
      bool same = true;
      for (Index h = 0; h < heads; ++h) {
        const auto expected = reference(F.view().row_block(h * d, d));
        for (Index i = 0; i < d * d; ++i)
          same = same && grams[std::size_t(h)].data()[i] == expected.data()[i] &&
                 of_transposed[std::size_t(h)].data()[i] == expected.data()[i];
      }
      CAPTURE(d, n);
      CHECK(same);
    }
}

TEST_CASE("a Gram matrix is the cross Gram matrix of a head with itself", "[loss][head_grams]") {
  for (const Index d : {1, 5, 64}) {
    const Matrix<double> A = test::gaussian<double>(40, d, 7);
    const auto half = detail::head_gram(A.view());
    const auto full = detail::head_cross_gram(A.view(), A.view());
    CHECK(std::equal(half.data(), half.data() + half.size(), full.data()));
  }
}
