#include "cafeq/transform/blocks.hpp"

#include <numeric>

#include "laws.hpp"

using namespace cafeq;
using namespace cafeq::test;
using Sizes = std::vector<Index>;

TEST_CASE("uneven blocks: the block size, then its halves, largest first") {
  CHECK(uneven_blocks(172, 128) == Sizes{128, 32, 8, 4});
  CHECK(uneven_blocks(128, 64) == Sizes{64, 64});
  CHECK(uneven_blocks(7, 64) == Sizes{4, 2, 1});
  CHECK(uneven_blocks(28, 12) == Sizes{12, 12, 3, 1});
  CHECK(uneven_blocks(5, 1) == Sizes{1, 1, 1, 1, 1});
  CHECK(uneven_blocks(0, 64).empty());
  for (Index dim = 0; dim < 300; ++dim)
    for (Index block = 1; block < 70; ++block) {
      const auto sizes = uneven_blocks(dim, block);
      REQUIRE(std::accumulate(sizes.begin(), sizes.end(), Index(0)) == dim);
      REQUIRE(std::is_sorted(sizes.rbegin(), sizes.rend()));
    }
  check_error([] { (void)uneven_blocks(8, 0); }, ErrorCode::invalid_argument, "block is 0");
  check_error([] { (void)uneven_blocks(-8, 4); }, ErrorCode::invalid_shape, "dim is -8");
}
