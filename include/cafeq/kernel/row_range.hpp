/// Passes over a row that give its smooth range and the derivative of it.
///
/// One pass returns Σ_j φ(x_j) (kernel/smooth_range.hpp) and writes the slopes; row_gradient() does
/// all of it while the row is in cache. Sums run in 16 lanes, element i in lane i mod 16, in fp32
/// over pieces of 1,024, then in fp64: relative error below 64·2^-24 by rounding, and the same bits
/// on every architecture that has fused multiply-adds. (One running fp32 sum of 16 million terms is
/// off by 2.6e-4.)
#pragma once

#include <algorithm>
#include <cmath>

#include "cafeq/kernel/lane_order.hpp"
#include "cafeq/kernel/smooth_range.hpp"

namespace cafeq::kernel {

/// The peak of a set and Σ φ relative to it.
struct PeakSum {
  float peak = 0;
  double sum = 0;
};

/// max_j |x_j|; 0 for n = 0.
template <class Arch = DefaultArch>
float row_peak(const float* x, Index n) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index w = Index(V::size);
  float result = 0;
  if (n >= w) {
    V peak[4] = {V(0.0f), V(0.0f), V(0.0f), V(0.0f)};
    Index j = 0;
    for (; j + 4 * w <= n; j += 4 * w) {
      CAFEQ_UNROLL
      for (Index v = 0; v < 4; ++v)
        peak[v] = simd::max(peak[v], simd::abs(V::load_unaligned(x + j + v * w)));
    }
    for (; j < n; j += w)
      peak[0] = simd::max(peak[0], simd::abs(V::load_unaligned(x + std::min(j, n - w))));
    result = simd::reduce_max(simd::max(simd::max(peak[0], peak[1]), simd::max(peak[2], peak[3])));
  } else {
    for (Index j = 0; j < n; ++j) result = std::max(result, std::abs(x[j]));
  }
  return result;
}

namespace detail {

/// What the second-level cache holds with ease.
inline constexpr Index cached_floats = 65536;

/// Σ φ over one set; write(j, slopes of a vector, how many of them) for each vector.
template <class Arch, class Term, class Write>
inline double sum_of_terms(const Term& term, const float* x, Index n, PeakParameters parameters,
                           Write&& write) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index w = Index(V::size);
  constexpr Index piece = 1024;
  const V a(parameters.a);
  const V b(parameters.b);
  double total = 0;
  V slope;
  for (Index begin = 0; begin < n; begin += piece) {
    const Index end = std::min(n, begin + piece);
    V sum[lane_parts<Arch>];
    CAFEQ_UNROLL
    for (Index p = 0; p < lane_parts<Arch>; ++p) sum[p] = V(0.0f);
    Index j = begin;
    for (; j + lanes <= end; j += lanes) {
      simd::prefetch<simd::Cache::second_level>(x + j + n);  // most often the next set
      CAFEQ_UNROLL
      for (Index p = 0; p < lane_parts<Arch>; ++p) {
        term(V::load_unaligned(x + j + p * w), a, b, sum[p], slope);
        write(j + p * w, slope, w);
      }
    }

    // The last vectors are filled up with zeros, whose terms are not added.
    if (j < end) {
      alignas(64) float tail[lanes] = {};
      alignas(64) float position[lanes];
      std::copy(x + j, x + end, tail);
      for (Index l = 0; l < lanes; ++l) position[l] = float(l);
      const V rest(float(end - j));
      for (Index p = 0; j + p * w < end; ++p) {
        V more = sum[p];
        term(V::load_aligned(tail + p * w), a, b, more, slope);
        sum[p] = simd::select(V::load_aligned(position + p * w) < rest, more, sum[p]);
        write(j + p * w, slope, std::min(w, end - j - p * w));
      }
    }
    total += double(sum_of_lanes<Arch>(sum));
  }
  return total;
}

/// Stores c times a vector, or the part of it that is left.
template <class V>
inline void store_slopes(float* to, const V& slope, Index n) noexcept {
  if (n == Index(V::size)) return slope.store_unaligned(to);
  alignas(64) float lane[V::size];
  slope.store_aligned(lane);
  std::copy_n(lane, n, to);
}

}  // namespace detail

/// Σ_j φ(x_j) for one set; the slopes are written to `slope`, which may be x itself.
template <class Arch = DefaultArch, class Phi>
double row_sum(const Phi& phi, const float* x, Index n, float peak, float* slope) noexcept {
  return detail::with_term(phi, [&](const auto& term) {
    return detail::sum_of_terms<Arch>(term, x, n, phi.prepare(peak),
                                      [slope](Index j, const auto& v, Index count) {
                                        detail::store_slopes(slope + j, v, count);
                                      });
  });
}

/// Σ_j φ(x_j) alone, the same bits as row_sum().
template <class Arch = DefaultArch, class Phi>
double row_value(const Phi& phi, const float* x, Index n, float peak) noexcept {
  return detail::with_term(phi, [&](const auto& term) {
    return detail::sum_of_terms<Arch>(term, x, n, phi.prepare(peak),
                                      [](Index, const auto&, Index) {});
  });
}

/// Peak and sum of one set in a single pass over memory: where a set exceeds the second-level cache
/// it is taken in pieces, and where the peak grows, what was summed is brought to the new one, as
/// in an online softmax.
template <class Arch = DefaultArch, class Phi>
PeakSum row_range(const Phi& phi, const float* x, Index n) noexcept {
  constexpr bool can_rescale = requires { phi.change(0.0f, 0.0f); };
  const Index piece = !can_rescale || n <= detail::cached_floats ? n : 4096;
  PeakSum total;
  for (Index j = 0; j < n; j += piece) {
    const Index size = std::min(piece, n - j);
    const float peak = row_peak<Arch>(x + j, size);
    if (peak > total.peak) {
      if constexpr (can_rescale)
        if (total.sum > 0) total.sum *= phi.change(total.peak, peak);
      total.peak = peak;
    }
    total.sum += row_value<Arch>(phi, x + j, size, total.peak);
  }
  return total;
}

/// to_j = c φ'(x_j); `to` may be x itself.
template <class Arch = DefaultArch, class Phi>
void row_slopes(const Phi& phi, const float* x, Index n, float peak, float c, float* to) noexcept {
  using V = Batch<float, Arch>;
  const V factor(c);
  detail::with_term(phi, [&](const auto& term) {
    return detail::sum_of_terms<Arch>(term, x, n, phi.prepare(peak),
                                      [to, &factor](Index j, const auto& v, Index count) {
                                        detail::store_slopes(to + j, V(v * factor), count);
                                      });
  });
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

/// x ← c(peak, Σ φ) φ'(x) for one set: the gradient of whatever the caller makes of the sum. One
/// pass over memory where the set fits the second-level cache, two elsewhere.
template <class Arch = DefaultArch, class Phi, class F>
void row_gradient(const Phi& phi, float* x, Index n, F&& c) noexcept {
  if (n <= detail::cached_floats) {
    const float peak = row_peak<Arch>(x, n);
    const double sum = row_sum<Arch>(phi, x, n, peak, x);
    scale_row<Arch>(x, n, c(peak, sum));
  } else {
    const PeakSum range = row_range<Arch>(phi, x, n);
    row_slopes<Arch>(phi, x, n, range.peak, c(range.peak, range.sum), x);
  }
}

/// The meaning of row_peak().
inline float row_peak_reference(const float* x, Index n) noexcept {
  float peak = 0;
  for (Index j = 0; j < n; ++j) peak = std::max(peak, std::abs(x[j]));
  return peak;
}

/// The meaning of row_sum(), in fp64.
template <class Phi>
double row_sum_reference(const Phi& phi, const float* x, Index n, float peak,
                         double* slope) noexcept {
  double sum = 0;
  for (Index j = 0; j < n; ++j) {
    sum += phi.value_reference(double(x[j]), double(peak));
    slope[j] = phi.slope_reference(double(x[j]), double(peak));
  }
  return sum;
}

}  // namespace cafeq::kernel
