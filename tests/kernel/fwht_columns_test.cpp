#include "cafeq/kernel/fwht_columns.hpp"

#include <cstring>

#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace {

// Column by column, n rows at a time.
template <class T>
void reference(View<T> X, Index n, T scale, const T* before, const T* after) {
  std::vector<T> x;
  for (Index j = 0; j < X.cols; ++j)
    for (Index block = 0; block < X.rows; block += n) {
      x.clear();
      for (Index i = block; i < block + n; ++i) x.push_back(before ? X(i, j) * before[i] : X(i, j));
      kernel::fwht_reference(x.data(), n, scale);
      for (Index i = block; i < block + n; ++i)
        X(i, j) = x[std::size_t(i - block)] * (after ? after[i] : T(1));
    }
}

template <class T>
void check(Index n, Index blocks, Index cols, int flips) {
  INFO("n " << n << " blocks " << blocks << " columns " << cols << " flips " << flips);
  auto X = gaussian<T>(n * blocks + 1, cols + 3, 3);
  auto expected = X;
  const auto b = signs<T>(n * blocks, 1);
  const auto a = signs<T>(n * blocks, 2);
  const T* before = flips & 1 ? b.data() : nullptr;
  const T* after = flips & 2 ? a.data() : nullptr;
  kernel::fwht_columns(X.view().block(1, 2, n * blocks, cols), n, T(0.3), {before, after});
  reference(expected.view().block(1, 2, n * blocks, cols), n, T(0.3), before, after);
  REQUIRE(std::memcmp(X.data(), expected.data(), std::size_t(X.size()) * sizeof(T)) == 0);
}

}  // namespace

TEMPLATE_TEST_CASE("columns of a matrix get the bits of the reference", "", float, double) {
  for (const Index n : {1, 2, 4, 8, 16, 32, 64, 128})
    for (const Index cols : {0, 1, 7, 17, 33, 129})
      for (const int flips : {0, 1, 2, 3}) check<TestType>(n, 1, cols, flips);
  for (const Index n : {256, 512, 1024}) check<TestType>(n, 1, 37, 3);
  check<TestType>(16, 1, 300, 3);
  for (const Index n : {1, 2, 16, 64, 128}) check<TestType>(n, 3, 33, 3);
  check<TestType>(64, 0, 33, 3);
}

TEST_CASE("columns of many rows, in slabs") {
  check<double>(16384, 1, 65, 3);  // three sweeps of each of two slabs
}
