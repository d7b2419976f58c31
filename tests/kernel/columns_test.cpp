#include "cafeq/kernel/columns.hpp"

#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

namespace {

constexpr Index awkward[] = {1, 2, 7, 15, 16, 17, 33, 129};

template <class T>
void check_columns(View<const T> X) {
  CAPTURE(X.rows, X.cols, X.row_stride);
  const auto n = static_cast<std::size_t>(X.cols);
  // One more than there are columns, to see that nothing is written beyond them.
  std::vector<float> peak(n + 1, 0.25f), low(n + 1, 0.5f), high(n + 1, 0.75f),
      factor(static_cast<std::size_t>(X.rows));
  std::vector<double> sum(n + 1, 3.0), squares(n + 1, 5.0), plain_sum(n + 1), plain_squares(n + 1);
  for (std::size_t i = 0; i < factor.size(); ++i) factor[i] = 0.5f + float(i % 7) / 3;
  kernel::column_absmax(X, peak.data());
  kernel::column_ranges(X, low.data(), high.data());
  kernel::column_moments(X, factor.data(), sum.data(), squares.data());
  kernel::column_moments(X, nullptr, plain_sum.data(), plain_squares.data());
  bool right = true;
  for (std::size_t j = 0; j < n; ++j) {
    const kernel::Range range = kernel::column_range_reference(X, Index(j), {0.5f, 0.75f});
    right = right && peak[j] == kernel::column_absmax_reference(X, Index(j), 0.25f) &&
            low[j] == range.min && high[j] == range.max;
    const kernel::Moments scaled =
        kernel::column_moments_reference(X, factor.data(), Index(j), {3.0, 5.0});
    const kernel::Moments plain = kernel::column_moments_reference(X, nullptr, Index(j), {});
    if constexpr (simd::has_fma<DefaultArch>)
      right = right && sum[j] == scaled.sum && squares[j] == scaled.sum_squares &&
              plain_sum[j] == plain.sum && plain_squares[j] == plain.sum_squares;
    double exact = 0;
    for (Index i = 0; i < X.rows; ++i)
      exact += double(float(X(i, Index(j)))) * double(float(X(i, Index(j))));
    CHECK(plain_squares[j] == Approx(exact).epsilon(1e-6));
    CHECK(squares[j] == Approx(scaled.sum_squares).epsilon(1e-6));
    CHECK(sum[j] == Approx(scaled.sum).epsilon(1e-6).margin(1e-5));
  }
  CHECK(right);
  CHECK((peak[n] == 0.25f && low[n] == 0.5f && high[n] == 0.75f && sum[n] == 3.0 &&
         squares[n] == 5.0));
}

template <class T>
void check_type() {
  for (const Index rows : awkward)
    for (const Index cols : awkward) {
      const auto source = test::gaussian(rows, cols + 5, 3);
      const auto X = to_matrix<T>(source.view());
      check_columns<T>(X.view().col_block(1, cols));
    }
}

}  // namespace

TEST_CASE("statistics of columns agree with their references", "[kernel][columns]") {
  check_type<float>();
  check_type<bf16>();
  check_type<fp16>();
}

TEST_CASE("a matrix in slabs of whole blocks has the sums of the whole", "[kernel][columns]") {
  const auto X = test::heavy_tailed(80, 37, 4);
  std::vector<double> sum(37), squares(37), sum_of_slabs(37), squares_of_slabs(37);
  kernel::column_moments<DefaultArch>(X.view(), nullptr, sum.data(), squares.data());
  for (const Index i : {0, 32})
    kernel::column_moments<DefaultArch>(X.view().row_block(i, i == 0 ? 32 : 48), nullptr,
                                        sum_of_slabs.data(), squares_of_slabs.data());
  CHECK(sum == sum_of_slabs);
  CHECK(squares == squares_of_slabs);
}

TEST_CASE("moments of scaled rows agree with their reference", "[kernel][columns]") {
  for (const Index n : {0, 1, 7, 16, 17, 33, 129, 255, 256, 257, 1000}) {
    const auto x = test::gaussian(1, n + 1, 9);
    const auto half = to_matrix<fp16>(x.view());
    std::vector<float> factor(std::size_t(n) + 1);
    for (std::size_t j = 0; j < factor.size(); ++j) factor[j] = 0.25f + float(j % 11);
    const auto check = [&](const auto* data) {
      const kernel::Moments ours = kernel::scaled_row_moments(data, factor.data() + 1, n);
      const kernel::Moments exact =
          kernel::scaled_row_moments_reference(data, factor.data() + 1, n);
      CHECK(ours.sum == Approx(exact.sum).epsilon(1e-6).margin(1e-4));
      CHECK(ours.sum_squares == Approx(exact.sum_squares).epsilon(1e-6));
    };
    check(x.data() + 1);  // unaligned
    check(half.data() + 1);
  }
}
