/// The sums over a group from which least squares finds the best scale and offset for the levels
/// that its weights have now.
///
/// With y and u as in kernel/units.hpp and l the level nearest to u, counted from the grid's zero:
/// Σ l, Σ l² and Σ y l. They run in the fixed order of kernel/lane_order.hpp by explicit fused
/// multiply-adds, so a compiler has no say in which scale comes out.
#pragma once

#include <algorithm>
#include <cmath>

#include "cafeq/kernel/units.hpp"

namespace cafeq::kernel {

/// Sums over each group of y and its levels l at one candidate. Without an offset `level` stays
/// zero.
struct LevelSums {
  alignas(each_alignment) Each<float> level{};          ///< Σ l
  alignas(each_alignment) Each<float> level_squares{};  ///< Σ l²
  alignas(each_alignment) Each<float> product{};        ///< Σ y l
};

namespace detail {

/// The lanes of the sums of LevelSums over one piece of a group.
template <class Arch, class Levels, class Size>
inline void level_lanes(Piece<Size> piece, Levels levels, float pivot, float inverse, float shift,
                        Batch<float, Arch>& level, Batch<float, Arch>& level_squares,
                        Batch<float, Arch>& product) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index parts = lane_parts<Arch>;
  constexpr bool has_offset = Levels::has_offset;
  const V origin(pivot), per_unit(inverse), start(has_offset ? shift : -level_bias(levels)),
      bias(level_bias(levels));
  V l[parts], ll[parts], yl[parts];
  CAFEQ_UNROLL
  for (Index p = 0; p < parts; ++p) l[p] = ll[p] = yl[p] = V(0.0f);
  for_each_vector<Arch>(piece.x, piece.n, [&](Index p, const V& v, auto keep) {
    const V y = simd::in_register(relative(levels, v, origin));
    V nearest_level = nearest(levels, simd::fma(y, per_unit, start));
    if constexpr (!has_offset) nearest_level = nearest_level + bias;
    nearest_level = keep(nearest_level);
    if constexpr (has_offset) l[p] = l[p] + nearest_level;
    ll[p] = simd::fma(nearest_level, nearest_level, ll[p]);
    yl[p] = simd::fma(y, nearest_level, yl[p]);
  });
  if constexpr (has_offset) level = sum_of_parts<Arch>(l);
  level_squares = sum_of_parts<Arch>(ll);
  product = sum_of_parts<Arch>(yl);
}

}  // namespace detail

/// The sums for one least-squares step of every group from its candidate. An offset needs levels
/// that start at zero.
template <class Arch = DefaultArch, class Levels>
LevelSums level_sums(const GroupSpan& groups, const Levels& levels, const Units& units) noexcept {
  // A group that is read piece by piece is alone; said as a constant, so that g++ 12 sees which of
  // the lanes below are set.
  const bool piecewise = groups.width > detail::longest_piece;
  const Index count = piecewise ? 1 : groups.count();
  CAFEQ_ASSERT(groups.count() <= (piecewise ? 1 : groups_at_once) &&
               !(Levels::has_offset && level_bias(levels) != 0));
  Batch<float, Arch> level[groups_at_once], level_squares[groups_at_once], product[groups_at_once];
  const auto sums_of = [&](auto piece) {
    for (Index g = 0; g < count; ++g)
      detail::level_lanes<Arch>(piece(g), levels, Levels::has_offset ? groups.pivot[g] : 0.0f,
                                units.inverse[std::size_t(g)], units.shift[std::size_t(g)],
                                level[g], level_squares[g], product[g]);
  };
  LevelSums total;
  const auto add = [&](auto& l, auto& ll, auto& yl) {
    if constexpr (Levels::has_offset) detail::add_sums<Arch>(level, count, l);
    detail::add_sums<Arch>(level_squares, count, ll);
    detail::add_sums<Arch>(product, count, yl);
  };
  if (!piecewise) {
    detail::for_each_piece(groups, sums_of,
                           [&] { add(total.level, total.level_squares, total.product); });
    return total;
  }
  Each<double> sums[3] = {};
  detail::for_each_piece(groups, sums_of, [&] { add(sums[0], sums[1], sums[2]); });
  total.level[0] = float(sums[0][0]);
  total.level_squares[0] = float(sums[1][0]);
  total.product[0] = float(sums[2][0]);
  return total;
}

/// The meaning of level_sums(), weight by weight.
template <class Levels>
LevelSums level_sums_reference(const GroupSpan& groups, const Levels& levels,
                               const Units& units) noexcept {
  LevelSums sums;
  const float bias = Levels::has_offset ? 0.0f : level_bias(levels);
  for (std::size_t g = 0; g < std::size_t(groups.count()); ++g) {
    float l[detail::lanes] = {}, ll[detail::lanes] = {}, yl[detail::lanes] = {};
    double total[3] = {};
    detail::for_each_weight(
        groups, g, levels, units,
        [&](std::size_t lane, float y, float nearest_level, float) {
          const float level = nearest_level + bias;
          if constexpr (Levels::has_offset) l[lane] += level;
          ll[lane] = std::fma(level, level, ll[lane]);
          yl[lane] = std::fma(y, level, yl[lane]);
        },
        [&] {
          total[0] += double(detail::sum_of_lanes_reference(l));
          total[1] += double(detail::sum_of_lanes_reference(ll));
          total[2] += double(detail::sum_of_lanes_reference(yl));
          for (auto* sum : {l, ll, yl}) std::fill(sum, sum + detail::lanes, 0.0f);
        });
    sums.level[g] = float(total[0]);
    sums.level_squares[g] = float(total[1]);
    sums.product[g] = float(total[2]);
  }
  return sums;
}

}  // namespace cafeq::kernel
