/// Squared differences in double: what the error of a reconstruction is summed from.
#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "cafeq/kernel/lane_order.hpp"

namespace cafeq::kernel {

/// Σ (x − y)² and Σ x².
struct DifferenceSums {
  double error = 0;
  double norm = 0;
};

namespace detail {

template <class Arch>
inline constexpr Index double_parts = lanes / Index(Batch<double, Arch>::size);

/// 16 consecutive elements in double.
template <class Arch, class T>
inline void load_doubles(const T* x, Batch<double, Arch> (&part)[double_parts<Arch>]) noexcept {
  if constexpr (std::is_same_v<T, double>) {
    CAFEQ_UNROLL
    for (Index p = 0; p < double_parts<Arch>; ++p)
      part[p] = Batch<double, Arch>::load_unaligned(x + p * Index(Batch<double, Arch>::size));
  } else {
    CAFEQ_UNROLL
    for (Index p = 0; p < lane_parts<Arch>; ++p) {
      const auto wide =
          simd::widen(simd::load_float<Arch>(x + p * Index(Batch<float, Arch>::size)));
      part[2 * p] = wide.low;
      part[2 * p + 1] = wide.high;
    }
  }
}

template <class Arch>
inline double sum_of_doubles(const Batch<double, Arch> (&part)[double_parts<Arch>]) noexcept {
  constexpr Index w = Index(Batch<double, Arch>::size);
  alignas(64) double lane[lanes];
  for (Index p = 0; p < double_parts<Arch>; ++p) part[p].store_aligned(lane + p * w);
  for (Index half = lanes / 2; half > 0; half /= 2)
    for (Index l = 0; l < half; ++l) lane[l] += lane[l + half];
  return lane[0];
}

}  // namespace detail

/// Over n elements of any two types: 16 lanes, element j in lane j mod 16, fused multiply-adds in
/// double, then a tree. The difference of two floats (or of narrower types) is exact but for
/// exponents further apart than double's precision. Relative error below (n/16 + 5)·2^-53.
template <class Arch = DefaultArch, class T, class U>
DifferenceSums squared_differences(const T* x, const U* y, Index n) noexcept {
  using D = Batch<double, Arch>;
  constexpr Index parts = detail::double_parts<Arch>;
  D error[parts], norm[parts], a[parts], b[parts];
  CAFEQ_UNROLL
  for (Index p = 0; p < parts; ++p) error[p] = norm[p] = D(0.0);
  const auto add = [&] {
    CAFEQ_UNROLL
    for (Index p = 0; p < parts; ++p) {
      const D d = a[p] - b[p];
      error[p] = simd::fma(d, d, error[p]);
      norm[p] = simd::fma(a[p], a[p], norm[p]);
    }
  };
  Index j = 0;
  for (; j + detail::lanes <= n; j += detail::lanes) {
    detail::load_doubles<Arch>(x + j, a);
    detail::load_doubles<Arch>(y + j, b);
    add();
  }
  if (j < n) {
    alignas(64) T x_tail[detail::lanes] = {};
    alignas(64) U y_tail[detail::lanes] = {};
    std::copy(x + j, x + n, x_tail);
    std::copy(y + j, y + n, y_tail);
    detail::load_doubles<Arch>(x_tail, a);
    detail::load_doubles<Arch>(y_tail, b);
    add();
  }
  return {detail::sum_of_doubles<Arch>(error), detail::sum_of_doubles<Arch>(norm)};
}

/// The meaning of squared_differences(), and what it returns for strides other than 1.
template <class T, class U>
DifferenceSums squared_differences_reference(const T* x, Index x_stride, const U* y, Index y_stride,
                                             Index n) noexcept {
  double error[detail::lanes] = {}, norm[detail::lanes] = {};
  for (Index j = 0; j < n; ++j) {
    const double a = double(x[j * x_stride]);
    const double d = a - double(y[j * y_stride]);
    double& e = error[j % detail::lanes];
    double& s = norm[j % detail::lanes];
    e = std::fma(d, d, e);
    s = std::fma(a, a, s);
  }
  for (Index half = detail::lanes / 2; half > 0; half /= 2)
    for (Index l = 0; l < half; ++l) {
      error[l] += error[l + half];
      norm[l] += norm[l + half];
    }
  return {error[0], norm[0]};
}

}  // namespace cafeq::kernel
