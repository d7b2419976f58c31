// Generated matrices: fixed seeds, the same on every machine.
#pragma once
#include <cmath>
#include <vector>

#include "cafeq/core/matrix.hpp"
#include "cafeq/core/rng.hpp"

namespace cafeq::test {

template <class T = float>
Matrix<T> gaussian(Index rows, Index cols, std::uint64_t seed, double scale = 1.0) {
  Matrix<T> m(rows, cols);
  const CounterRng rng(seed, 1);
  for (Index i = 0; i < rows * cols; ++i) m.data()[i] = T(scale * rng.normal(std::uint64_t(i)));
  return m;
}

/// Student t with 5 degrees of freedom, `outliers` input channels ten times as large: what
/// transformer weights look like at their worst.
inline Matrix<float> heavy_tailed(Index rows, Index cols, std::uint64_t seed, Index outliers = 0,
                                  double scale = 0.02) {
  Matrix<float> m(rows, cols);
  const CounterRng rng(seed, 2);
  for (Index i = 0; i < rows * cols; ++i) {
    double chi = 0;
    for (int d = 1; d <= 5; ++d) {
      const double z = rng.normal(std::uint64_t(6 * i + d));
      chi += z * z;
    }
    m.data()[i] = float(scale * rng.normal(std::uint64_t(6 * i)) / std::sqrt(chi / 5));
  }
  const CounterRng channels(seed, 3);
  for (Index o = 0; o < outliers; ++o) {
    const Index j = Index(channels.below(std::uint64_t(o), std::uint64_t(cols)));
    for (Index i = 0; i < rows; ++i) m(i, j) *= 10.0f;
  }
  return m;
}

/// n of ±1.
template <class T>
std::vector<T> signs(Index n, std::uint64_t seed) {
  std::vector<T> result;
  for (Index i = 0; i < n; ++i) result.push_back(T(CounterRng(seed, 4).sign(std::uint64_t(i))));
  return result;
}

/// ‖A − B‖² / ‖A‖² in fp64.
template <class T, class U>
double relative_error(View<const T> a, View<const U> b) {
  double e = 0, n = 0;
  for (Index i = 0; i < a.rows; ++i)
    for (Index j = 0; j < a.cols; ++j) {
      const double d = double(a(i, j)) - double(b(i, j));
      e += d * d;
      n += double(a(i, j)) * double(a(i, j));
    }
  return n > 0 ? e / n : e;
}

}  // namespace cafeq::test
