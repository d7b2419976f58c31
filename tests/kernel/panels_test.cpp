#include "cafeq/kernel/panels.hpp"

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

namespace {

template <class T, class U>
void check_panels(Index rows, Index cols) {
  constexpr Index width = kernel::panel_width<T>;
  const auto B = test::gaussian<U>(rows, 2 * cols, 31);
  const View<const U> views[] = {B.view().col_block(0, cols),
                                 View<const U>{B.data(), rows, cols, 2 * cols, 2},
                                 View<const U>{B.data(), rows, cols, 1, rows}};
  for (const auto& b : views) {
    INFO(rows << " x " << cols << ", strides " << b.row_stride << " and " << b.col_stride);
    const auto before = test::gaussian<T>(rows, cols + width, 32);
    kernel::PackedMatrix<T> packed(before.view());
    packed.assign(b);  // over what was there
    const auto panels = packed.panels();
    REQUIRE(panels.rows == rows);
    REQUIRE(panels.cols == cols);
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < ceil_div(cols, width) * width; ++j)
        REQUIRE(*panels.at(i, j) == (j < cols ? T(b(i, j)) : T(0)));
  }
}

}  // namespace

TEST_CASE("panels hold a matrix a cache line of columns at a time, filled up with zeros",
          "[kernel][panels]") {
  for (const auto& [rows, cols] :
       {std::pair<Index, Index>{0, 5}, {1, 1}, {7, 16}, {17, 8}, {33, 37}, {64, 64}}) {
    check_panels<float, float>(rows, cols);
    check_panels<float, double>(rows, cols);
    check_panels<double, double>(rows, cols);
    check_panels<double, float>(rows, cols);
  }
}

TEST_CASE("panels are packed without allocating again", "[kernel][panels]") {
  const auto B = test::gaussian(40, 40, 2);
  kernel::PackedMatrix<float> packed(B.view());
  CHECK(test::allocations_of([&] {
          packed.assign(B.view());
          packed.assign(B.view().block(0, 0, 40, 33));
        }) == 0);
}
