#include "cafeq/core/scan.hpp"

#include <limits>

#include "cafeq/core/thread_pool.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

namespace {

template <class T>
void check_against_loops(Index rows, Index cols) {
  Matrix<T> W(rows, 2 * cols);
  const auto source = test::gaussian(rows, 2 * cols, 7);
  copy(source.view(), W.view());
  const auto check = [](View<const T> view) {
    CAPTURE(view.rows, view.cols, view.row_stride, view.col_stride);
    double largest = 0;
    bool constant = view.size() > 1 && double(view(0, 0)) != 0;
    for (Index i = 0; i < view.rows; ++i)
      for (Index j = 0; j < view.cols; ++j) {
        largest = std::max(largest, std::abs(double(view(i, j))));
        constant = constant && double(view(i, j)) == double(view(0, 0));
      }
    const detail::WeightScan scan = detail::scan_weights(view);
    CHECK(scan.largest == largest);
    CHECK(scan.finite);
    CHECK(scan.constant == constant);
    CHECK(largest_magnitude(view) == largest);
    CHECK(detail::is_constant(view) == constant);
  };
  const View<const T> all = std::as_const(W).view();
  check(all);
  check(all.transposed());
  check(all.col_block(1, cols));
  check({all.data + 2 * cols - 1, rows, cols, 2 * cols, -2});
  check(all.row_block(0, 1));
  check(all.block(0, 0, 1, 1));

  // Elements that break the rule, wherever they lie.
  using Limits = std::numeric_limits<float>;
  for (const Index at : {Index(0), rows * cols / 2, W.size() - 1}) {
    CAPTURE(at);
    const T kept = W.data()[at];
    for (const float bad :
         {Limits::infinity(), -Limits::infinity(), Limits::quiet_NaN(), -Limits::quiet_NaN()}) {
      W.data()[at] = T(bad);
      CHECK_FALSE(detail::scan_weights(all).finite);
      CHECK_FALSE(std::isfinite(detail::scan_weights(all).largest));
      CHECK_FALSE(detail::scan_weights(all.transposed()).finite);
      CHECK_FALSE(detail::scan_weights(all).constant);
    }
    W.data()[at] = kept;
  }
  for (Index i = 0; i < W.size(); ++i) W.data()[i] = T(-0.375f);
  check(all);
  if (W.size() > 1) {
    CHECK(detail::scan_weights(all).constant);
    W.data()[W.size() - 1] = T(0.375f);
    check(all);
    W.data()[W.size() - 1] = T(0.0f);
    check(all);
  }
  for (Index i = 0; i < W.size(); ++i) W.data()[i] = T(0.0f);
  check(all);
  W.data()[0] = T(-0.0f);
  check(all);
}

}  // namespace

TEST_CASE("scanning finds what plain loops find, in every element type and layout",
          "[core][scan]") {
  for (const auto& [rows, cols] :
       {std::pair<Index, Index>{1, 1}, {1, 7}, {7, 1}, {5, 17}, {33, 129}}) {
    check_against_loops<float>(rows, cols);
    check_against_loops<double>(rows, cols);
    check_against_loops<bf16>(rows, cols);
    check_against_loops<fp16>(rows, cols);
  }
}

TEST_CASE("an empty view is finite and not constant", "[core][scan]") {
  for (const auto& [rows, cols] : {std::pair<Index, Index>{0, 0}, {0, 5}, {5, 0}}) {
    const Matrix<float> W(rows, cols);
    const detail::WeightScan scan = detail::scan_weights(W.view());
    CHECK((scan.largest == 0 && scan.finite && !scan.constant));
  }
}

TEST_CASE("values of the ends of each type's range", "[core][scan]") {
  Matrix<double> wide(1, 3);
  wide(0, 1) = -std::numeric_limits<double>::max();
  wide(0, 2) = std::numeric_limits<double>::denorm_min();
  CHECK(detail::scan_weights(wide.view()).largest == std::numeric_limits<double>::max());
  CHECK(detail::scan_weights(wide.view()).finite);
  wide(0, 1) = 0;
  CHECK(detail::scan_weights(wide.view()).largest == std::numeric_limits<double>::denorm_min());
  Matrix<fp16> half(2, 1);
  half(0, 0) = fp16(-65504.0f);
  CHECK(detail::scan_weights(half.view()).largest == 65504);
  // All NaN of the same bits: neither finite nor constant.
  half(0, 0) = half(1, 0) = fp16(std::numeric_limits<float>::quiet_NaN());
  CHECK((!detail::scan_weights(half.view()).finite && !detail::scan_weights(half.view()).constant));
}

TEST_CASE("the chunks of a scan meet, for any number of threads", "[core][scan]") {
  auto W = test::gaussian(300, 2000, 3);  // three chunks
  for (const Index at : {0L, 299999L, 599999L}) {
    const float kept = W.data()[at];
    W.data()[at] = -9.5f;
    for (const Index threads : {1, 2, 3}) {
      ThreadPool pool(threads);
      CHECK(detail::scan_weights(W.view(), pool).largest == 9.5);
      CHECK(detail::scan_weights(W.view().col_block(0, 2000), pool).finite);
    }
    W.data()[at] = std::numeric_limits<float>::infinity();
    CHECK_FALSE(detail::scan_weights(W.view()).finite);
    W.data()[at] = kept;
  }
  for (Index i = 0; i < W.size(); ++i) W.data()[i] = 2.0f;
  CHECK(detail::scan_weights(W.view()).constant);
  W.data()[599999] = 3.0f;
  CHECK_FALSE(detail::scan_weights(W.view()).constant);
}
