#include "cafeq/rounding/strips.hpp"

#include <vector>

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/kernel/gram.hpp"
#include "cafeq/quant/affine.hpp"
#include "cafeq/rounding/error_feedback.hpp"
#include "cafeq/rounding/nearest.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/toy_quantizer.hpp"

using namespace cafeq;

namespace {

/// What writes the rows of X.
auto rows_of(const Matrix<float>& X) {
  return [&X](Index begin, View<float> out, ExecutorRef) {
    copy(X.view().row_block(begin, out.rows), out);
  };
}

/// A rounder that promises nothing about rows.
struct Coupled {
  template <class Q>
  void round(View<const float> X, const Metric&, Side, Encoding<Q>& encoding, ExecutorRef e) const {
    encoding.encode(X, e);
  }
};

}  // namespace

TEST_CASE("Strips cover the rows once, in order") {
  for (const Index rows : {1, 7, 16, 17, 33, 129})
    for (const Index step : {1, 5, 16, 200}) {
      INFO(rows << " rows in strips of " << step);
      const auto X = test::gaussian<float>(rows, 9, 1);
      rounding::Strips<Affine<3>> strips({.group = 4}, rows, 9, step);
      for (int pass = 0; pass < 2; ++pass) {
        Index covered = 0;
        strips.for_each(rows_of(X), {}, [&](Index begin, View<float> strip, const auto& encoding) {
          REQUIRE(begin == covered);
          REQUIRE(strip.rows == std::min(step, rows - begin));
          REQUIRE(encoding.rows() == strip.rows);
          for (Index i = 0; i < strip.rows; ++i)
            for (Index j = 0; j < 9; ++j) REQUIRE(strip(i, j) == X(begin + i, j));
          covered += strip.rows;
        });
        REQUIRE(covered == rows);
      }
    }
}

TEST_CASE("The first pass fits, later ones find the parameters that were left") {
  const auto X = test::gaussian<float>(37, 24, 2);
  Encoding<test::ToyMidrise> whole({.bits = 3, .group = 8}, 37, 24);
  whole.fit(X.view());
  for (const Index step : {5, 37}) {
    rounding::Strips<test::ToyMidrise> strips(whole.quantizer(), 37, 24, step);
    for (int pass = 0; pass < 3; ++pass)
      strips.for_each(rows_of(X), {}, [&](Index begin, View<float> strip, auto& encoding) {
        for (Index i = 0; i < strip.rows; ++i)
          for (Index j = 0; j < 24; j += 8) {
            float& scale = encoding.params(i, j).scale;
            REQUIRE(scale == float(1 << pass) * whole.params(begin + i, j).scale);
            scale *= 2;
          }
      });
    const auto params = std::move(strips).take_params();
    REQUIRE(params.size() == whole.all_params().size());
    for (std::size_t p = 0; p < params.size(); ++p)
      REQUIRE(params[p].scale == 8 * whole.all_params()[p].scale);
  }
}

TEST_CASE("Where rows depend on each other there is one strip") {
  const auto X = test::gaussian<float>(700, 4, 3);
  const auto strips_of = [&](const auto& rounder, Index group) {
    auto strips =
        rounding::Strips<Affine<2>>::for_rounder(rounder, Affine<2>{.group = group}, 700, 4, {});
    int count = 0;
    strips.for_each(rows_of(X), {}, [&](Index, View<float>, const auto&) { ++count; });
    return count;
  };
  CHECK(strips_of(Nearest{}, per_row) == 6);  // of 128 rows
  CHECK(strips_of(ErrorFeedback{}, 2) == 6);
  CHECK(strips_of(Nearest{}, per_tensor) == 1);
  CHECK(strips_of(Coupled{}, per_row) == 1);
}

TEST_CASE("Rows rounded strip by strip are those of the whole matrix, on any number of threads") {
  const auto X = test::heavy_tailed(1100, 40, 4, 0, 1000);
  const auto A = test::gaussian<float>(50, 40, 5);
  const Metric metric = Metric::dense(kernel::gram<float>(A.view()));
  const auto check = [&](const auto& quantizer, const auto& rounder) {
    const auto expected = round(rounder, X.view(), quantizer, metric).pack();
    for (const Index threads : {1, 2, 3}) {
      ThreadPool pool(threads);
      const auto codes =
          rounding::round_rows(rounder, quantizer, metric, X.rows(), rows_of(X), pool);
      REQUIRE(codes.rows() == 1100);
      Matrix<float> a(1100, 40), b(1100, 40);
      expected.decode_rows(0, a.view());
      codes.decode_rows(0, b.view());
      REQUIRE(std::equal(a.data(), a.data() + a.size(), b.data()));
    }
  };
  check(Affine<3>{.group = 16}, ErrorFeedback{});
  check(Affine<3>{.group = 16}, Nearest{});
  check(test::ToyMidrise{.bits = 4}, ErrorFeedback{.sweeps = 2});
}
