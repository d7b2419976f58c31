/// Σ x and Σ x² in the order of lane_order.hpp, of a span and of each of its groups.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>

#include "cafeq/kernel/lane_order.hpp"

namespace cafeq::kernel {

/// Σ x and Σ x² of some weights.
struct Moments {
  double sum = 0;
  double sum_squares = 0;
};

/// Σ y and Σ y² of y = x − pivot. Infinite where a piece's sum exceeds the floats.
template <class Arch = DefaultArch>
Moments moments(std::span<const float> x, float pivot) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index parts = detail::lane_parts<Arch>;
  Moments total;
  detail::for_each_piece(x, [&](std::span<const float> piece) {
    V sum[parts], squares[parts];
    CAFEQ_UNROLL
    for (Index p = 0; p < parts; ++p) sum[p] = squares[p] = V(0.0f);
    detail::for_each_vector<Arch>(piece, [&](Index p, const V& v, auto keep) {
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

/// The meaning of moments(), weight by weight.
inline Moments moments_reference(std::span<const float> x, float pivot = 0) noexcept {
  Moments total;
  detail::for_each_piece(x, [&](std::span<const float> piece) {
    float sum[detail::lanes] = {}, squares[detail::lanes] = {};
    for (std::size_t i = 0; i < piece.size(); ++i) {
      const std::size_t l = i % std::size_t(detail::lanes);
      const float y = piece[i] - pivot;
      sum[l] += y;
      squares[l] = std::fma(y, y, squares[l]);
    }
    total.sum += double(detail::sum_of_lanes_reference(sum));
    total.sum_squares += double(detail::sum_of_lanes_reference(squares));
  });
  return total;
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
    simd::prefetch(x + i + look_ahead);
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

/// moments() of as many whole groups as a vector has lanes, group g of them relative to pivot(g).
template <class Arch, class Width, class Pivot>
inline void vector_of_moments(const float* x, Width width, Pivot&& pivot,
                              Moments* moments) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index w = Index(V::size);
  V sums[w], squares[w];
  for (Index g = 0; g < w; ++g)
    moment_lanes<Arch>(x + g * width, width, pivot(g), sums[g], squares[g]);

  const auto add = [](const V& a, const V& b) { return a + b; };
  alignas(64) float sum[w], square[w];
  simd::reduce_rows<Arch>(sums, add).store_aligned(sum);
  simd::reduce_rows<Arch>(squares, add).store_aligned(square);
  for (Index g = 0; g < w; ++g) moments[g] = {double(sum[g]), double(square[g])};
}

/// group_moments() with pivot(g) for group g.
template <class Arch, class Pivot>
inline void moments_of_groups(std::span<const float> x, Index width, Pivot&& pivot,
                              std::span<Moments> moments) noexcept {
  constexpr Index w = Index(Batch<float, Arch>::size);
  Index done = 0;
  if (width % lanes == 0 && width <= longest_piece / 8)
    with_width(width, [&](auto n) {
      for (; (done + w) * n <= Index(x.size()); done += w)
        vector_of_moments<Arch>(
            x.data() + done * n, n, [&](Index g) { return pivot(done + g); },
            moments.data() + done);
    });
  for_each_group(x, width, done, [&](std::size_t g, std::span<const float> group) {
    moments[g] = kernel::moments<Arch>(group, pivot(Index(g)));
  });
}

}  // namespace detail

/// moments[g] = moments() of group g of x, or of its distances from pivot[g]. Groups of a multiple
/// of 16 up to 512 are taken a vector of groups at a time, others one by one.
template <class Arch = DefaultArch>
void group_moments(std::span<const float> x, Index width, std::span<const float> pivot,
                   std::span<Moments> moments) noexcept {
  CAFEQ_ASSERT(width > 0 && Index(moments.size()) == ceil_div(Index(x.size()), width) &&
               (pivot.empty() || pivot.size() == moments.size()));
  if (pivot.empty())
    return detail::moments_of_groups<Arch>(x, width, [](Index) { return 0.0f; }, moments);
  detail::moments_of_groups<Arch>(x, width, [p = pivot.data()](Index g) { return p[g]; }, moments);
}
template <class Arch = DefaultArch>
void group_moments(std::span<const float> x, Index width, std::span<Moments> moments) noexcept {
  group_moments<Arch>(x, width, {}, moments);
}

}  // namespace cafeq::kernel
