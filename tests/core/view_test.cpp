#include "cafeq/core/view.hpp"

#include <type_traits>

#include "cafeq/core/matrix.hpp"
#include "support/catch.hpp"

using namespace cafeq;

// Elements may become const, never the other way round.
static_assert(std::is_convertible_v<View<float>, View<const float>> &&
              !std::is_convertible_v<View<const float>, View<float>>);
static_assert(std::is_convertible_v<VectorView<float>, VectorView<const float>> &&
              !std::is_convertible_v<VectorView<const float>, VectorView<float>>);

TEST_CASE("blocks, rows and transposes of a view", "[core][view]") {
  Matrix<float> m(7, 9);
  for (Index i = 0; i < m.size(); ++i) m.data()[i] = float(i);
  const View<float> view = m.view();
  CHECK(view.block(2, 3, 4, 5)(1, 1) == m(3, 4));
  CHECK(view.row_block(2, 3)(1, 1) == m(3, 1));
  CHECK(view.col_block(2, 3)(1, 1) == m(1, 3));
  CHECK(view.transposed()(4, 3) == m(3, 4));
  CHECK(view.transposed().block(1, 2, 3, 4)(1, 1) == m(3, 2));
  CHECK(view.row(3)[4] == m(3, 4));
  CHECK(view.row(3).size() == 9);
  CHECK(view.size() == 63);
  CHECK(view.block(2, 3, 0, 5).empty());
  CHECK(view.col_block(0, 8).rows_contiguous());
  CHECK_FALSE(view.col_block(0, 8).contiguous());
  CHECK(view.row_block(3, 1).contiguous());
  CHECK(view.col_block(3, 1).rows_contiguous());
  CHECK(&view.transposed().as_const()(4, 3) == &m(3, 4));
  static_assert(std::is_same_v<decltype(view.as_const()), View<const float>> &&
                std::is_same_v<decltype(view.as_const().as_const()), View<const float>>);
}
