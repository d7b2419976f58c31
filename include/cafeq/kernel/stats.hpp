/// Range and moments of a span: what the scale of a group is found from.
///
/// Every sum of this floor runs in 16 lanes, element i in lane i mod 16, whatever the width of a
/// vector, by explicit fused multiply-adds in float; after each block of 4096 elements the lanes
/// are added as a tree and the result goes to a double. So all architectures that have FMA get the
/// same bits, and the relative error of a sum of n positive terms stays below (256 + 4)·2^-24 +
/// n/4096·2^-53.
/// Longer than most headers: the lane order that everything else keeps is defined here, with its
/// reference.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>

#include "cafeq/core/numeric.hpp"
#include "cafeq/simd/compat.hpp"

namespace cafeq::kernel {

struct Range {
  float min = 0;
  float max = 0;
  float absmax() const noexcept { return std::max(-min, max); }
};

struct Moments {
  double sum = 0;
  double sum_squares = 0;
};

namespace detail {

inline constexpr Index lanes = 16;
inline constexpr Index lane_block = 4096;

/// Vectors that hold the 16 lanes.
template <class Arch>
inline constexpr Index lane_parts = lanes / Index(Batch<float, Arch>::size);

struct EveryLane {
  template <class V>
  V operator()(const V& v) const noexcept {
    return v;
  }
};

/// Zero in the lanes past the end.
template <class V>
struct LanesBelow {
  typename V::batch_bool_type valid;
  V operator()(const V& v) const noexcept { return xsimd::select(valid, v, V(0.0f)); }
};

/// f(part, vector, keep) for every vector of n floats; `part` tells which of the 16 lanes it holds.
/// The last vectors are filled up with a copy of the last element; keep(v) is v with those lanes
/// zero. A Size that is a constant is a multiple of 16.
template <class Arch, class Size, class F>
inline void for_each_vector(const float* x, Size n, F&& f) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index w = Index(V::size);
  static_assert(lanes % w == 0, "cafeq: a vector has 1 to 16 floats");
  Index i = 0;
  for (; i + lanes <= n; i += lanes) {
    CAFEQ_UNROLL
    for (Index part = 0; part < lane_parts<Arch>; ++part)
      f(part, V::load_unaligned(x + i + part * w), EveryLane{});
  }
  if constexpr (!std::is_same_v<Size, Index>) return;
  if (i == n) return;
  alignas(64) float tail[lanes];
  alignas(64) float position[lanes];
  for (Index l = 0; l < lanes; ++l) {
    tail[l] = x[std::min<Index>(i + l, n - 1)];
    position[l] = float(l);
  }
  const V end(float(n - i));
  CAFEQ_UNROLL
  for (Index part = 0; part < lane_parts<Arch>; ++part) {
    const LanesBelow<V> keep{V::load_aligned(position + part * w) < end};
    f(part, V::load_aligned(tail + part * w), keep);
  }
}
template <class Arch, class F>
inline void for_each_vector(std::span<const float> x, F&& f) noexcept {
  for_each_vector<Arch>(x.data(), Index(x.size()), f);
}

/// The vectors that hold the 16 lanes, added: lane i plus lane i + 8, and, where vectors are
/// shorter, those plus lane i + 4.
template <class Arch>
inline Batch<float, Arch> sum_of_parts(const Batch<float, Arch>* parts) noexcept {
  using V = Batch<float, Arch>;
  V sum[lane_parts<Arch>];
  CAFEQ_UNROLL
  for (Index p = 0; p < lane_parts<Arch>; ++p) sum[p] = parts[p];
  CAFEQ_UNROLL
  for (Index half = lane_parts<Arch> / 2; half > 0; half /= 2) {
    CAFEQ_UNROLL
    for (Index p = 0; p < half; ++p) sum[p] = sum[p] + sum[p + half];
  }
  return sum[0];
}

/// Lane i plus lane i + 8, those plus lane i + 4, and so on.
template <class Arch>
inline float sum_of_lanes(const Batch<float, Arch>* parts) noexcept {
  return simd::reduce_add(sum_of_parts<Arch>(parts));
}

inline float sum_of_lanes_reference(float (&lane)[lanes]) noexcept {
  for (Index half = lanes / 2; half > 0; half /= 2)
    for (Index l = 0; l < half; ++l) lane[l] += lane[l + half];
  return lane[0];
}

/// f(block) for consecutive blocks of at most 4096 elements.
template <class F>
inline void for_each_block(std::span<const float> x, F&& f) noexcept {
  for (std::size_t i = 0; i < x.size(); i += std::size_t(lane_block))
    f(x.subspan(i, std::min(std::size_t(lane_block), x.size() - i)));
}

/// The order in which running extremes are kept. With AVX2 the float units take one minimum and one
/// maximum a cycle, the integer units four of either: there the larger unsigned and the larger
/// signed integer are kept, which are the least and the greatest float as long as both signs occur.
template <class Arch, bool ByBits = simd::is_avx2<Arch> || simd::is_avx512<Arch>>
struct Extreme {
  using V = Batch<float, Arch>;
  static constexpr bool by_bits = ByBits;
  static V low(const V& a, const V& b) noexcept {
    if constexpr (by_bits) return simd::max_unsigned_bits(a, b);
    else return xsimd::min(a, b);
  }
  static V high(const V& a, const V& b) noexcept {
    if constexpr (by_bits) return simd::max_signed_bits(a, b);
    else return xsimd::max(a, b);
  }
  /// Whether these, of all numbers, are their range.
  static bool complete(Range r) noexcept { return !by_bits || (r.min < 0 && r.max >= 0); }
};

/// Asks for the memory that a walk through x reaches 8 KiB later: the more there is to compute, the
/// less far ahead a processor looks by itself.
inline void prefetch_ahead([[maybe_unused]] const float* x) noexcept {
#if defined(__GNUC__)
  __builtin_prefetch(x + 2048);
#endif
}

/// The extremes of the lanes over n floats, a multiple of Step.
template <Index Step, class E, class Size>
inline void extremes(const float* x, Size n, typename E::V& least,
                     typename E::V& greatest) noexcept {
  using V = typename E::V;
  constexpr Index w = Index(V::size), parts = Step / w;
  V low[parts], high[parts];
  CAFEQ_UNROLL
  for (Index p = 0; p < parts; ++p) low[p] = high[p] = V::load_unaligned(x + p * w);
  for (Index i = 0; i < Step; i += lanes) prefetch_ahead(x + i);
  for (Index i = Step; i < n; i += Step) {
    for (Index line = 0; line < Step; line += lanes) prefetch_ahead(x + i + line);
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

inline Range range_reference(std::span<const float> x) noexcept {
  if (x.empty()) return {};
  Range r{x[0], x[0]};
  for (const float v : x) r = {std::min(r.min, v), std::max(r.max, v)};
  return r;
}

/// Σ y and Σ y² of y = x − pivot. Infinite where a block's sum exceeds the floats.
template <class Arch = DefaultArch>
Moments moments(std::span<const float> x, float pivot) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index parts = detail::lane_parts<Arch>;
  Moments total;
  detail::for_each_block(x, [&](std::span<const float> block) {
    V sum[parts], squares[parts];
    CAFEQ_UNROLL
    for (Index p = 0; p < parts; ++p) sum[p] = squares[p] = V(0.0f);
    detail::for_each_vector<Arch>(block, [&](Index p, const V& v, auto keep) {
      const V kept = keep(v - V(pivot));
      sum[p] = sum[p] + kept;
      squares[p] = simd::fma(kept, kept, squares[p]);
    });
    total.sum += double(detail::sum_of_lanes<Arch>(sum));
    total.sum_squares += double(detail::sum_of_lanes<Arch>(squares));
  });
  return total;
}

template <class Arch = DefaultArch>
Moments moments(std::span<const float> x) noexcept {
  return moments<Arch>(x, 0.0f);
}

inline Moments moments_reference(std::span<const float> x, float pivot = 0) noexcept {
  Moments total;
  detail::for_each_block(x, [&](std::span<const float> block) {
    float sum[detail::lanes] = {}, squares[detail::lanes] = {};
    for (std::size_t i = 0; i < block.size(); ++i) {
      const std::size_t l = i % std::size_t(detail::lanes);
      const float y = block[i] - pivot;
      sum[l] += y;
      squares[l] = std::fma(y, y, squares[l]);
    }
    total.sum += double(detail::sum_of_lanes_reference(sum));
    total.sum_squares += double(detail::sum_of_lanes_reference(squares));
  });
  return total;
}

namespace detail {

/// f(group, its weights) for groups [begin, ⌈n / width⌉).
template <class F>
inline void for_each_group(std::span<const float> x, Index width, Index begin, F&& f) noexcept {
  const Index n = Index(x.size());
  for (Index g = begin, at = begin * width; at < n; ++g, at += width)
    f(std::size_t(g), x.subspan(std::size_t(at), std::size_t(std::min(width, n - at))));
}

/// f(width) with the usual widths as constants, for which loops unroll.
template <class F>
inline void with_width(Index width, F&& f) noexcept {
  switch (width) {
    case 32: return f(std::integral_constant<Index, 32>{});
    case 64: return f(std::integral_constant<Index, 64>{});
    case 128: return f(std::integral_constant<Index, 128>{});
    default: return f(width);
  }
}

/// Ranges of as many whole groups as a vector has lanes.
template <class Arch, class Width>
inline void group_ranges_block(const float* x, Width width, float* low, float* high) noexcept {
  using V = Batch<float, Arch>;
  using E = Extreme<Arch>;
  constexpr Index w = Index(V::size);
  V least[w], greatest[w];
  for (Index g = 0; g < w; ++g) extremes<lanes, E>(x + g * width, width, least[g], greatest[g]);
  const V l = simd::reduce_rows<Arch>(least, E::low);
  const V h = simd::reduce_rows<Arch>(greatest, E::high);
  l.store_unaligned(low);
  h.store_unaligned(high);
  if (!E::by_bits || xsimd::all((l < V(0.0f)) & (h >= V(0.0f)))) return;
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
  if (width % detail::lanes == 0 && width <= detail::lane_block / 8)
    detail::with_width(width, [&](auto n) {
      for (; (done + w) * n <= Index(x.size()); done += w)
        detail::group_ranges_block<Arch>(x.data() + done * n, n, low.data() + done,
                                         high.data() + done);
    });
  detail::for_each_group(x, width, done, [&](std::size_t g, std::span<const float> group) {
    const Range r = range<Arch>(group);
    low[g] = r.min;
    high[g] = r.max;
  });
}

namespace detail {

/// The lanes of Σ y and Σ y², y = x − pivot, over one group of whole 16s.
template <class Arch, class Width>
inline void moment_lanes(const float* x, Width width, float pivot, Batch<float, Arch>& sums,
                         Batch<float, Arch>& squares) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index w = Index(V::size), parts = lane_parts<Arch>;
  const V origin(pivot);
  V sum[parts], square[parts];
  CAFEQ_UNROLL
  for (Index p = 0; p < parts; ++p) sum[p] = square[p] = V(0.0f);
  for (Index i = 0; i < width; i += lanes) {
    prefetch_ahead(x + i);
    CAFEQ_UNROLL
    for (Index p = 0; p < parts; ++p) {
      const V y = simd::in_register(V::load_unaligned(x + i + p * w) - origin);
      sum[p] = sum[p] + y;
      square[p] = simd::fma(y, y, square[p]);
    }
  }
  sums = sum_of_parts<Arch>(sum);
  squares = sum_of_parts<Arch>(square);
}

template <class Arch, class Width>
inline void group_moments_block(const float* x, Width width, const float* pivot,
                                Moments* moments) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index w = Index(V::size);
  V sums[w], squares[w];
  for (Index g = 0; g < w; ++g)
    moment_lanes<Arch>(x + g * width, width, pivot == nullptr ? 0.0f : pivot[g], sums[g],
                       squares[g]);
  const auto add = [](const V& a, const V& b) { return a + b; };
  alignas(64) float sum[w], square[w];
  simd::reduce_rows<Arch>(sums, add).store_aligned(sum);
  simd::reduce_rows<Arch>(squares, add).store_aligned(square);
  for (Index g = 0; g < w; ++g) moments[g] = {double(sum[g]), double(square[g])};
}

}  // namespace detail

/// moments[g] = moments() of group g of x, or of its distances from pivot[g]. Groups of a multiple
/// of 16 up to 512 are taken a vector of groups at a time, others one by one.
template <class Arch = DefaultArch>
void group_moments(std::span<const float> x, Index width, std::span<const float> pivot,
                   std::span<Moments> moments) noexcept {
  CAFEQ_ASSERT(width > 0 && Index(moments.size()) == ceil_div(Index(x.size()), width) &&
               (pivot.empty() || pivot.size() == moments.size()));
  constexpr Index w = Index(Batch<float, Arch>::size);
  Index done = 0;
  if (width % detail::lanes == 0 && width <= detail::lane_block / 8)
    detail::with_width(width, [&](auto n) {
      for (; (done + w) * n <= Index(x.size()); done += w)
        detail::group_moments_block<Arch>(x.data() + done * n, n,
                                          pivot.empty() ? nullptr : pivot.data() + done,
                                          moments.data() + done);
    });
  detail::for_each_group(x, width, done, [&](std::size_t g, std::span<const float> group) {
    moments[g] = kernel::moments<Arch>(group, pivot.empty() ? 0.0f : pivot[g]);
  });
}
template <class Arch = DefaultArch>
void group_moments(std::span<const float> x, Index width, std::span<Moments> moments) noexcept {
  group_moments<Arch>(x, width, {}, moments);
}

}  // namespace cafeq::kernel
