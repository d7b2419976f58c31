#include "cafeq/kernel/block_product.hpp"

#include <cstring>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace {

/// All of the storage, so that nothing beside X may change. Bits where the machine fuses
/// multiply-adds.
template <class T>
bool same(const Matrix<T>& a, const Matrix<T>& b) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return a.empty() || std::memcmp(a.data(), b.data(), std::size_t(a.size()) * sizeof(T)) == 0;
#else
  for (Index i = 0; i < a.size(); ++i)
    if (!(std::abs(a.data()[i] - b.data()[i]) <=
          T(4096) * std::numeric_limits<T>::epsilon() * (T(1) + std::abs(b.data()[i]))))
      return false;
  return true;
#endif
}

template <class T>
struct Scratch {
  explicit Scratch(Index n) : storage(std::size_t(n + 1), T(7)) {}
  operator std::span<T>() { return {storage.data(), storage.size() - 1}; }
  bool intact() const { return storage.back() == T(7); }
  std::vector<T> storage;
};

/// X [n, k] with contiguous rows, with contiguous columns, and with neither, among other elements.
template <class T>
View<T> place(Matrix<T>& storage, Index n, Index k, int layout) {
  if (layout == 0) {
    storage = gaussian<T>(n, k + 3, 2);
    return storage.view().col_block(1, k);
  }
  if (layout == 1) {
    storage = gaussian<T>(k, n + 5, 3);
    return storage.view().col_block(2, n).transposed();
  }
  storage = gaussian<T>(n, 2 * k + 1, 4);
  return {storage.data(), n, k, storage.cols(), 2};
}

}  // namespace

TEMPLATE_TEST_CASE("in-place products give the bits of the reference, whatever the strides", "",
                   float, double) {
  using T = TestType;
  for (const Index k : {1, 2, 7, 16, 17, 33, 64, 129, 300})
    for (const Index n : {0, 1, 7, 25, 67, 97}) {
      if (k > 33 && n != (k == 64 ? 67 : 7)) continue;
      Scratch<T> scratch(kernel::in_place_scratch<T>(k));
      Scratch<T> packed_scratch(kernel::packed_in_place_scratch<T>(k));
      const auto M = gaussian<T>(k, 2 * k, 1);
      const View<const T> factors[] = {M.view().col_block(0, k),
                                       M.view().col_block(0, k).transposed(),
                                       {M.data(), k, k, 2 * k, 2}};
      for (int f = 0; f < (k < 64 ? 3 : 1); ++f)
        for (int layout = 0; layout < 3; ++layout) {
          INFO("k " << k << " n " << n << " factor " << f << " layout " << layout);
          Matrix<T> expected;
          Matrix<T> actual;
          kernel::multiply_right_in_place_reference<T>(place(expected, n, k, layout), factors[f]);
          kernel::multiply_right_in_place<T>(place(actual, n, k, layout), factors[f], scratch);
          REQUIRE(same(actual, expected));
          kernel::multiply_right_in_place<T>(place(actual, n, k, layout),
                                             kernel::PackedMatrix<T>(factors[f]).panels(),
                                             packed_scratch);
          REQUIRE(same(actual, expected));
          kernel::multiply_left_in_place_reference<T>(factors[f],
                                                      place(expected, n, k, layout).transposed());
          kernel::multiply_left_in_place<T>(factors[f], place(actual, n, k, layout).transposed(),
                                            scratch);
          REQUIRE(same(actual, expected));
          REQUIRE(scratch.intact());
          REQUIRE(packed_scratch.intact());
        }
    }
}

TEST_CASE("a block-diagonal product is its blocks' products", "[kernel]") {
  const Index sizes[] = {64, 33, 16, 1, 7};
  std::vector<Matrix<float>> M;
  std::vector<kernel::PackedMatrix<float>> packed;
  for (const Index k : sizes) {
    M.push_back(gaussian<float>(k, k, std::uint64_t(k)));
    packed.emplace_back(M.back().view());
  }
  Scratch<float> scratch(kernel::packed_in_place_scratch<float>(64));
  for (const Index n : {0, 1, 191, 192, 250})
    for (int layout = 0; layout < 3; ++layout) {
      Matrix<float> expected;
      Matrix<float> actual;
      Index column = 0;
      const auto X = place(expected, n, 121, layout);
      for (std::size_t b = 0; b < M.size(); column += sizes[b++])
        kernel::multiply_right_in_place_reference<float>(X.col_block(column, sizes[b]),
                                                         M[b].view());
      const auto Y = place(actual, n, 121, layout);
      const auto block = [&](Index b) { return packed[std::size_t(b)].panels(); };
      CHECK(allocations_of(
                [&] { kernel::multiply_blocks_in_place<float>(Y, 5, block, scratch); }) == 0);
      CHECK(same(actual, expected));
      CHECK(scratch.intact());
    }
}
