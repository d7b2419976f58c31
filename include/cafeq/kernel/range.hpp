/// Passes over a matrix that give the smooth range of its rows or columns and its derivative.
///
/// A smooth range is built on Σ_j φ(x_j), with φ taken relative to the peak max_j |x_j| so that
/// nothing overflows. One pass returns the sum and writes the slope φ'(x_j) up to a factor that the
/// caller knows once the sum is complete; row_gradient() does all of it while the row is in cache.
/// Sums of a row run in 16 lanes, element i in lane i mod 16, in fp32 over blocks of 1,024, then in
/// fp64: relative error below 64·2^-24 by rounding, and the same bits on every architecture that
/// has fused multiply-adds. (One running fp32 sum of 16 million terms is off by 2.6e-4.) Longer
/// than most headers: both ranges and all ways to pass over a row stand on one loop of terms.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "cafeq/core/view.hpp"
#include "cafeq/kernel/stats.hpp"
#include "cafeq/simd/compat.hpp"

namespace cafeq::kernel {

/// What φ needs to know about the peak of a set.
struct PeakParameters {
  float a = 0;
  float b = 0;
};

/// The peak of a set and Σ φ relative to it.
struct PeakSum {
  float peak = 0;
  double sum = 0;
};

namespace detail {

/// value · 2^n and value · 2^-n by integer additions to the exponent; `shifted` is n + 1.5 · 2^23,
/// |n| <= 125.
template <class V>
inline V scaled_up(const V& value, const V& shifted) noexcept {
  using I = xsimd::batch<std::int32_t, typename V::arch_type>;
  return xsimd::bitwise_cast<V>(xsimd::bitwise_cast<I>(value) +
                                (xsimd::bitwise_cast<I>(shifted) << 23));
}
template <class V>
inline V scaled_down(const V& value, const V& shifted) noexcept {
  using I = xsimd::batch<std::int32_t, typename V::arch_type>;
  return xsimd::bitwise_cast<V>(xsimd::bitwise_cast<I>(value) -
                                (xsimd::bitwise_cast<I>(shifted) << 23));
}

/// x^N by repeated squaring.
template <int N, class V>
inline V fixed_power(const V& x) noexcept {
  if constexpr (N == 0) return V(1.0f);
  else if constexpr (N == 1) return x;
  else if constexpr (N % 2 == 1) return fixed_power<N - 1>(x) * x;
  else return fixed_power<N / 2>(V(x * x));
}

template <class V>
inline V power(V x, int n) noexcept {
  V result(1.0f);
  for (; n > 0; n >>= 1) {
    if (n & 1) result = result * x;
    x = x * x;
  }
  return result;
}

/// φ(x) = r^p with p = P where that is positive, known to the compiler.
template <int P>
struct PowerTerm {
  int p;
  float cutoff;

  template <class V>
  void operator()(const V& x, const V& inverse_peak, const V&, V& sum, V& slope) const noexcept {
    const V scaled = x * inverse_peak;
    const V r = xsimd::select(xsimd::abs(scaled) < V(cutoff), V(0.0f), scaled);
    const V square = r * r;
    V most;  // r^(p − 2)
    if constexpr (P > 0) most = fixed_power<P / 2 - 1>(square);
    else most = power(square, p / 2 - 1);
    slope = most * r;
    sum = simd::fma(most, square, sum);
  }
};

}  // namespace detail

/// φ(x) = r^p, slope r^(p−1), r = x / peak; p even. Entries below 2^(−100/p) of the peak count as
/// zero, which keeps subnormals out at no loss: their share of the sum is below 2^−100. A peak
/// below the smallest normal float counts as zero too.
class PowerRange {
 public:
  explicit PowerRange(int p) noexcept : p_(p), cutoff_(std::exp2(-100.0f / float(p))) {}

  PeakParameters prepare(float peak) const noexcept {
    return {peak >= std::numeric_limits<float>::min() ? 1.0f / peak : 0.0f, 0.0f};
  }

  /// What a sum relative to one peak is multiplied by to be relative to a larger one.
  double change(float from, float to) const noexcept {
    return std::pow(double(from) / double(to), p_);
  }

  /// f(term), the term for batches: term(x, a, b, sum, slope) adds φ(x) to `sum` and sets `slope`.
  template <class F>
  auto with_term(F&& f) const noexcept {
    switch (p_) {
      case 8: return f(detail::PowerTerm<8>{p_, cutoff_});
      case 16: return f(detail::PowerTerm<16>{p_, cutoff_});
      default: return f(detail::PowerTerm<0>{p_, cutoff_});
    }
  }

  double value_reference(double x, double peak) const noexcept {
    return peak > 0 ? std::pow(x / peak, p_) : 0.0;
  }
  double slope_reference(double x, double peak) const noexcept {
    return peak > 0 ? std::pow(x / peak, p_ - 1) : 0.0;
  }

 private:
  int p_;
  float cutoff_;
};

/// φ(x) = e^(t x − a) + e^(−t x − a), slope their difference; a = t·peak as rounded to float.
///
/// Both exponentials come from one: e^u = 2^n (E + r O) and e^−u = 2^−n (E − r O) with E = cosh r,
/// O = sinh r / r, |r| <= ln 2 / 2, polynomials in r² good to 1.5e-8. A term's relative error is
/// below 2e-7 + |u|·6e-8, the latter from rounding u itself; |u| is small for the terms that count.
class ExponentialRange {
 public:
  explicit ExponentialRange(float t) noexcept : t_(t) {}

  PeakParameters prepare(float peak) const noexcept {
    const float a = t_ * peak;
    const float b = std::exp(-2.0f * a);
    return {a, b >= std::numeric_limits<float>::min() ? b : 0.0f};
  }

  double change(float from, float to) const noexcept {
    return std::exp(double(t_ * from) - double(t_ * to));
  }

  template <class F>
  auto with_term(F&& f) const noexcept {
    return f(*this);
  }

  template <class V>
  void operator()(const V& x, const V& a, const V& b, V& sum, V& slope) const noexcept {
    // The floor keeps 2^n normal; e^−80 is nothing beside the peak's own term, which is 1. It lets
    // NaN pass.
    const V u = xsimd::max(V(-80.0f), simd::compensated_fms(V(t_), xsimd::abs(x), a));
    const V magic(0x1.8p23f);
    const V shifted = simd::fma(u, V(0x1.715476p0f), magic);
    const V r = simd::fnma(shifted - magic, V(0x1.62e43p-1f), u);
    const V s = r * r;
    const V even =
        simd::fma(simd::fma(simd::fma(V(1.0f / 720), s, V(1.0f / 24)), s, V(0.5f)), s, V(1.0f));
    const V odd = simd::fma(simd::fma(V(0.00835464f), s, V(1.0f / 6)), s, V(1.0f));
    const V larger = detail::scaled_up(simd::fma(r, odd, even), shifted);
    const V smaller = detail::scaled_down(simd::fnma(r, odd, even), shifted);  // times b = e^(−2a)
    sum = simd::fma(b, smaller, sum + larger);
    slope = simd::fnma(b, smaller, larger) ^ xsimd::bitofsign(x);
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
  float result = 0;
  if (n >= w) {
    V peak[4] = {V(0.0f), V(0.0f), V(0.0f), V(0.0f)};
    Index j = 0;
    for (; j + 4 * w <= n; j += 4 * w) {
      CAFEQ_UNROLL
      for (Index v = 0; v < 4; ++v)
        peak[v] = xsimd::max(peak[v], xsimd::abs(V::load_unaligned(x + j + v * w)));
    }
    for (; j < n; j += w)
      peak[0] = xsimd::max(peak[0], xsimd::abs(V::load_unaligned(x + std::min(j, n - w))));
    result =
        simd::reduce_max(xsimd::max(xsimd::max(peak[0], peak[1]), xsimd::max(peak[2], peak[3])));
  } else {
    for (Index j = 0; j < n; ++j) result = std::max(result, std::abs(x[j]));
  }
  return result;
}

namespace detail {

inline constexpr Index cached_floats = 65536;  // what the second-level cache holds with ease

/// The set after this one, most often: it arrives while this one is computed.
inline void prefetch_next([[maybe_unused]] const float* x) noexcept {
#if defined(__GNUC__)
  __builtin_prefetch(x, 0, 2);
#endif
}

/// Σ φ over one set; write(j, slopes of a vector, how many of them) for each vector.
template <class Arch, class Term, class Write>
inline double sum_of_terms(const Term& term, const float* x, Index n, PeakParameters parameters,
                           Write&& write) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index w = Index(V::size);
  constexpr Index block = 1024;
  const V a(parameters.a);
  const V b(parameters.b);
  double total = 0;
  V slope;
  for (Index begin = 0; begin < n; begin += block) {
    const Index end = std::min(n, begin + block);
    V sum[lane_parts<Arch>];
    CAFEQ_UNROLL
    for (Index p = 0; p < lane_parts<Arch>; ++p) sum[p] = V(0.0f);
    Index j = begin;
    for (; j + lanes <= end; j += lanes) {
      prefetch_next(x + j + n);
      CAFEQ_UNROLL
      for (Index p = 0; p < lane_parts<Arch>; ++p) {
        term(V::load_unaligned(x + j + p * w), a, b, sum[p], slope);
        write(j + p * w, slope, w);
      }
    }
    if (j < end) {
      alignas(64) float tail[lanes] = {};
      alignas(64) float position[lanes];
      std::copy(x + j, x + end, tail);
      for (Index l = 0; l < lanes; ++l) position[l] = float(l);
      const V rest(float(end - j));
      for (Index p = 0; j + p * w < end; ++p) {
        V more = sum[p];
        term(V::load_aligned(tail + p * w), a, b, more, slope);
        sum[p] = xsimd::select(V::load_aligned(position + p * w) < rest, more, sum[p]);
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

namespace detail {

/// f(term) for a kernel of φ: its own term, or one made of a plain kernel that gives value and
/// slope, phi(x, a, b, value, slope).
template <class Phi, class F>
auto with_term(const Phi& phi, F&& f) noexcept {
  if constexpr (requires { phi.with_term(f); }) {
    return phi.with_term(f);
  } else {
    return f([&phi](const auto& x, const auto& a, const auto& b, auto& sum, auto& slope) {
      auto value = x;
      phi(x, a, b, value, slope);
      sum = sum + value;
    });
  }
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
/// it is taken in blocks, and where the peak grows, what was summed is brought to the new one, as
/// in an online softmax.
template <class Arch = DefaultArch, class Phi>
PeakSum row_range(const Phi& phi, const float* x, Index n) noexcept {
  constexpr bool can_rescale = requires { phi.change(0.0f, 0.0f); };
  const Index block = !can_rescale || n <= detail::cached_floats ? n : 4096;
  PeakSum total;
  for (Index j = 0; j < n; j += block) {
    const Index size = std::min(block, n - j);
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
