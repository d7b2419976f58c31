/// The terms φ of smooth ranges, for batches: values and slopes.
///
/// A smooth range is built on Σ_j φ(x_j), with φ taken relative to the peak max_j |x_j| so that
/// nothing overflows. A term adds φ(x) to a sum and gives the slope φ'(x) up to a factor that the
/// caller knows once the sum is complete.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "cafeq/simd/batch.hpp"

namespace cafeq::kernel {

/// What φ needs to know about the peak of a set.
struct PeakParameters {
  float a = 0;
  float b = 0;
};

namespace detail {

/// value · 2^n and value · 2^-n by integer additions to the exponent; `shifted` is n + 1.5 · 2^23,
/// |n| <= 125.
template <class V>
inline V scaled_up(const V& value, const V& shifted) noexcept {
  using I = Batch<std::int32_t, typename V::arch_type>;
  return simd::bitwise_cast<V>(simd::bitwise_cast<I>(value) +
                               (simd::bitwise_cast<I>(shifted) << 23));
}
template <class V>
inline V scaled_down(const V& value, const V& shifted) noexcept {
  using I = Batch<std::int32_t, typename V::arch_type>;
  return simd::bitwise_cast<V>(simd::bitwise_cast<I>(value) -
                               (simd::bitwise_cast<I>(shifted) << 23));
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
    const V r = simd::select(simd::abs(scaled) < V(cutoff), V(0.0f), scaled);
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
    const V u = simd::max(V(-80.0f), simd::compensated_fms(V(t_), simd::abs(x), a));
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
    slope = simd::fnma(b, smaller, larger) ^ simd::bitofsign(x);
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

}  // namespace cafeq::kernel
