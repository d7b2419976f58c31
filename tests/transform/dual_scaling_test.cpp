#include "cafeq/transform/dual_scaling.hpp"

#include <limits>

#include "cafeq/core/thread_pool.hpp"
#include "laws.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace {

double column_deviation(View<const double> X, Index j) {
  double mean = 0, squares = 0;
  for (Index i = 0; i < X.rows; ++i) mean += X(i, j) / double(X.rows);
  for (Index i = 0; i < X.rows; ++i) squares += (X(i, j) - mean) * (X(i, j) - mean);
  return std::sqrt(squares / double(X.rows));
}

// What the scales leave over.
Matrix<double> evened(View<const float> W, const detail::DualScales& s) {
  Matrix<double> X(W.rows, W.cols);
  for (Index i = 0; i < W.rows; ++i)
    for (Index j = 0; j < W.cols; ++j)
      X(i, j) = double(W(i, j)) / (s.rows[std::size_t(i)] * s.columns[std::size_t(j)]);
  return X;
}

// The rounds as they are defined, in double and without any care.
std::vector<double> plain_columns(View<const float> W, int rounds) {
  auto X = to_matrix<double>(W);
  std::vector<double> c(std::size_t(W.cols), 1.0);
  for (int round = 0; round < rounds; ++round) {
    std::vector<double> s(std::size_t(W.cols));
    for (Index j = 0; j < W.cols; ++j) s[std::size_t(j)] = column_deviation(X.view(), j);
    auto sorted = s;
    std::sort(sorted.begin(), sorted.end());
    const double median = sorted[(sorted.size() - 1) / 2];
    for (Index j = 0; j < W.cols; ++j) {
      const double f = s[std::size_t(j)] / median;
      c[std::size_t(j)] *= f;
      for (Index i = 0; i < W.rows; ++i) X(i, j) /= f;
    }
    for (Index i = 0; i < W.rows; ++i) {
      const double f = column_deviation(View<const double>(X.view()).transposed(), i);
      for (Index j = 0; j < W.cols; ++j) X(i, j) /= f;
    }
  }
  return c;
}

Matrix<float> outliers() { return heavy_tailed(70, 300, 5, 8); }

}  // namespace

TEST_CASE("dual scaling evens out columns and rows, as its definition does") {
  const auto W = outliers();
  const auto s = detail::dual_scales(W.view());
  const auto X = evened(W.view(), s);
  const auto transposed = View<const double>(X.view()).transposed();
  const double typical = column_deviation(X.view(), 0);
  for (Index j = 0; j < 300; ++j)
    REQUIRE(column_deviation(X.view(), j) == Approx(typical).epsilon(1e-3));
  for (Index i = 0; i < 70; ++i)
    REQUIRE(column_deviation(transposed, i) == Approx(1).epsilon(1e-3));
  for (const int rounds : {0, 1, 3, 24}) {
    const auto expected = plain_columns(W.view(), rounds);
    const auto mine = detail::dual_scales(W.view(), rounds);
    for (std::size_t j = 0; j < 300; ++j)
      REQUIRE(mine.columns[j] == Approx(expected[j]).epsilon(1e-5));
  }
}

TEST_CASE("the spec gives the diagonal c^-power") {
  const auto W = outliers();
  const auto s = detail::dual_scales(W.view());
  const auto half = fit_transform(DualScaling{}, W.view());
  const auto whole = fit_transform(DualScaling{.power = 1}, W.view());
  for (std::size_t j = 0; j < 300; ++j) {
    REQUIRE(double(half.entries()[j]) == Approx(1 / std::sqrt(s.columns[j])).epsilon(1e-3));
    REQUIRE(double(whole.entries()[j]) == Approx(1 / s.columns[j]).epsilon(1e-3));
  }
  CHECK(half.storage_bits() == 16 * 300);
  CHECK(DualScaling{.power = 0}.fit(W.view()).is_orthogonal());
  check_laws(half);
}

TEST_CASE("the unit of the weights does not matter") {
  const auto W = outliers();
  const auto s = detail::dual_scales(W.view());
  for (const int exponent : {-60, -110, 90}) {
    auto scaled = W;
    for (Index i = 0; i < W.size(); ++i) scaled.data()[i] = std::ldexp(W.data()[i], exponent);
    const auto u = detail::dual_scales(scaled.view());
    for (std::size_t j = 0; j < 300; ++j)
      REQUIRE(u.columns[j] == Approx(s.columns[j]).epsilon(1e-4));
    CHECK(u.rows[3] == Approx(std::ldexp(s.rows[3], exponent)).epsilon(1e-4));
  }
}

TEST_CASE("any strides and any executor, the same bits") {
  const auto W = outliers();
  const auto expected = detail::dual_scales(W.view());
  Matrix<float> turned(300, 70);
  copy(W.view(), turned.view().transposed());
  const auto strided = detail::dual_scales(View<const float>(turned.view()).transposed());
  CHECK(strided.columns == expected.columns);
  CHECK(strided.rows == expected.rows);
  for (const Index threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    CHECK(detail::dual_scales(W.view(), 24, pool).columns == expected.columns);
  }
}

TEST_CASE("what does not vary keeps scale 1") {
  auto W = gaussian<float>(40, 20, 1);
  for (Index i = 0; i < 40; ++i) W(i, 3) = 0;
  for (Index j = 0; j < 20; ++j) W(7, j) = 0;
  const auto s = detail::dual_scales(W.view());
  CHECK(s.columns[3] == 1);
  for (const double c : s.columns) CHECK((std::isfinite(c) && c > 0.3 && c < 3));
  for (const double r : s.rows) CHECK((std::isfinite(r) && r > 0));
  for (const auto& [rows, cols] :
       {std::pair<Index, Index>{1, 1}, {1, 9}, {9, 1}, {0, 4}, {4, 0}, {6, 6}}) {
    Matrix<float> constant(rows, cols);
    for (Index i = 0; i < constant.size(); ++i) constant.data()[i] = 0.3f;
    const auto t = DualScaling{}.fit(constant.view());
    CHECK(t.dim() == cols);
    CHECK(std::all_of(t.entries().begin(), t.entries().end(), [](float d) { return d == 1.0f; }));
    const Matrix<float> zero(rows, cols);
    CHECK(DualScaling{}.fit(zero.view()).is_orthogonal());
  }
}

TEST_CASE("dual scaling: wrong arguments") {
  auto W = gaussian<float>(4, 5, 1);
  check_error([&] { DualScaling{.rounds = -1}.fit(W.view()); }, ErrorCode::invalid_argument,
              "rounds is -1");
  check_error([&] { DualScaling{.power = std::numeric_limits<double>::quiet_NaN()}.fit(W.view()); },
              ErrorCode::invalid_argument, "power");
  W(2, 3) = std::numeric_limits<float>::infinity();
  check_error([&] { detail::dual_scales(W.view()); }, ErrorCode::non_finite, "row 2, column 3");
}

TEST_CASE("dual scaling reads every element type where it lies") {
  const auto check = [](const auto& typed) {
    const auto floats = to_matrix<float>(typed.view());
    const auto expected = detail::dual_scales(floats.view(), 6);
    const auto s = detail::dual_scales(typed.view(), 6);
    CHECK(s.columns == expected.columns);
    CHECK(s.rows == expected.rows);
    const auto turned =
        to_matrix<std::remove_cvref_t<decltype(typed(0, 0))>>(typed.view().transposed());
    CHECK(detail::dual_scales(turned.view().transposed(), 6).columns == expected.columns);
    CHECK(DualScaling{}.fit(typed.view()).entries() == DualScaling{}.fit(floats.view()).entries());
  };
  const auto W = outliers();
  check(to_matrix<bf16>(W.view()));
  check(to_matrix<fp16>(W.view()));
  check(to_matrix<double>(W.view()));

  // Doubles that no float holds.
  auto wide = to_matrix<double>(W.view());
  for (Index i = 0; i < wide.size(); ++i) wide.data()[i] = std::ldexp(wide.data()[i], 900);
  const auto s = detail::dual_scales(wide.view());
  CHECK(s.columns == detail::dual_scales(W.view()).columns);
  CHECK(s.rows[3] == std::ldexp(detail::dual_scales(W.view()).rows[3], 900));
}

TEST_CASE("rounds end once the factors stand still, where more of them would change little") {
  const auto W = heavy_tailed(100, 300, 6, 6);
  const auto every_round = detail::dual_scales(W.view());
  const auto few = detail::dual_scales(W.view(), 24, {}, 5e-3);
  for (std::size_t j = 0; j < 300; ++j)
    REQUIRE(few.columns[j] == Approx(every_round.columns[j]).epsilon(2e-3));
  for (std::size_t i = 0; i < 100; ++i)
    REQUIRE(few.rows[i] == Approx(every_round.rows[i]).epsilon(2e-3));
  CHECK(few.columns != every_round.columns);
  CHECK(detail::dual_scales(W.view(), 1, {}, 1e9).columns ==
        detail::dual_scales(W.view(), 24, {}, 1e9).columns);
}

TEST_CASE("slabs of many rows, whole and unfinished, the same bits for any executor") {
  for (const Index rows : {15, 16, 17, 255, 257, 300}) {
    CAPTURE(rows);
    const auto W = heavy_tailed(rows, 19, std::uint64_t(rows), 2);
    const auto expected = detail::dual_scales(W.view(), 3);
    const auto plain = plain_columns(W.view(), 3);
    for (std::size_t j = 0; j < 19; ++j)
      REQUIRE(expected.columns[j] == Approx(plain[j]).epsilon(1e-5));
    for (const Index threads : {2, 3}) {
      ThreadPool pool(threads);
      const auto s = detail::dual_scales(W.view(), 3, pool);
      CHECK(s.columns == expected.columns);
      CHECK(s.rows == expected.rows);
    }
  }
}

TEST_CASE("dual scaling says what is wrong with it") {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_FALSE(fault_of(DualScaling{}, 4, 5));
  const auto fault = [](const DualScaling& spec) {
    const auto error = fault_of(spec, 4, 5);
    REQUIRE(error);
    CHECK(error->code() == ErrorCode::invalid_argument);
    return error->message();
  };
  CHECK(fault({.power = nan}) == "DualScaling: power is nan");
  CHECK(fault({.rounds = -1}) == "DualScaling: rounds is -1, must not be negative");
  CHECK(fault({.tolerance = -1}) == "DualScaling: tolerance is -1, must not be negative");
  CHECK(fault({.tolerance = nan}) == "DualScaling: tolerance is nan, must not be negative");
}
