/// How the scale (and offset) of a group is found: one search for every grid whose values are scale
/// · level + offset.
///
/// mse: 24 candidates, the range times 1 … a fraction that depends on the bits, strict < keeping
/// the first of equals; from the best, up to 4 alternations of codes and least squares,
/// over-relaxed. The same from what the spread of the weights suggests, where that lies below all
/// candidates (one huge outlier) or where there is an offset, which least squares alone moves too
/// slowly (worth 1 to 2 % of the error). All of these and the whole range are then compared at the
/// precision in which they are stored, so the error is never above that of the range. Sixteen
/// groups are searched side by side; none of them notices the others.
/// Longer than most headers: ranges, refinement and the final choice work on the same structures of
/// arrays.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "cafeq/kernel/error.hpp"

namespace cafeq {

enum class ScaleSearch {
  minmax,  ///< the levels span the group's smallest to largest weight; grids without an offset take
           ///< it as absmax
  absmax,  ///< the levels span −absmax … absmax
  mse,     ///< the least squared error that the search finds
};

using kernel::Each;
using kernel::each_alignment;
using kernel::GroupSpan;
using Line = kernel::ScaleOffset;

/// A line for each of some groups.
struct Lines {
  alignas(each_alignment) Each<float> scale{};
  alignas(each_alignment) Each<float> offset{};
};

/// Where the search looks, for each of some groups.
struct SearchSpace {
  Lines widest;  ///< no weight is clipped: the first candidate; its sign of scale is that of all
  alignas(each_alignment)
      Each<float> center{};  ///< what the range shrinks towards (without an offset: zero)
  alignas(each_alignment) Each<float> typical{};  ///< the scale that the spread of the weights
                                                  ///< suggests, about the center; 0 for none
  float narrowest = 0.5f;  ///< the last candidate as a fraction of the widest
  const Each<float>* zero =
      nullptr;  ///< where the offset is not free: it is −zero steps; the center is 0
};

/// Lines and their squared errors in units of the widest scale's square.
struct ScoredLines {
  Lines lines;
  alignas(each_alignment) Each<float> error{};
};

/// Ranges that the search tries, from the whole one down.
inline constexpr int range_candidates = 24;
/// Rounds of least squares at most; all but the last go further than least squares says by this
/// factor, which takes a fraction of the rounds.
inline constexpr int refinement_rounds = 4;
template <bool HasOffset>
inline constexpr float over_relaxation = HasOffset ? 2.5f : 2.0f;
/// A step, in units of the scale, that ends them.
inline constexpr float settled = 0x1p-12f;

/// The narrowest candidate of a grid of `bits`: the fewer levels, the more is worth clipping.
constexpr float narrowest_fraction(int bits) noexcept {
  return bits <= 2 ? 0.2f : bits == 3 ? 0.3f : bits == 4 ? 0.4f : 0.5f;
}

/// The step of the uniform grid of 2^bits levels that suits a Gaussian of unit variance best.
constexpr float gaussian_step(int bits) noexcept {
  constexpr std::array<float, 7> steps{0.99568670f, 0.58601945f, 0.33520061f, 0.18813879f,
                                       0.10406301f, 0.05686766f, 0.03076239f};
  return steps[std::size_t(bits < 2 ? 0 : bits > 8 ? 6 : bits - 2)];
}

/// A line and its squared error.
struct ScoredLine {
  Line line;
  double error = 0;
};

/// The first of the lines with the least squared error. At least one line, at most 64.
template <class Levels>
ScoredLine best_line(std::span<const float> x, const Levels& levels,
                     std::span<const Line> lines) noexcept {
  CAFEQ_ASSERT(!lines.empty() && lines.size() <= 64);
  std::array<double, 64> errors;
  kernel::squared_errors(x, levels, lines, std::span(errors).first(lines.size()));
  std::size_t best = 0;
  for (std::size_t c = 1; c < lines.size(); ++c)
    if (errors[c] < errors[best]) best = c;
  return {lines[best], errors[best]};
}

namespace detail {

inline constexpr std::size_t groups_at_once = std::size_t(kernel::groups_at_once);

using Lane = Batch<float>;

/// f(g) for the first group of every vector of groups.
template <class F>
void for_each_lanes(F&& f) noexcept {
  CAFEQ_UNROLL
  for (std::size_t g = 0; g < groups_at_once; g += Lane::size) f(g);
}
inline Lane load(const Each<float>& each, std::size_t g) noexcept {
  return Lane::load_unaligned(each.data() + g);
}
inline void store(Each<float>& each, std::size_t g, const Lane& v) noexcept {
  v.store_unaligned(each.data() + g);
}

inline Lane inverse_of(const Lane& scale) noexcept {
  return xsimd::select(scale != Lane(0.0f), Lane(1.0f) / scale, Lane(0.0f));
}

inline Lane pivot_of(const GroupSpan& groups, std::size_t g) noexcept {
  return Lane::load_unaligned(groups.pivot + g);
}

/// How the groups are seen at some lines.
template <class Levels>
void set_units(const GroupSpan& groups, const Lines& lines, kernel::Units& units) noexcept {
  for_each_lanes([&](std::size_t g) {
    const Lane inverse = inverse_of(load(lines.scale, g));
    store(units.inverse, g, inverse);
    if constexpr (Levels::has_offset)
      store(units.shift, g, (pivot_of(groups, g) - load(lines.offset, g)) * inverse);
  });
}

/// Of `Count` lines a group, the first with the least error.
template <std::size_t Count, class Levels>
ScoredLines best_of(const GroupSpan& groups, const Levels& levels, const SearchSpace& space,
                    const std::array<Lines, Count>& lines) noexcept {
  std::array<kernel::Units, Count> units;
  std::array<Each<float>, Count> errors;
  for (std::size_t c = 0; c < Count; ++c) set_units<Levels>(groups, lines[c], units[c]);
  kernel::unit_errors(groups, levels, std::span<const kernel::Units>(units), std::span(errors));
  ScoredLines best;
  for_each_lanes([&](std::size_t g) {
    const Lane per_widest = inverse_of(load(space.widest.scale, g));
    const auto error_of = [&](std::size_t c) {
      const Lane scale = load(lines[c].scale, g) * per_widest;
      return load(errors[c], g) * (scale * scale);
    };
    Lane scale = load(lines[0].scale, g), offset = load(lines[0].offset, g), least = error_of(0);
    for (std::size_t c = 1; c < Count; ++c) {
      const Lane other = load(lines[c].scale, g), error = error_of(c);
      const auto better =
          (error < least) &
          (other !=
           Lane(
               0.0f));  // a scale that vanished in its format is never better than one that did not
      least = xsimd::select(better, error, least);
      scale = xsimd::select(better, other, scale);
      if constexpr (Levels::has_offset)
        offset = xsimd::select(better, load(lines[c].offset, g), offset);
    }
    store(best.error, g, least);
    store(best.lines.scale, g, scale);
    store(best.lines.offset, g, offset);
  });
  return best;
}

}  // namespace detail

/// The best of the ranges, unrounded.
template <class Levels>
ScoredLines search_ranges(const GroupSpan& groups, const Levels& levels,
                          const SearchSpace& space) noexcept {
  using namespace detail;
  constexpr std::size_t count = std::size_t(range_candidates);
  std::array<Lines, count> lines;
  for (std::size_t c = 0; c < count; ++c) {
    const Lane narrower((1.0f - space.narrowest) * (float(c) / float(count - 1)));
    for_each_lanes([&](std::size_t g) {
      const Lane scale = load(space.widest.scale, g), offset = load(space.widest.offset, g);
      store(lines[c].scale, g, simd::fnma(narrower, scale, scale));
      if constexpr (Levels::has_offset)
        store(lines[c].offset, g, simd::fma(narrower, load(space.center, g) - offset, offset));
    });
  }
  return best_of(groups, levels, space, lines);
}

/// Alternations of nearest codes and least squares, unrounded. A group comes to its end where its
/// line moves by less than matters, or where a step would turn the sign of the scale or is not
/// finite.
template <class Levels>
void refine_lines(const GroupSpan& groups, const Levels& levels, Lines& lines,
                  const Each<float>* zero = nullptr, int rounds = refinement_rounds) noexcept {
  using namespace detail;
  const std::size_t count = std::size_t(groups.count());
  Each<float> size{}, per_size{}, sum{};
  for (std::size_t g = 0; g < count; ++g) {
    size[g] = float(groups.group(Index(g)).size());
    per_size[g] = 1.0f / size[g];
  }
  if constexpr (Levels::has_offset) {
    Each<kernel::Moments> moments;
    kernel::group_moments(groups.x, groups.width, {groups.pivot, count},
                          std::span(moments).first(count));
    for (std::size_t g = 0; g < count; ++g) sum[g] = float(moments[g].sum);
  }
  Lines last;            // the steps before
  Each<float> active{};  // 1 until a group has come to its end
  std::fill_n(active.begin(), count, 1.0f);
  for (int round = 0; round < rounds; ++round) {
    kernel::Units units;
    set_units<Levels>(groups, lines, units);
    const kernel::LevelSums sums = kernel::level_sums(groups, levels, units);
    const Lane further(round + 1 < rounds ? over_relaxation<Levels::has_offset> - 1.0f : 0.0f);
    // Further along a small step, unless it turns back from the one before.
    const auto extended = [&](const Lane& step, const Lane& before, const Lane& small) {
      return simd::fma(xsimd::select((step * before >= Lane(0.0f)) & (xsimd::abs(step) < small),
                                     further, Lane(0.0f)),
                       step, step);
    };
    bool moving = false;
    for_each_lanes([&](std::size_t g) {
      const Lane now = load(lines.scale, g), level_squares = load(sums.level_squares, g),
                 product = load(sums.product, g);
      Lane scale, offset_step(0.0f);
      if constexpr (Levels::has_offset) {
        const Lane level = load(sums.level, g), mean_level = level * load(per_size, g);
        Lane offset;
        if (zero != nullptr) {  // levels l − z: Σ x (l − z) / Σ (l − z)²
          const Lane z = load(*zero, g);
          scale = simd::fnma(z, load(sum, g), product) /
                  simd::fma(z, simd::fms(z, load(size, g), level + level), level_squares);
          offset = Lane(0.0f) - z * scale;
        } else {
          scale = simd::fnma(load(sum, g), mean_level, product) /
                  simd::fnma(level, mean_level, level_squares);
          offset = simd::fma(simd::fnma(scale, level, load(sum, g)), load(per_size, g),
                             pivot_of(groups, g));
        }
        offset_step = offset - load(lines.offset, g);
      } else {
        scale = product / level_squares;
      }
      const Lane scale_step = scale - now;
      scale = now + extended(scale_step, load(last.scale, g), Lane(0.25f) * xsimd::abs(now));
      const Lane step = xsimd::max(xsimd::abs(scale_step), xsimd::abs(offset_step));
      // No NaN, no infinity, no turn of the sign passes.
      const auto usable = (load(active, g) > Lane(0.0f)) & (scale * now > Lane(0.0f)) &
                          (xsimd::abs(scale) + step <= Lane(std::numeric_limits<float>::max()));
      const auto moves = usable & (step > Lane(settled) * xsimd::abs(now));
      moving |= xsimd::any(moves);
      store(active, g, xsimd::select(moves, Lane(1.0f), Lane(0.0f)));
      store(lines.scale, g, xsimd::select(usable, scale, now));
      store(last.scale, g, scale_step);
      if constexpr (Levels::has_offset) {
        const Lane offset = load(lines.offset, g);
        if (zero != nullptr)
          store(lines.offset, g, Lane(0.0f) - load(*zero, g) * load(lines.scale, g));
        else
          store(lines.offset, g,
                xsimd::select(usable,
                              offset + extended(offset_step, load(last.offset, g), xsimd::abs(now)),
                              offset));
        store(last.offset, g, offset_step);
      }
    });
    if (!moving) return;
  }
}

/// The whole search. With an offset groups.pivot is that of an Each; store(lines) makes them what
/// the format keeps, and what is returned has been through it.
template <class Levels, class Store>
ScoredLines search_lines(const GroupSpan& groups, const Levels& levels, const SearchSpace& space,
                         Store&& store) noexcept {
  std::array<Lines, 4> finalists;
  finalists[0] = space.widest;
  finalists[1] = finalists[2] = search_ranges(groups, levels, space).lines;
  refine_lines(groups, levels, finalists[2], space.zero);
  finalists[3] = space.widest;
  bool try_typical = false;
  for (std::size_t g = 0; g < detail::groups_at_once; ++g) {
    const float widest = std::abs(space.widest.scale[g]), typical = std::abs(space.typical[g]);
    if (typical == 0 || !(Levels::has_offset || typical < widest * space.narrowest)) continue;
    try_typical = true;
    finalists[3].scale[g] = space.typical[g];
    if constexpr (Levels::has_offset)
      finalists[3].offset[g] = std::fma(space.zero ? -(*space.zero)[g] : -0.5f * levels.high,
                                        space.typical[g], space.center[g]);
  }
  if (try_typical) refine_lines(groups, levels, finalists[3], space.zero);
  for (Lines& lines : finalists) store(lines);
  return detail::best_of(groups, levels, space, finalists);
}

namespace detail {

/// The nearest fp16 that is finite.
inline fp16 finite_fp16(float value) noexcept {
  return fp16(std::fmin(std::fmax(value, -fp16_max), fp16_max));
}
inline Each<fp16> finite_fp16(const Each<float>& values) noexcept {
  Each<fp16> halves;
  for (std::size_t g = 0; g < groups_at_once; g += Lane::size)
    simd::store_float<DefaultArch>(
        halves.data() + g,
        xsimd::min(xsimd::max(load(values, g), Lane(-fp16_max)), Lane(fp16_max)));
  return halves;
}
inline void round_to_fp16(Each<float>& values) noexcept {
  const Each<fp16> halves = finite_fp16(values);
  for (std::size_t g = 0; g < groups_at_once; g += Lane::size)
    store(values, g, simd::load_float<DefaultArch>(halves.data() + g));
}

/// Copies what `count` groups have, mostly as many as usual.
template <class T>
void copy_groups(const T* from, std::size_t count, T* to) noexcept {
  if (count == groups_at_once) std::copy_n(from, groups_at_once, to);
  else std::copy_n(from, count, to);
}

/// The scales of parameters that are one fp16 each.
template <class Params>
Each<float> stored_scales(std::span<const Params> params) noexcept {
  Each<Params> all{};
  copy_groups(params.data(), params.size(), all.data());
  const auto halves = std::bit_cast<Each<fp16>>(all);
  Each<float> values;
  for (std::size_t g = 0; g < groups_at_once; g += Lane::size)
    store(values, g, simd::load_float<DefaultArch>(halves.data() + g));
  return values;
}

/// x̂ = scale · code + offset, for lines without offset whose code 0 is the level `base`.
inline Lines lines_of_codes(const Lines& lines, float base) noexcept {
  Lines found = lines;
  for (std::size_t g = 0; g < found.scale.size(); ++g) found.offset[g] = found.scale[g] * base;
  return found;
}

/// Lines without offset as fp16 scales keep them.
inline void scales_in_fp16(Lines& lines) noexcept { round_to_fp16(lines.scale); }

/// f(number of the first group, groups) for the groups of a row, as many at once as a search takes.
template <class F>
void for_each_groups(std::span<const float> x, Index width, F&& f) noexcept {
  const Index n = Index(x.size());
  const Index at_once = width <= kernel::detail::lane_block ? kernel::groups_at_once : 1;
  for (Index j = 0, first = 0; j < n; j += at_once * width, first += at_once)
    f(std::size_t(first),
      GroupSpan{x.subspan(std::size_t(j), std::size_t(std::min(at_once * width, n - j))), width});
}

/// The root mean square of each group, or its standard deviation about the mean of its weights
/// above a pivot, which is added to `mean`.
inline Each<float> deviations(const GroupSpan& groups, Each<float>* mean = nullptr) noexcept {
  const std::size_t count = std::size_t(groups.count());
  Each<kernel::Moments> moments;
  Each<float> deviation{};
  kernel::group_moments(
      groups.x, groups.width,
      mean == nullptr ? std::span<const float>() : std::span<const float>(groups.pivot, count),
      std::span(moments).first(count));
  for (std::size_t g = 0; g < count; ++g) {
    const double n = double(groups.group(Index(g)).size());
    const double m = mean == nullptr ? 0.0 : moments[g].sum / n;
    deviation[g] = std::sqrt(std::max(float(std::fma(-m, m, moments[g].sum_squares / n)), 0.0f));
    if (mean != nullptr) (*mean)[g] = float(m);
  }
  return deviation;
}

/// Whether the search tries negative scales too.
enum class Signs { positive, both };

/// The scales of the groups of a row for a grid without offset whose largest level is `reach` and
/// whose scale for unit RMS is `unit_step`. Positive, or 0 for a group of zeros.
template <class Levels, class Params>
void fit_scales(std::span<const float> x, Index width, const Levels& levels, ScaleSearch search,
                float reach, float unit_step, int bits, std::span<Params> params,
                Signs signs = Signs::positive) noexcept {
  for_each_groups(x, width, [&](std::size_t first, const GroupSpan& groups) {
    const std::size_t count = std::size_t(groups.count());
    Each<float> low{}, high{}, scale;
    kernel::group_ranges(groups.x, width, std::span(low).first(count),
                         std::span(high).first(count));
    for_each_lanes([&](std::size_t g) {
      store(scale, g,
            xsimd::max(xsimd::abs(load(low, g)), xsimd::abs(load(high, g))) / Lane(reach));
    });
    if (search == ScaleSearch::mse) {
      SearchSpace space;
      space.narrowest = narrowest_fraction(bits);
      space.widest.scale = scale;
      space.typical = deviations(groups);
      for (float& typical : space.typical) typical *= unit_step;
      const ScoredLines found = search_lines(groups, levels, space, scales_in_fp16);
      scale = found.lines.scale;
      if (signs == Signs::both) {
        for (std::size_t g = 0; g < groups_at_once; ++g) {
          space.widest.scale[g] = -space.widest.scale[g];
          space.typical[g] = -space.typical[g];
        }
        const ScoredLines negative = search_lines(groups, levels, space, scales_in_fp16);
        for (std::size_t g = 0; g < groups_at_once; ++g)
          if (negative.error[g] < found.error[g]) scale[g] = negative.lines.scale[g];
      }
    }
    const Each<fp16> stored = finite_fp16(scale);
    static_assert(sizeof(Params) == sizeof(fp16));
    copy_groups(std::bit_cast<Each<Params>>(stored).data(), count, params.data() + first);
  });
}

}  // namespace detail

}  // namespace cafeq
