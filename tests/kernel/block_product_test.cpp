#include "cafeq/kernel/block_product.hpp"

#include <cstring>

#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace {

template <class T>
bool same(const Matrix<T>& a, const Matrix<T>& b) {
  return a.empty() || std::memcmp(a.data(), b.data(), std::size_t(a.size()) * sizeof(T)) == 0;
}

}  // namespace

TEMPLATE_TEST_CASE("in-place products give the bits of the reference, whatever the strides", "", float, double) {
  for (const Index k : {1, 2, 7, 16, 17, 33, 64, 129, 300})
    for (const Index n : {0, 1, 7, 24, 25, 97, 200}) {
      if (k == 300 && n > 97) continue;
      INFO("k " << k << " n " << n);
      std::vector<TestType> scratch(std::size_t(kernel::in_place_scratch<TestType>(k)));
      const auto M = gaussian<TestType>(k, k, 1);
      for (const bool turned : {false, true}) {
        const auto factor = turned ? M.view().transposed() : M.view();
        auto X = gaussian<TestType>(n, k + 3, 2);
        auto expected = X;
        kernel::multiply_right_in_place<TestType>(X.view().block(0, 1, n, k), factor, scratch);
        kernel::multiply_right_in_place_reference<TestType>(expected.view().block(0, 1, n, k), factor);
        REQUIRE(same(X, expected));
        auto Y = gaussian<TestType>(k + 2, n, 3);
        auto left = Y;
        kernel::multiply_left_in_place<TestType>(factor, Y.view().block(1, 0, k, n), scratch);
        kernel::multiply_left_in_place_reference<TestType>(factor, left.view().block(1, 0, k, n));
        REQUIRE(same(Y, left));
        // Columns of X far apart, rows close.
        kernel::multiply_right_in_place<TestType>(Y.view().block(0, 0, k, n).transposed(), factor, scratch);
        kernel::multiply_right_in_place_reference<TestType>(left.view().block(0, 0, k, n).transposed(), factor);
        REQUIRE(same(Y, left));
        kernel::multiply_left_in_place<TestType>(factor, X.view().block(0, 0, n, k).transposed(), scratch);
        kernel::multiply_left_in_place_reference<TestType>(factor, expected.view().block(0, 0, n, k).transposed());
        REQUIRE(same(X, expected));
      }
    }
}
