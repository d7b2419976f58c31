#include "cafeq/kernel/line_layout.hpp"

#include <numeric>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

TEST_CASE("Rows into lines and codes back, whatever the size and the strides") {
  for (const Index m : {1, 7, 8, 17, 33, 64})
    for (const Index n : {1, 7, 16, 33, 129}) {
      INFO(m << " rows of " << n);
      const auto wide = test::gaussian<float>(m, n + 5, 3);
      Matrix<float> lines(n, m + 2);
      kernel::rows_to_lines(wide.view().col_block(3, n), lines.view().col_block(1, m));
      for (Index j = 0; j < n; ++j) {
        REQUIRE((lines(j, 0) == 0 && lines(j, m + 1) == 0));
        for (Index i = 0; i < m; ++i) REQUIRE(lines(j, 1 + i) == wide(i, 3 + j));
      }
      const Index stride = m + 9;
      std::vector<std::uint8_t> codes(std::size_t(n * stride)), out(std::size_t(m * (n + 1)), 77);
      std::iota(codes.begin(), codes.end(), std::uint8_t(0));
      kernel::lines_to_rows(codes.data(), stride, n, m,
                            [&](Index l) { return out.data() + l * (n + 1); });
      for (Index i = 0; i < m; ++i) {
        for (Index j = 0; j < n; ++j)
          REQUIRE(int(out[std::size_t(i * (n + 1) + j)]) ==
                  int(codes[std::size_t(j * stride + i)]));
        REQUIRE(int(out[std::size_t(i * (n + 1) + n)]) == 77);
      }
    }
}
