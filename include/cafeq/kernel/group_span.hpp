/// A few groups that are looked at side by side, and a number for each of them.
#pragma once

#include <algorithm>
#include <array>
#include <span>

#include "cafeq/kernel/lane_order.hpp"

namespace cafeq::kernel {

/// Groups that a search takes side by side: what there is to do for each of them is done for all in
/// a few vectors.
inline constexpr Index groups_at_once = std::max<Index>(16, Index(Batch<float>::size));

/// A number for each of the groups.
template <class T>
using Each = std::array<T, std::size_t(groups_at_once)>;
/// That of a vector of them, no more: gaps would have to be cleared too, which takes g++ a slow
/// instruction.
inline constexpr std::size_t each_alignment = sizeof(Each<float>);

/// Consecutive groups of `width` weights, at most groups_at_once, the last one perhaps shorter;
/// only one where width is above 4096.
struct GroupSpan {
  std::span<const float> x;
  Index width = 0;
  const float* pivot = nullptr;  ///< one a group, for grids with an offset

  Index count() const noexcept {
    return Index(x.size()) == groups_at_once * width ? groups_at_once
                                                     : ceil_div(Index(x.size()), width);
  }
  std::span<const float> group(Index g) const noexcept {
    return x.subspan(std::size_t(g * width),
                     std::size_t(std::min(width, Index(x.size()) - g * width)));
  }
};

namespace detail {

/// sums[g] += the sum over the lanes of v[g], for all groups.
template <class Arch, class T>
inline void add_sums(const Batch<float, Arch>* v, Index count, Each<T>& sums) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index w = Index(V::size);
  alignas(each_alignment) Each<float> sum{};
  if (count == groups_at_once) {
    CAFEQ_UNROLL
    for (Index g = 0; g < groups_at_once; g += w)
      simd::reduce_rows<Arch>(v + g, [](const V& a, const V& b) {
        return a + b;
      }).store_unaligned(sum.data() + g);
  } else {
    for (Index g = 0; g < count; ++g) sum[std::size_t(g)] = simd::reduce_add(v[g]);
  }
  for (std::size_t g = 0; g < sum.size(); ++g) sums[g] += T(sum[g]);
}

/// n consecutive weights of a group; Size may be a constant.
template <class Size>
struct Piece {
  const float* x;
  Size n;
};

/// f(piece) for pieces of at most 4096 weights of each of the groups, where piece(g) is that of
/// group g; after those that begin alike, done().
template <class F, class Done>
inline void for_each_piece(const GroupSpan& groups, F&& f, Done&& done) noexcept {
  const Index n = Index(groups.x.size()), width = groups.width;
  const float* x = groups.x.data();
  if (n == groups_at_once * width && width <= longest_piece) {
    with_width(width, [&](auto known) {
      f([&](Index g) { return Piece<decltype(known)>{x + g * known, known}; });
    });
    done();
  } else if (width <= longest_piece) {
    f([&](Index g) { return Piece<Index>{x + g * width, std::min(width, n - g * width)}; });
    done();
  } else {  // a single group
    for (Index begin = 0; begin < n; begin += longest_piece) {
      f([&](Index) { return Piece<Index>{x + begin, std::min(longest_piece, n - begin)}; });
      done();
    }
  }
}

}  // namespace detail

}  // namespace cafeq::kernel
