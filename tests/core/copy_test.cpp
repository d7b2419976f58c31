#include "cafeq/core/copy.hpp"

#include "cafeq/core/matrix.hpp"
#include "support/error_of.hpp"

using namespace cafeq;
using test::error_of;

TEST_CASE("copy converts between element types and memory orders", "[core][copy]") {
  for (const Index rows : {0, 1, 7, 17, 33})
    for (const Index cols : {1, 15, 16, 17, 129}) {
      CAPTURE(rows, cols);
      Matrix<float> from(rows, cols);
      for (Index i = 0; i < from.size(); ++i) from.data()[i] = float(i) * 0.37f - 3.0f;
      Matrix<float> same(rows, cols), turned(cols, rows);
      Matrix<fp16> half(rows, cols);
      Matrix<double> wide(cols, rows);
      copy(from.view(), same.view());
      copy(from.view(), turned.view().transposed());
      copy(from.view(), half.view());
      copy(from.view().transposed(), wide.view());
      bool right = true;
      for (Index i = 0; i < rows; ++i)
        for (Index j = 0; j < cols; ++j)
          right = right && same(i, j) == from(i, j) && turned(j, i) == from(i, j) &&
                  half(i, j).bits == fp16(from(i, j)).bits && wide(j, i) == double(from(i, j));
      CHECK(right);
    }
  Matrix<double> precise(1, 1), kept(1, 1);
  precise(0, 0) = 0.1;
  copy(precise.view(), kept.view());
  CHECK(kept(0, 0) == 0.1);
  Matrix<float> narrow(1, 2);
  CHECK(error_of([&] { copy(precise.view(), narrow.view()); }).message() ==
        "from is 1 x 1 but to is 1 x 2");
}
