// The laws that every transform obeys, checked against its own dense matrix.
#pragma once
#include <cmath>
#include <cstring>

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/linalg/dense.hpp"
#include "cafeq/transform/transform.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

namespace cafeq::test {

inline constexpr Op all_ops[] = {Op::forward, Op::inverse, Op::transpose, Op::inverse_transpose};

// Matrices, temporaries too, and views.
template <class T>
View<const T> view_of(const Matrix<T>& a) {
  return a.view();
}
template <class T>
View<const T> view_of(View<T> a) {
  return a;
}

template <class F>
void for_each_pair(const auto& a, const auto& b, F&& f) {
  const auto x = view_of(a);
  const auto y = view_of(b);
  REQUIRE(x.rows == y.rows);
  REQUIRE(x.cols == y.cols);
  for (Index i = 0; i < x.rows; ++i)
    for (Index j = 0; j < x.cols; ++j) f(x(i, j), y(i, j));
}

double max_difference(const auto& a, const auto& b) {
  double largest = 0;
  for_each_pair(a, b, [&](double x, double y) {
    if (!(std::abs(x - y) <= largest)) largest = std::abs(x - y);  // NaN is kept
  });
  return largest;
}

double max_magnitude(const auto& a) {
  double largest = 0;
  for_each_pair(a, a, [&](double x, double) { largest = std::max(largest, std::abs(x)); });
  return largest;
}

double squared_norm(const auto& a) {
  double sum = 0;
  for_each_pair(a, a, [&](double x, double) { sum += x * x; });
  return sum;
}

inline Matrix<double> dense_product(const Matrix<double>& a, const Matrix<double>& b) {
  return linalg::product(a.view(), b.view());
}

// ‖a − b‖² / ‖a‖².
double relative_difference(const auto& a, const auto& b) {
  double sum = 0;
  for_each_pair(a, b, [&](double x, double y) { sum += (x - y) * (x - y); });
  return sum == 0 ? 0 : sum / squared_norm(a);
}

bool same_bits(const auto& a, const auto& b) {
  bool same = true;
  for_each_pair(a, b, [&](auto x, auto y) {
    static_assert(std::is_same_v<decltype(x), decltype(y)>);
    same = same && std::memcmp(&x, &y, sizeof x) == 0;
  });
  return same;
}

template <class F>
void check_error(F&& f, ErrorCode code, const char* part) {
  try {
    f();
    FAIL("no error, expected one that names " << part);
  } catch (const Error& error) {
    CHECK(error.code() == code);
    CHECK_THAT(error.message(), Contains(part));
  }
}

// Whatever the memory order, the same bits.
template <class E, Transform T>
void check_strides(const T& t, Op op) {
  const Index n = t.dim();
  const Index rows = 21;
  const auto X = gaussian<E>(rows, n, 11);
  auto expected = X;
  t.apply(expected.view(), op);

  auto padded = gaussian<E>(rows, n + 3, 12);
  const auto before = padded;
  copy(X.view(), padded.view().block(0, 2, rows, n));
  t.apply(padded.view().block(0, 2, rows, n), op);
  CHECK(same_bits(padded.view().block(0, 2, rows, n), expected.view()));
  CHECK(same_bits(padded.view().col_block(n + 2, 1), before.view().col_block(n + 2, 1)));

  Matrix<E> columns(n, rows);
  copy(X.view(), columns.view().transposed());
  t.apply(columns.view().transposed(), op);
  CHECK(same_bits(columns.view().transposed(), expected.view()));

  Matrix<E> spread(2 * rows, 2 * n);
  const View<E> every_second{spread.data() + (n > 0 ? 2 * n - 1 : 0), rows, n, 4 * n, -2};
  if (n > 0) {
    copy(X.view(), every_second);
    t.apply(every_second, op);
    CHECK(same_bits(every_second, expected.view()));
  }

  // A row alone is what it is among others.
  auto one = to_matrix<E>(X.view().row_block(rows - 1, 1));
  t.apply(one.view(), op);
  CHECK(same_bits(one.view(), expected.view().row_block(rows - 1, 1)));
}

// Threads that share few rows, whatever they are asked for.
struct FewRows {
  ThreadPool pool;
  Index concurrency() const { return pool.concurrency(); }
  void parallel_for(Index n, Index, LoopBody f) { pool.parallel_for(n, 7, f); }
};

template <Transform T>
void check_executors(const T& t) {
  const auto X = gaussian<float>(40, t.dim(), 13);
  auto expected = X;
  apply_right(t, expected.view());
  for (const Index threads : {1, 2, 3}) {
    FewRows executor{ThreadPool(threads)};
    auto Y = X;
    apply_right(t, Y.view(), Op::forward, executor);
    CHECK(same_bits(Y.view(), expected.view()));
  }
}

template <Transform T>
void check_dimension(const T& t) {
  auto X = gaussian<float>(2, t.dim() + 1, 14);
  check_error([&] { t.apply(X.view(), Op::forward); }, ErrorCode::invalid_shape, "dimension");
  check_error([&] { apply_right(t, X.view()); }, ErrorCode::invalid_shape, "dimension");
  check_error([&] { apply_left(t, X.view().transposed()); }, ErrorCode::invalid_shape, "dimension");
  Matrix<float> none(0, t.dim());
  t.apply(none.view(), Op::forward);
}

// For any size: M·M⁻¹ = I and norms, on a few rows.
template <Transform T>
void check_round_trip(const T& t) {
  const auto X = gaussian<double>(3, t.dim(), 15);
  const auto Xf = to_matrix<float>(X.view());
  for (const Op op : {Op::forward, Op::transpose}) {
    const Op back = op == Op::forward ? Op::inverse : Op::inverse_transpose;
    auto Y = X;
    t.apply(Y.view(), op);
    if (t.is_orthogonal())
      CHECK(squared_norm(Y.view()) == Approx(squared_norm(X.view())).epsilon(1e-12));
    auto Z = Y;
    t.apply(Z.view(), back);
    CHECK(relative_difference(X, Z) < 1e-22);
    auto Yf = Xf;
    t.apply(Yf.view(), op);
    CHECK(relative_difference(Y, Yf) < 1e-10);
    t.apply(Yf.view(), back);
    CHECK(relative_difference(Xf, Yf) < 1e-10);
  }
}

// Everything, for dimensions whose dense matrix is small. `rounding`: how far storage may be from
// orthogonal.
template <Transform T>
void check_laws(const T& t, double rounding = 1e-6) {
  static_assert(TransformSpec<T>);
  const Index n = t.dim();
  INFO("dimension " << n);
  const auto M = to_dense<double>(t);
  const auto N = to_dense<double>(t, Op::inverse);
  const double size = std::max(1.0, max_magnitude(M.view()) * max_magnitude(N.view())) *
                      double(std::max<Index>(n, 1));
  const auto I = identity_matrix<double>(n);

  CHECK(max_difference(linalg::product(M.view(), N.view()), I.view()) < 1e-13 * size);
  CHECK(max_difference(to_dense<double>(t, Op::transpose), M.view().transposed()) < 1e-13 * size);
  CHECK(max_difference(to_dense<double>(t, Op::inverse_transpose), N.view().transposed()) <
        1e-13 * size);
  if (t.is_orthogonal())
    CHECK(max_difference(linalg::product(M.view(), M.view().transposed()), I.view()) < rounding);

  const auto X = gaussian<double>(5, n, 16);
  const auto Y = gaussian<double>(n, 4, 17);
  for (const Op op : all_ops) {
    const auto dense = to_dense<double>(t, op);
    const auto right = linalg::product(X.view(), dense.view());
    const auto left = linalg::product(dense.view(), Y.view());
    auto XM = X;
    apply_right(t, XM.view(), op);
    CHECK(max_difference(XM.view(), right.view()) < 1e-13 * size * 10);
    auto MY = Y;
    apply_left(t, MY.view(), op);
    CHECK(max_difference(MY.view(), left.view()) < 1e-13 * size * 10);
    auto single = to_matrix<float>(X.view());
    t.apply(single.view(), op);
    CHECK(relative_difference(right, single) < 1e-10 * size);
    check_strides<float>(t, op);
    check_strides<double>(t, op);
  }
  check_executors(t);
  check_dimension(t);
}

}  // namespace cafeq::test
