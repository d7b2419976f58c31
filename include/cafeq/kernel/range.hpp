/// Passes over a matrix that give the smooth range of its rows or columns and its derivative.
///
/// A smooth range is built on Σ_j φ(x_j), with φ taken relative to the peak max_j |x_j| so that nothing overflows. One pass returns the sum and
/// writes the slope φ'(x_j) up to a factor that the caller knows once the sum is complete. Sums run in fp32 over at most 32 vectors, then in fp64:
/// relative error about 1e-6.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "cafeq/core/view.hpp"
#include "cafeq/simd/compat.hpp"

namespace cafeq::kernel {

/// What φ needs to know about the peak of a set.
struct PeakParameters {
  float a = 0;
  float b = 0;
};

/// φ(x) = r^p, slope r^(p−1), r = x / peak; p even. Entries below 2^(−100/p) of the peak count as zero, which keeps subnormals out at no loss:
/// their share of the sum is below 2^−100. A peak below the smallest normal float counts as zero too.
class PowerRange {
 public:
  explicit PowerRange(int p) noexcept : p_(p), cutoff_(std::exp2(-100.0f / float(p))) {}

  PeakParameters prepare(float peak) const noexcept { return {peak >= std::numeric_limits<float>::min() ? 1.0f / peak : 0.0f, 0.0f}; }

  template <class V>
  void operator()(V x, V inverse_peak, V, V& value, V& slope) const noexcept {
    const V scaled = x * inverse_peak;
    const V r = xsimd::select(xsimd::abs(scaled) < V(cutoff_), V(0.0f), scaled);
    const V square = r * r;
    V power(1.0f);  // r^(p − 2) by repeated squaring
    V factor = square;
    for (int e = p_ / 2 - 1; e > 0; e >>= 1) {
      if (e & 1) power = power * factor;
      factor = factor * factor;
    }
    slope = power * r;
    value = power * square;
  }

  double value_reference(double x, double peak) const noexcept { return peak > 0 ? std::pow(x / peak, p_) : 0.0; }
  double slope_reference(double x, double peak) const noexcept { return peak > 0 ? std::pow(x / peak, p_ - 1) : 0.0; }

 private:
  int p_;
  float cutoff_;
};

/// φ(x) = e^(t x − a) + e^(−t x − a), slope their difference; a = t·peak as rounded to float. One exponential an entry: the smaller term is e^(−2a)
/// over the larger.
class ExponentialRange {
 public:
  explicit ExponentialRange(float t) noexcept : t_(t) {}

  PeakParameters prepare(float peak) const noexcept {
    const float a = t_ * peak;
    const float b = std::exp(-2.0f * a);
    return {a, b >= std::numeric_limits<float>::min() ? b : 0.0f};
  }

  template <class V>
  void operator()(V x, V a, V b, V& value, V& slope) const noexcept {
    // The floor keeps the quotient finite; e^−80 is nothing beside the peak's own term, which is 1.
    const V larger = xsimd::exp(xsimd::max(simd::fma(V(t_), xsimd::abs(x), -a), V(-80.0f)));
    const V smaller = b / larger;
    value = larger + smaller;
    slope = xsimd::copysign(larger - smaller, x);
  }

  double value_reference(double x, double peak) const noexcept {
    const double a = double(prepare(float(peak)).a);
    return std::exp(double(t_) * x - a) + std::exp(-double(t_) * x - a);
  }
  double slope_reference(double x, double peak) const noexcept {
    const double a = double(prepare(float(peak)).a);
    return std::exp(double(t_) * x - a) - std::exp(-double(t_) * x - a);
  }

 private:
  float t_;
};

/// max_j |x_j|; 0 for n = 0.
template <class Arch = DefaultArch>
float row_peak(const float* x, Index n) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index w = Index(V::size);
  V peak(0.0f);
  Index j = 0;
  for (; j + w <= n; j += w) peak = xsimd::max(peak, xsimd::abs(V::load_unaligned(x + j)));
  alignas(64) float lanes[w];
  peak.store_aligned(lanes);
  float result = 0;
  for (const float lane : lanes) result = std::max(result, lane);
  for (; j < n; ++j) result = std::max(result, std::abs(x[j]));
  return result;
}

/// Σ_j φ(x_j) for one set; the slopes are written to `slope`, which may be x itself.
template <class Arch = DefaultArch, class Range>
double row_sum(const Range& range, const float* x, Index n, float peak, float* slope) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index w = Index(V::size);
  const PeakParameters parameters = range.prepare(peak);
  const V a(parameters.a);
  const V b(parameters.b);
  alignas(64) float lanes[w];
  double sum = 0;
  V value;
  V derivative;
  Index j = 0;
  while (j + w <= n) {
    V partial(0.0f);
    const Index end = std::min(n, j + 32 * w);
    for (; j + w <= end; j += w) {
      range(V::load_unaligned(x + j), a, b, value, derivative);
      partial = partial + value;
      derivative.store_unaligned(slope + j);
    }
    partial.store_aligned(lanes);
    for (const float lane : lanes) sum += double(lane);
  }
  if (j < n) {
    alignas(64) float tail[w] = {};
    std::copy(x + j, x + n, tail);
    range(V::load_aligned(tail), a, b, value, derivative);
    value.store_aligned(lanes);
    derivative.store_aligned(tail);
    for (Index l = 0; j + l < n; ++l) {
      sum += double(lanes[l]);
      slope[j + l] = tail[l];
    }
  }
  return sum;
}

/// x ← c x.
template <class Arch = DefaultArch>
void scale_row(float* x, Index n, float c) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index w = Index(V::size);
  Index j = 0;
  for (; j + w <= n; j += w) (V::load_unaligned(x + j) * V(c)).store_unaligned(x + j);
  for (; j < n; ++j) x[j] *= c;
}

/// peak_j ← max(peak_j, max_i |X_ij|).
template <class Arch = DefaultArch>
void column_peaks(View<const float> X, float* peak) noexcept {
  CAFEQ_ASSERT(X.rows_contiguous());
  using V = Batch<float, Arch>;
  constexpr Index w = Index(V::size);
  for (Index i = 0; i < X.rows; ++i) {
    const float* x = X.data + i * X.row_stride;
    Index j = 0;
    for (; j + w <= X.cols; j += w)
      xsimd::max(V::load_unaligned(peak + j), xsimd::abs(V::load_unaligned(x + j))).store_unaligned(peak + j);
    for (; j < X.cols; ++j) peak[j] = std::max(peak[j], std::abs(x[j]));
  }
}

/// sum_j = Σ_i φ(X_ij), all in fp32: for chunks of up to about a hundred rows. X is replaced by the slopes. a and b hold the parameters of each
/// column's peak.
template <class Arch = DefaultArch, class Range>
void column_sums(const Range& range, View<float> X, const float* a, const float* b, float* sum) noexcept {
  CAFEQ_ASSERT(X.rows_contiguous());
  using V = Batch<float, Arch>;
  constexpr Index w = Index(V::size);
  std::fill_n(sum, X.cols, 0.0f);
  V value;
  V derivative;
  for (Index i = 0; i < X.rows; ++i) {
    float* x = X.data + i * X.row_stride;
    Index j = 0;
    for (; j + w <= X.cols; j += w) {
      range(V::load_unaligned(x + j), V::load_unaligned(a + j), V::load_unaligned(b + j), value, derivative);
      (V::load_unaligned(sum + j) + value).store_unaligned(sum + j);
      derivative.store_unaligned(x + j);
    }
    if (j < X.cols) {
      const Index rest = X.cols - j;
      alignas(64) float tail[3][w] = {};
      std::copy_n(x + j, rest, tail[0]);
      std::copy_n(a + j, rest, tail[1]);
      std::copy_n(b + j, rest, tail[2]);
      range(V::load_aligned(tail[0]), V::load_aligned(tail[1]), V::load_aligned(tail[2]), value, derivative);
      value.store_aligned(tail[0]);
      derivative.store_aligned(tail[1]);
      for (Index l = 0; l < rest; ++l) {
        sum[j + l] += tail[0][l];
        x[j + l] = tail[1][l];
      }
    }
  }
}

/// X_ij ← X_ij c_j.
template <class Arch = DefaultArch>
void scale_columns(View<float> X, const float* c) noexcept {
  CAFEQ_ASSERT(X.rows_contiguous());
  using V = Batch<float, Arch>;
  constexpr Index w = Index(V::size);
  for (Index i = 0; i < X.rows; ++i) {
    float* x = X.data + i * X.row_stride;
    Index j = 0;
    for (; j + w <= X.cols; j += w) (V::load_unaligned(x + j) * V::load_unaligned(c + j)).store_unaligned(x + j);
    for (; j < X.cols; ++j) x[j] *= c[j];
  }
}

/// The meaning of row_peak().
inline float row_peak_reference(const float* x, Index n) noexcept {
  float peak = 0;
  for (Index j = 0; j < n; ++j) peak = std::max(peak, std::abs(x[j]));
  return peak;
}

/// The meaning of row_sum(), in fp64.
template <class Range>
double row_sum_reference(const Range& range, const float* x, Index n, float peak, double* slope) noexcept {
  double sum = 0;
  for (Index j = 0; j < n; ++j) {
    sum += range.value_reference(double(x[j]), double(peak));
    slope[j] = range.slope_reference(double(x[j]), double(peak));
  }
  return sum;
}

/// The meaning of column_sums() for one column of given peak, in fp64.
template <class Range>
double column_sum_reference(const Range& range, View<const float> X, Index j, float peak, double* slope) noexcept {
  double sum = 0;
  for (Index i = 0; i < X.rows; ++i) {
    sum += range.value_reference(double(X(i, j)), double(peak));
    slope[i] = range.slope_reference(double(X(i, j)), double(peak));
  }
  return sum;
}

}  // namespace cafeq::kernel
