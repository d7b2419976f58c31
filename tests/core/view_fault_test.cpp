#include "cafeq/core/view_fault.hpp"

#include <limits>
#include <vector>

#include "cafeq/core/matrix.hpp"
#include "support/error_of.hpp"

using namespace cafeq;
using test::error_of;

TEST_CASE("check_view accepts what does not overlap", "[core][view_fault]") {
  std::vector<float> data(100);
  float* p = data.data();
  const auto accepted = [&](Index rows, Index cols, Index row_stride, Index col_stride) {
    const View<float> view{p + 50, rows, cols, row_stride, col_stride};
    check_view(view, "W");
    return !view_fault(view, "W").has_value();
  };
  CHECK(accepted(3, 4, 4, 1));
  CHECK(accepted(3, 4, 1, 3));
  CHECK(accepted(3, 4, -4, -1));
  CHECK(accepted(3, 4, 8, 2));
  CHECK(accepted(1, 4, 0, 1));
  CHECK(accepted(4, 1, 1, 0));
  CHECK(accepted(1, 1, 0, 0));
  CHECK(accepted(0, 4, 0, 0));
  check_view(View<float>{nullptr, 0, 4, 4, 1}, "W");
}

TEST_CASE("check_view names the argument and what is wrong with it", "[core][view_fault]") {
  std::vector<float> data(100);
  const auto fault = [&](View<float> view) { return error_of([&] { check_view(view, "Wq"); }); };
  for (const auto& [row_stride, col_stride] :
       {std::pair<Index, Index>{3, 1}, {0, 1}, {1, 1}, {4, 0}, {1, 2}, {-3, 1}, {-1, -1}, {6, 2}}) {
    CAPTURE(row_stride, col_stride);
    const Error error = fault({data.data() + 50, 3, 4, row_stride, col_stride});
    CHECK(error.code() == ErrorCode::invalid_stride);
    CHECK(error.message() ==
          message("Wq: elements overlap: 3 x 4 with strides ", row_stride, " and ", col_stride));
  }
  CHECK(fault({nullptr, 3, 4, 4, 1}).message() == "Wq: no data for 3 x 4");
  CHECK(fault({nullptr, 3, 4, 4, 1}).code() == ErrorCode::invalid_stride);
  CHECK(fault({data.data(), -3, 4, 4, 1}).message() == "Wq: negative size -3 x 4");
  CHECK(fault({data.data(), 3, -4, 4, 1}).code() == ErrorCode::invalid_shape);
}

TEST_CASE("check_same_shape names both", "[core][view_fault]") {
  const View<const float> a{nullptr, 2, 3, 3, 1};
  const View<double> b{nullptr, 3, 2, 2, 1};
  check_same_shape(a, "a", b.transposed(), "b");
  const Error error = error_of([&] { check_same_shape(a, "W", b, "out"); });
  CHECK(error.code() == ErrorCode::invalid_shape);
  CHECK(error.message() == "W is 2 x 3 but out is 3 x 2");
}

TEMPLATE_TEST_CASE("check_finite names row and column", "[core][view_fault]", float, double, bf16,
                   fp16) {
  Matrix<TestType> m(5, 7);
  check_finite(m.view(), "W");
  m(3, 4) = TestType(std::numeric_limits<float>::infinity());
  const Error error = error_of([&] { check_finite(m.view(), "W"); });
  CHECK(error.code() == ErrorCode::non_finite);
  CHECK(error.message() == "W: row 3, column 4 is inf");
  m(1, 6) = TestType(std::numeric_limits<float>::quiet_NaN());
  CHECK_THAT(error_of([&] { check_finite(m.view(), "W"); }).message(),
             Contains("W: row 1, column 6 is") && Contains("nan"));
  CHECK_THAT(error_of([&] { check_finite(m.view().transposed(), "W"); }).message(),
             Contains("W: row 4, column 3 is inf"));
  check_finite(m.view().row_block(4, 1), "W");
}
