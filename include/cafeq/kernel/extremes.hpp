/// Smallest and largest weights, of a span and of each of its groups.
#pragma once

#include <algorithm>
#include <span>

#include "cafeq/kernel/lane_order.hpp"

namespace cafeq::kernel {

/// The smallest and the largest of some weights.
struct Range {
  float min = 0;
  float max = 0;
  float absmax() const noexcept { return std::max(-min, max); }
};

namespace detail {

/// The order in which running extremes are kept. Where integers are cheaper to compare, that of the
/// floats' bits: the larger unsigned and the larger signed integer are the least and the greatest
/// float as long as both signs occur.
template <class Arch, bool ByBits = simd::prefers_integers<Arch>>
struct Extreme {
  using V = Batch<float, Arch>;
  static constexpr bool by_bits = ByBits;
  static V low(const V& a, const V& b) noexcept {
    if constexpr (by_bits) return simd::max_unsigned_bits(a, b);
    else return simd::min(a, b);
  }
  static V high(const V& a, const V& b) noexcept {
    if constexpr (by_bits) return simd::max_signed_bits(a, b);
    else return simd::max(a, b);
  }
  /// Whether these, of all numbers, are their range.
  static bool complete(Range r) noexcept { return !by_bits || (r.min < 0 && r.max >= 0); }
};

/// The extremes of the lanes over n floats, a multiple of Step.
template <Index Step, class E, class Size>
inline void extremes(const float* x, Size n, typename E::V& least,
                     typename E::V& greatest) noexcept {
  using V = typename E::V;
  constexpr Index w = Index(V::size), parts = Step / w;
  V low[parts], high[parts];
  CAFEQ_UNROLL
  for (Index p = 0; p < parts; ++p) low[p] = high[p] = V::load_unaligned(x + p * w);
  for (Index i = 0; i < Step; i += lanes) simd::prefetch(x + i + look_ahead);
  for (Index i = Step; i < n; i += Step) {
    for (Index next = 0; next < Step; next += lanes) simd::prefetch(x + i + next + look_ahead);
    CAFEQ_UNROLL
    for (Index p = 0; p < parts; ++p) {
      const V v = simd::in_register(V::load_unaligned(x + i + p * w));
      low[p] = E::low(low[p], v);
      high[p] = E::high(high[p], v);
    }
  }
  CAFEQ_UNROLL
  for (Index half = parts / 2; half > 0; half /= 2) {
    CAFEQ_UNROLL
    for (Index p = 0; p < half; ++p) {
      low[p] = E::low(low[p], low[p + half]);
      high[p] = E::high(high[p], high[p + half]);
    }
  }
  least = low[0];
  greatest = high[0];
}

}  // namespace detail

/// Smallest and largest element; zeros for an empty span. Elements must not be NaN.
template <class Arch = DefaultArch>
Range range(std::span<const float> x) noexcept {
  using V = Batch<float, Arch>;
  using E = detail::Extreme<Arch>;
  constexpr Index step = 2 * detail::lanes;
  if (x.empty()) return {};

  Range r{x[0], x[0]};
  const Index n = Index(x.size());
  const Index whole = n / step * step;
  if (whole > 0) {
    V low, high;
    detail::extremes<step, E>(x.data(), whole, low, high);
    r = {simd::reduce_min(low), simd::reduce_max(high)};
    if (!E::complete(r)) {
      detail::extremes<step, detail::Extreme<Arch, false>>(x.data(), whole, low, high);
      r = {simd::reduce_min(low), simd::reduce_max(high)};
    }
  }
  for (const float v : x.subspan(std::size_t(whole))) r = {std::min(r.min, v), std::max(r.max, v)};
  return r;
}

/// The meaning of range(), weight by weight.
inline Range range_reference(std::span<const float> x) noexcept {
  if (x.empty()) return {};
  Range r{x[0], x[0]};
  for (const float v : x) r = {std::min(r.min, v), std::max(r.max, v)};
  return r;
}

namespace detail {

/// Ranges of as many whole groups as a vector has lanes.
template <class Arch, class Width>
inline void vector_of_ranges(const float* x, Width width, float* low, float* high) noexcept {
  using V = Batch<float, Arch>;
  using E = Extreme<Arch>;
  constexpr Index w = Index(V::size);
  V least[w], greatest[w];
  for (Index g = 0; g < w; ++g) extremes<lanes, E>(x + g * width, width, least[g], greatest[g]);
  const V l = simd::reduce_rows<Arch>(least, E::low);
  const V h = simd::reduce_rows<Arch>(greatest, E::high);
  l.store_unaligned(low);
  h.store_unaligned(high);
  if (!E::by_bits || simd::all((l < V(0.0f)) & (h >= V(0.0f)))) return;
  for (Index g = 0; g < w; ++g) {
    const Range r = range<Arch>({x + g * width, std::size_t(width)});
    low[g] = r.min;
    high[g] = r.max;
  }
}

}  // namespace detail

/// low[g] and high[g] = range() of group g of x, ⌈n / width⌉ groups of which the last may be
/// shorter. Groups of a multiple of 16 up to 512 are taken a vector of groups at a time, others one
/// by one.
template <class Arch = DefaultArch>
void group_ranges(std::span<const float> x, Index width, std::span<float> low,
                  std::span<float> high) noexcept {
  CAFEQ_ASSERT(width > 0 && Index(low.size()) == ceil_div(Index(x.size()), width) &&
               high.size() == low.size());
  constexpr Index w = Index(Batch<float, Arch>::size);
  Index done = 0;
  if (width % detail::lanes == 0 && width <= detail::longest_piece / 8)
    detail::with_width(width, [&](auto n) {
      for (; (done + w) * n <= Index(x.size()); done += w)
        detail::vector_of_ranges<Arch>(x.data() + done * n, n, low.data() + done,
                                       high.data() + done);
    });
  detail::for_each_group(x, width, done, [&](std::size_t g, std::span<const float> group) {
    const Range r = range<Arch>(group);
    low[g] = r.min;
    high[g] = r.max;
  });
}

}  // namespace cafeq::kernel
