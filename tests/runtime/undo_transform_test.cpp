#include "cafeq/runtime/undo_transform.hpp"

#include <vector>

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/transform/hadamard.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

namespace {

BlockDiagonal blocks_of(const std::vector<Index>& sizes, InversePrecision precision) {
  std::vector<Matrix<double>> N;
  for (const Index size : sizes) {
    N.push_back(test::gaussian<double>(size, size, std::uint64_t(N.size()) + 1,
                                       std::pow(10.0, double(N.size()) - 2)));
    for (Index j = 0; j < size; ++j)
      N.back()(j, j) += 3 * std::sqrt(double(size)) * std::pow(10.0, double(N.size()) - 3);
  }
  return BlockDiagonal::from_inverse(std::move(N), precision);
}

/// Against what the transform says in double.
template <Transform T>
void check_undone(const T& transform) {
  for (const Side side : {Side::input, Side::output})
    for (const Index count : {0, 1, 6}) {
      const auto X = test::gaussian<float>(count, transform.dim() + 2, 3);
      const auto inside = X.view().block(0, 1, count, transform.dim());
      auto expected = to_matrix<double>(inside);
      transform.apply(expected.view(), side == Side::input ? Op::inverse_transpose : Op::inverse);
      const double scale = largest_magnitude(std::as_const(expected).view());
      auto Y = to_matrix<float>(X.view());
      UndoTransform<T>(transform, side)(transform, Y.view().block(0, 1, count, transform.dim()),
                                        {});
      for (Index n = 0; n < count; ++n) {
        CHECK(Y(n, 0) == X(n, 0));
        CHECK(Y(n, transform.dim() + 1) == X(n, transform.dim() + 1));
        for (Index j = 0; j < transform.dim(); ++j)
          REQUIRE(double(Y(n, j + 1)) == Approx(expected(n, j)).margin(1e-6 * scale).epsilon(1e-5));
      }
      for (const Index threads : {2, 3}) {
        ThreadPool pool(threads);
        auto Z = to_matrix<float>(X.view());
        UndoTransform<T>(transform, side)(transform, Z.view().block(0, 1, count, transform.dim()),
                                          pool);
        REQUIRE(std::equal(Z.data(), Z.data() + Z.size(), Y.data()));
      }
    }
}

}  // namespace

TEST_CASE("what is undone is the stored inverse, on either side", "[runtime][undo_transform]") {
  for (const InversePrecision precision :
       {InversePrecision::fp32, InversePrecision::fp16, InversePrecision::int8})
    for (const auto& sizes : test::sweep<std::vector<Index>>(
             {{1}, {7, 33}, {64, 64, 32}, {160, 200, 160}}, {{1}, {7, 33}, {32, 32, 16}})) {
      Index dim = 0;
      for (const Index size : sizes) dim += size;
      const auto M = blocks_of(sizes, precision);
      check_undone(M);
      check_undone(Composed(Signs(dim, 3), M));
      check_undone(Composed(M, Hadamard(Signs(dim, 4))));
    }
}

TEST_CASE("transforms without a way of their own are applied", "[runtime][undo_transform]") {
  check_undone(Hadamard(Signs(96, 1)));
  check_undone(Identity::Fitted{10});
}
