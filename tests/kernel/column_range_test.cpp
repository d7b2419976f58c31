#include "cafeq/kernel/column_range.hpp"

#include <vector>

#include "cafeq/kernel/columns.hpp"
#include "cafeq/kernel/row_range.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

TEST_CASE("column passes agree with their references", "[kernel][columns]") {
  for (const Index rows : {1, 7, 33})
    for (const Index cols : {1, 7, 8, 17, 129}) {
      const auto X = test::gaussian(rows, cols + 3, 5, 2.0);
      const auto view = X.view().col_block(1, cols);
      std::vector<float> peak(std::size_t(cols), 0.0f);
      peak[0] = 100.0f;  // peaks only grow
      kernel::column_absmax(View<const float>(view), peak.data());
      CHECK(peak[0] == 100.0f);
      peak[0] = 0.0f;
      kernel::column_absmax(View<const float>(view), peak.data());
      const auto check = [&](const auto& range) {
        std::vector<float> a(peak.size());
        std::vector<float> b(peak.size());
        std::vector<float> sum(peak.size(), 55.0f);
        for (std::size_t j = 0; j < peak.size(); ++j) {
          const auto column = to_matrix<float>(view.col_block(Index(j), 1));
          REQUIRE(peak[j] == kernel::row_peak_reference(column.data(), rows));
        }
        kernel::prepare_columns(range, peak.data(), cols, a.data(), b.data());
        CHECK((a[0] == range.prepare(peak[0]).a && b[0] == range.prepare(peak[0]).b));
        auto work = X;
        kernel::column_sums(range, work.view().col_block(1, cols), a.data(), b.data(), sum.data());
        std::vector<double> slope(static_cast<std::size_t>(rows));
        double worst = 0;
        for (Index j = 0; j < cols; ++j) {
          CHECK(double(sum[std::size_t(j)]) ==
                Approx(kernel::column_sum_reference(range, view, j, peak[std::size_t(j)],
                                                    slope.data()))
                    .epsilon(4e-6));
          for (Index i = 0; i < rows; ++i)
            worst = std::max(worst, std::abs(double(work(i, j + 1)) - slope[std::size_t(i)]));
        }
        CHECK(worst < 4e-6);
        for (Index i = 0; i < rows; ++i) {
          REQUIRE(work(i, 0) == X(i, 0));
          REQUIRE(work(i, cols + 1) == X(i, cols + 1));
        }
      };
      check(kernel::PowerRange(8));
      check(kernel::PowerRange(16));
      check(kernel::ExponentialRange(5));
    }
}

TEST_CASE("scaling of columns", "[kernel][columns]") {
  for (const Index rows : {1, 3, 4, 6})
    for (const Index n : {0, 1, 7, 17, 33, 129}) {
      const auto X = test::gaussian(rows, n + 1, 8);
      std::vector<float> c(static_cast<std::size_t>(n));
      for (Index j = 0; j < n; ++j) c[std::size_t(j)] = float(j) - 2.0f;
      auto work = X;
      kernel::scale_columns(work.view().col_block(0, n), c.data());
      for (Index i = 0; i < rows; ++i)
        for (Index j = 0; j <= n; ++j)
          REQUIRE(work(i, j) == (j < n ? X(i, j) * c[std::size_t(j)] : X(i, j)));
    }
}
