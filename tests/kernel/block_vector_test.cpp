#include "cafeq/kernel/block_vector.hpp"

#include <array>
#include <vector>

#include "support/allocations.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;
using kernel::BlockPanels;

namespace {

template <class T>
BlockPanels<T> random_blocks(std::vector<Index> sizes, bool row_scales, bool column_scales) {
  BlockPanels<T> N(sizes);
  const CounterRng rng(3, 1);
  std::uint64_t at = 0;
  for (Index b = 0; b < N.blocks(); ++b)
    for (Index r = 0; r < N.size(b); ++r)
      for (Index c = 0; c < N.size(b); ++c) {
        if constexpr (std::is_same_v<T, std::int8_t>)
          N(b, r, c) = std::int8_t(Index(rng.below(at++, 255)) - 127);
        else N(b, r, c) = T(float(rng.normal(at++)));
      }
  for (Index j = 0; j < N.dim(); ++j) {
    if (row_scales) N.row_scales().push_back(float(rng.normal(at++)));
    if (column_scales) N.column_scales().push_back(float(rng.normal(at++)));
  }
  return N;
}

}  // namespace

TEMPLATE_TEST_CASE("blocks of any size times several vectors equal the chains of the reference",
                   "[kernel][block_vector]", float, fp16, std::int8_t) {
  const std::vector<std::vector<Index>> all_sizes = {
      {}, {1}, {7}, {17, 1, 33}, {64, 64, 32, 8, 4}, {128, 80}, {129}, {16, 48, 96}};
  for (const auto& sizes : all_sizes)
    for (const bool row_scales : {false, true})
      for (const bool column_scales : {false, true})
        for (const Index count : test::sweep<Index>({0, 1, 3, 4, 9}, {0, 1, 9})) {
          const auto N = random_blocks<TestType>(sizes, row_scales, column_scales);
          const Index stride = N.dim() + 3;
          auto X = test::gaussian<float>(count, stride, 9);
          auto expected = test::gaussian<float>(count, stride, 9);
          std::vector<float> scratch(std::size_t(kernel::block_multiply_scratch<TestType>(129)));
          const View<float> x = X.view().block(0, 1, count, N.dim());
          CHECK(test::allocations_of(
                    [&] { kernel::block_multiply(N, 0, N.blocks(), x, scratch); }) == 0);
          kernel::block_multiply_reference(N, expected.view().block(0, 1, count, N.dim()));
          if (std::equal(X.data(), X.data() + X.size(), expected.data())) continue;
          for (Index n = 0; n < count; ++n)
            for (Index j = 0; j < stride; ++j) {
              INFO("vector " << n << " entry " << j << " of " << N.dim());
              if constexpr (simd::has_fma<DefaultArch>) REQUIRE(X(n, j) == expected(n, j));
              else
                REQUIRE(double(X(n, j)) ==
                        Approx(double(expected(n, j))).margin(1e-2).epsilon(1e-4));
            }
        }
}

TEST_CASE("a block at a time is all of them", "[kernel][block_vector]") {
  const auto N = random_blocks<fp16>({64, 32, 17}, false, true);
  auto X = test::gaussian<float>(2, N.dim(), 4);
  auto Y = test::gaussian<float>(2, N.dim(), 4);
  std::vector<float> scratch(std::size_t(kernel::block_multiply_scratch<fp16>(64)));
  kernel::block_multiply(N, 0, 3, X.view(), scratch);
  for (const Index b : {2, 0, 1}) kernel::block_multiply(N, b, b + 1, Y.view(), scratch);
  CHECK(std::equal(X.data(), X.data() + X.size(), Y.data()));
}

TEST_CASE("an entry is kept in as many bytes as its type has", "[kernel][block_vector]") {
  const std::array<Index, 2> sizes{64, 64};
  CHECK(BlockPanels<float>(sizes).bytes() == 2 * 64 * 64 * 4);
  CHECK(BlockPanels<fp16>(sizes).bytes() == 2 * 64 * 64 * 2);
  CHECK(BlockPanels<std::int8_t>(sizes).bytes() == 2 * 64 * 64);
}
