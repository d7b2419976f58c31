#include "cafeq/kernel/line_products.hpp"

#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

TEST_CASE(
    "Sums of products of lines are exact to the last bit of double, in the order of the lines") {
  for (const Index n : {0, 1, 7, 64, 129})
    for (const Index m : {1, 7, 16, 33, 64}) {
      const auto wide = test::gaussian<float>(n, m + 3, 1);
      const auto B = test::gaussian<float>(n, m, 2, 1e3);
      const View<const float> A = wide.view().col_block(2, m);
      std::vector<double> sums(std::size_t(m), 0.25), expected = sums;
      kernel::add_line_products(A, B.view(), sums);
      kernel::add_line_products_reference(A, B.view(), expected);
      REQUIRE(sums == expected);
      const auto column = to_matrix<float>(A.col_block(0, 1).transposed());
      const std::span<const float> a(column.data(), std::size_t(n));
      kernel::add_line_products(a, B.view(), sums);
      kernel::add_line_products_reference({column.data(), n, m, 1, 0}, B.view(), expected);
      REQUIRE(sums == expected);
    }
}
