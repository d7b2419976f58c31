/// What a scale costs a group: squared errors at many scales and offsets in one pass, and the sums
/// from which least squares finds a better one.
///
/// A weight in units of the scale is u = fma(y, 1/s, shift) with y = x − pivot: its level c is the
/// nearest, its error (u − c)·s. `levels` is a function object as kernel/codec.hpp has them; those
/// of a uniform grid are counted from zero, so their clamp needs no sign. Sums run in the fixed
/// lane order of kernel/stats.hpp by explicit fused multiply-adds, so a compiler has no say in
/// which scale wins.
/// Longer than most headers: the two passes, errors and level sums, share one loop over groups and
/// vectors, and each has its reference beside it.
#pragma once

#include <array>

#include "cafeq/kernel/codec.hpp"

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

/// What takes the levels that these kernels count to those of the grid; −bias is the shift without
/// an offset.
template <class Levels>
float level_bias(const Levels& levels) noexcept {
  if constexpr (requires { levels.bias(); }) return levels.bias();
  else return 0.0f;
}

/// How the groups are seen at a candidate: u = fma(y, inverse, shift). Without an offset the shift
/// is −level_bias() and not read. Nothing is cleared: only what belongs to a group is read.
struct Units {
  alignas(each_alignment) Each<float> inverse;
  alignas(each_alignment) Each<float> shift;
};

/// Sums over each group of y and its levels l at one candidate. Without an offset `level` stays
/// zero.
struct LevelSums {
  alignas(each_alignment) Each<float> level{};          ///< Σ l
  alignas(each_alignment) Each<float> level_squares{};  ///< Σ l²
  alignas(each_alignment) Each<float> product{};        ///< Σ y l
};

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

template <class Levels>
concept Counted = requires(const Levels& levels, float u) { levels.nearest(u); };

template <class Levels, class V>
V relative(const Levels& levels, const V& x, const V& pivot) noexcept {
  if constexpr (Levels::has_offset) return x - pivot;
  else if constexpr (Counted<Levels>) return levels.fold(x);
  else return x;
}
template <class Levels, class V>
V nearest(const Levels& levels, const V& u) noexcept {
  if constexpr (Counted<Levels>) return levels.nearest(u);
  else return levels(u);
}

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

/// n weights of a group; Size may be a constant.
template <class Size>
struct Block {
  const float* x;
  Size n;
};

/// f(block) for blocks of at most 4096 of each of the groups, where block(g) is that of group g;
/// after those that begin alike, done().
template <class F, class Done>
inline void for_each_blocks(const GroupSpan& groups, F&& f, Done&& done) noexcept {
  const Index n = Index(groups.x.size()), width = groups.width;
  const float* x = groups.x.data();
  if (n == groups_at_once * width && width <= lane_block) {
    with_width(width, [&](auto known) {
      f([&](Index g) { return Block<decltype(known)>{x + g * known, known}; });
    });
    done();
  } else if (width <= lane_block) {
    f([&](Index g) { return Block<Index>{x + g * width, std::min(width, n - g * width)}; });
    done();
  } else {  // a single group
    for (Index begin = 0; begin < n; begin += lane_block) {
      f([&](Index) { return Block<Index>{x + begin, std::min(lane_block, n - begin)}; });
      done();
    }
  }
}

inline constexpr Index candidates_at_once = 4;

/// out[c · groups_at_once] = the lanes of Σ (u − level)² at candidate c.
template <Index Count, class Arch, class Levels, class Size>
inline void candidate_errors(Block<Size> block, Levels levels, float pivot, const Units* units,
                             Index g, Batch<float, Arch>* out) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index parts = lane_parts<Arch>;
  V sum[Count][parts], inverse[Count], shift[Count];
  const V origin(pivot), fixed_shift(-level_bias(levels));
  CAFEQ_UNROLL
  for (Index c = 0; c < Count; ++c) {
    inverse[c] = V(units[c].inverse[std::size_t(g)]);
    shift[c] = Levels::has_offset ? V(units[c].shift[std::size_t(g)]) : fixed_shift;
    CAFEQ_UNROLL
    for (Index p = 0; p < parts; ++p) sum[c][p] = V(0.0f);
  }
  for_each_vector<Arch>(block.x, block.n, [&](Index p, const V& v, auto keep) {
    const V y = simd::in_register(relative(levels, v, origin));
    CAFEQ_UNROLL
    for (Index c = 0; c < Count; ++c) {
      const V u = simd::fma(y, inverse[c], Levels::has_offset ? shift[c] : fixed_shift);
      const V error = keep(u - nearest(levels, u));
      sum[c][p] = simd::fma(error, error, sum[c][p]);
    }
  });
  CAFEQ_UNROLL
  for (Index c = 0; c < Count; ++c) out[c * groups_at_once] = sum_of_parts<Arch>(sum[c]);
}

template <Index Count, class Arch, class Levels>
inline void candidates_errors(const GroupSpan& groups, const Levels& levels, const Units* units,
                              Each<float>* errors) noexcept {
  const Index count = groups.count();
  Batch<float, Arch> partial[Count * groups_at_once];
  const auto errors_of = [&](auto block) {
    for (Index g = 0; g < count; ++g)
      candidate_errors<Count, Arch>(block(g), levels, Levels::has_offset ? groups.pivot[g] : 0.0f,
                                    units, g, partial + g);
  };
  if (groups.width <= lane_block) {
    for_each_blocks(groups, errors_of, [&] {
      for (Index c = 0; c < Count; ++c) {
        errors[c] = {};
        add_sums<Arch>(partial + c * groups_at_once, count, errors[c]);
      }
    });
  } else {
    Each<double> sums[Count] = {};
    for_each_blocks(groups, errors_of, [&] {
      for (Index c = 0; c < Count; ++c)
        add_sums<Arch>(partial + c * groups_at_once, count, sums[c]);
    });
    for (Index c = 0; c < Count; ++c)
      for (std::size_t g = 0; g < sums[c].size(); ++g) errors[c][g] = float(sums[c][g]);
  }
}

}  // namespace detail

/// errors[c][g] = Σ (u − level)² of group g at candidate c: the squared error in units of the
/// scale's square.
template <class Arch = DefaultArch, class Levels>
void unit_errors(const GroupSpan& groups, const Levels& levels, std::span<const Units> units,
                 std::span<Each<float>> errors) noexcept {
  CAFEQ_ASSERT(errors.size() == units.size() && groups.count() <= groups_at_once &&
               (groups.count() <= 1 || groups.width <= detail::lane_block));
  constexpr std::size_t many = std::size_t(detail::candidates_at_once);
  for (; units.size() >= many; units = units.subspan(many), errors = errors.subspan(many))
    detail::candidates_errors<many, Arch>(groups, levels, units.data(), errors.data());
  for (; !units.empty(); units = units.subspan(1), errors = errors.subspan(1))
    detail::candidates_errors<1, Arch>(groups, levels, units.data(), errors.data());
}

namespace detail {

/// The lanes of the sums of LevelSums over one block of a group.
template <class Arch, class Levels, class Size>
inline void level_lanes(Block<Size> block, Levels levels, float pivot, float inverse, float shift,
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
  for_each_vector<Arch>(block.x, block.n, [&](Index p, const V& v, auto keep) {
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
  const Index count = groups.count();
  CAFEQ_ASSERT(count <= groups_at_once && (count <= 1 || groups.width <= detail::lane_block) &&
               !(Levels::has_offset && level_bias(levels) != 0));
  Batch<float, Arch> level[groups_at_once], level_squares[groups_at_once], product[groups_at_once];
  const auto sums_of = [&](auto block) {
    for (Index g = 0; g < count; ++g)
      detail::level_lanes<Arch>(block(g), levels, Levels::has_offset ? groups.pivot[g] : 0.0f,
                                units.inverse[std::size_t(g)], units.shift[std::size_t(g)],
                                level[g], level_squares[g], product[g]);
  };
  LevelSums total;
  const auto add = [&](auto& l, auto& ll, auto& yl) {
    if constexpr (Levels::has_offset) detail::add_sums<Arch>(level, count, l);
    detail::add_sums<Arch>(level_squares, count, ll);
    detail::add_sums<Arch>(product, count, yl);
  };
  if (groups.width <= detail::lane_block) {
    detail::for_each_blocks(groups, sums_of,
                            [&] { add(total.level, total.level_squares, total.product); });
    return total;
  }
  Each<double> sums[3] = {};
  detail::for_each_blocks(groups, sums_of, [&] { add(sums[0], sums[1], sums[2]); });
  total.level[0] = float(sums[0][0]);
  total.level_squares[0] = float(sums[1][0]);
  total.product[0] = float(sums[2][0]);
  return total;
}

namespace detail {

/// f(lane, y, level, u) for the weights of a group seen at a candidate; after each block of 4096,
/// and at the end, done().
template <class Levels, class F, class Done>
void for_each_weight(const GroupSpan& groups, std::size_t g, const Levels& levels,
                     const Units& units, F&& f, Done&& done) noexcept {
  const float pivot = Levels::has_offset ? groups.pivot[g] : 0.0f;
  const float shift = Levels::has_offset ? units.shift[g] : -level_bias(levels);
  for_each_block(groups.group(Index(g)), [&](std::span<const float> block) {
    for (std::size_t i = 0; i < block.size(); ++i) {
      const float y = relative(levels, block[i], pivot);
      const float u = std::fma(y, units.inverse[g], shift);
      f(i % std::size_t(lanes), y, nearest(levels, u), u);
    }
    done();
  });
}

}  // namespace detail

template <class Levels>
void unit_errors_reference(const GroupSpan& groups, const Levels& levels,
                           std::span<const Units> units, std::span<Each<float>> errors) noexcept {
  for (std::size_t c = 0; c < units.size(); ++c) {
    errors[c] = {};
    for (std::size_t g = 0; g < std::size_t(groups.count()); ++g) {
      float sum[detail::lanes] = {};
      double total = 0;
      detail::for_each_weight(
          groups, g, levels, units[c],
          [&](std::size_t lane, float, float level, float u) {
            sum[lane] = std::fma(u - level, u - level, sum[lane]);
          },
          [&] {
            total += double(detail::sum_of_lanes_reference(sum));
            std::fill(sum, sum + detail::lanes, 0.0f);
          });
      errors[c][g] = float(total);
    }
  }
}

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

namespace detail {

/// Σ (x − value)².
template <class Arch>
double squared_distance(std::span<const float> x, float value) noexcept {
  using V = Batch<float, Arch>;
  double total = 0;
  for_each_block(x, [&](std::span<const float> block) {
    V sum[lane_parts<Arch>];
    CAFEQ_UNROLL
    for (Index p = 0; p < lane_parts<Arch>; ++p) sum[p] = V(0.0f);
    for_each_vector<Arch>(block, [&](Index p, const V& v, auto keep) {
      const V error = keep(v - V(value));
      sum[p] = simd::fma(error, error, sum[p]);
    });
    total += double(sum_of_lanes<Arch>(sum));
  });
  return total;
}

}  // namespace detail

/// errors[c] = Σ (x − x̂)² of one group at candidates[c].
template <class Arch = DefaultArch, class Levels>
void squared_errors(std::span<const float> x, const Levels& levels,
                    std::span<const ScaleOffset> candidates, std::span<double> errors) noexcept {
  CAFEQ_ASSERT(errors.size() == candidates.size());
  constexpr std::size_t many = 16;
  const float pivot = candidates.empty() ? 0.0f : candidates[0].offset;
  const float bias = level_bias(levels);
  std::array<Units, many> units;
  std::array<Each<float>, many> sums;
  for (std::size_t begin = 0; begin < candidates.size(); begin += many) {
    const auto some = candidates.subspan(begin, std::min(many, candidates.size() - begin));
    for (std::size_t c = 0; c < some.size(); ++c) {
      units[c].inverse[0] = inverse_scale(some[c].scale);
      units[c].shift[0] =
          std::fma(pivot - some[c].offset, Levels::has_offset ? units[c].inverse[0] : 0.0f, -bias);
    }
    unit_errors<Arch>({x, std::max<Index>(1, Index(x.size())), &pivot}, levels,
                      std::span<const Units>(units).first(some.size()),
                      std::span(sums).first(some.size()));
    for (std::size_t c = 0; c < some.size(); ++c) {
      const double scale = double(some[c].scale);
      errors[begin + c] = scale != 0 ? scale * scale * double(sums[c][0])
                                     : detail::squared_distance<Arch>(
                                           x, Levels::has_offset ? some[c].offset : 0.0f);
    }
  }
}

/// errors[g] = Σ (x − x̂)² of group g at its scale and offset, without x̂ in memory.
template <class Arch = DefaultArch, class Levels>
void group_errors(GroupSpan groups, const Levels& levels, const Each<float>& scale,
                  const Each<float>& offset, std::span<double> errors) noexcept {
  CAFEQ_ASSERT(Index(errors.size()) == groups.count());
  groups.pivot = offset.data();
  using V = Batch<float, Arch>;
  const V shift(-level_bias(levels)), zero(0.0f);
  Units units;
  bool vanished = false;  // some scale
  for (std::size_t g = 0; g < scale.size(); g += V::size) {
    const V s = V::load_unaligned(scale.data() + g);
    const auto usable = s != zero;
    vanished |= !xsimd::all(usable);
    xsimd::select(usable, V(1.0f) / s, zero).store_unaligned(units.inverse.data() + g);
    shift.store_unaligned(units.shift.data() + g);
  }
  alignas(each_alignment) Each<float> sums;
  unit_errors<Arch>(groups, levels, {&units, 1}, {&sums, 1});
  Each<double> squares;
  for (std::size_t g = 0; g < squares.size(); ++g)
    squares[g] = double(scale[g]) * double(scale[g]) * double(sums[g]);
  if (errors.size() == squares.size()) std::copy_n(squares.data(), squares.size(), errors.data());
  else std::copy_n(squares.data(), errors.size(), errors.data());
  if (!vanished) return;
  for (std::size_t g = 0; g < errors.size(); ++g)
    if (scale[g] == 0)
      errors[g] = detail::squared_distance<Arch>(groups.group(Index(g)),
                                                 Levels::has_offset ? offset[g] : 0.0f);
}

}  // namespace cafeq::kernel
