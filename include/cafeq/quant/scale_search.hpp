/// The search for the scale (and offset) of a group that has the least squared error: one for every
/// grid whose values are scale · level + offset.
///
/// 1. 24 candidates: the range of the weights times 1 … a fraction that depends on the bits. The
///    first of equals is kept.
/// 2. From the best of them, up to 4 alternations of codes and least squares.
/// 3. The same from what the spread of the weights suggests, where that lies below all candidates
///    (one huge outlier) or where there is an offset, which least squares alone moves too slowly
///    (worth 1 to 2 % of the error).
/// 4. All of these and the whole range are compared at the precision in which they are stored. So
///    the error is never above that of the range.
/// Sixteen groups are searched side by side; none of them notices the others.
#pragma once

#include <array>

#include "cafeq/quant/scale_refinement.hpp"

namespace cafeq {

enum class ScaleSearch {
  minmax,  ///< the levels span the group's smallest to largest weight; grids without an offset take
           ///< it as absmax
  absmax,  ///< the levels span −absmax … absmax
  mse,     ///< the least squared error that the search finds
};

namespace detail {

/// Where the search looks, for each of some groups.
struct SearchSpace {
  /// No weight is clipped: the first candidate. Its sign of scale is that of all.
  ScaleOffsets widest;
  /// What the range shrinks towards; zero without an offset.
  alignas(each_alignment) Each<float> center{};
  /// The scale that the spread of the weights suggests, about the center; 0 for none.
  alignas(each_alignment) Each<float> typical{};
  /// The last candidate as a fraction of the widest.
  float narrowest = 0.5f;
  /// Where the offset is not free: it is −zero steps, and the center is 0.
  const Each<float>* zero = nullptr;
};

/// Scales and offsets with their squared errors in units of the widest scale's square.
struct ScoredScales {
  ScaleOffsets best;
  alignas(each_alignment) Each<float> error{};
};

/// Ranges that the search tries, from the whole one down: steps of 2 to 3 %, within which least
/// squares finds the optimum by itself.
inline constexpr int range_candidates = 24;

/// The narrowest candidate of a grid of `bits`: the fewer levels, the more is worth clipping. The
/// largest of 4096 Gaussian weights is 3.9 σ, of which the levels best for a Gaussian
/// (gaussian_step) span 0.38, 0.53, 0.64 and 0.75 at 2 to 5 bits. The last candidate has a half to
/// two thirds of that, for tails that are heavier.
constexpr float narrowest_fraction(int bits) noexcept {
  return bits <= 2 ? 0.2f : bits == 3 ? 0.3f : bits == 4 ? 0.4f : 0.5f;
}

/// Of `Count` candidates a group, the first with the least error.
template <std::size_t Count, class Levels>
ScoredScales best_of(const GroupSpan& groups, const Levels& levels, const SearchSpace& space,
                     const std::array<ScaleOffsets, Count>& candidates) noexcept {
  std::array<kernel::Units, Count> units;
  std::array<Each<float>, Count> errors;
  for (std::size_t c = 0; c < Count; ++c) set_units<Levels>(groups, candidates[c], units[c]);
  kernel::unit_errors(groups, levels, std::span<const kernel::Units>(units), std::span(errors));

  ScoredScales found;
  for_each_lanes([&](std::size_t g) {
    const Lane per_widest = inverse_of(load(space.widest.scale, g));
    const auto error_of = [&](std::size_t c) {
      const Lane scale = load(candidates[c].scale, g) * per_widest;
      return load(errors[c], g) * (scale * scale);
    };
    Lane scale = load(candidates[0].scale, g), offset = load(candidates[0].offset, g),
         least = error_of(0);
    for (std::size_t c = 1; c < Count; ++c) {
      const Lane other = load(candidates[c].scale, g), error = error_of(c);
      // A scale that vanished in its format is never better than one that did not.
      const auto better = (error < least) & (other != Lane(0.0f));
      least = simd::select(better, error, least);
      scale = simd::select(better, other, scale);
      if constexpr (Levels::has_offset)
        offset = simd::select(better, load(candidates[c].offset, g), offset);
    }
    store(found.error, g, least);
    store(found.best.scale, g, scale);
    store(found.best.offset, g, offset);
  });
  return found;
}

/// The best of the ranges, unrounded.
template <class Levels>
ScoredScales search_ranges(const GroupSpan& groups, const Levels& levels,
                           const SearchSpace& space) noexcept {
  constexpr std::size_t count = std::size_t(range_candidates);
  std::array<ScaleOffsets, count> candidates;
  for (std::size_t c = 0; c < count; ++c) {
    const Lane narrower((1.0f - space.narrowest) * (float(c) / float(count - 1)));
    for_each_lanes([&](std::size_t g) {
      const Lane scale = load(space.widest.scale, g), offset = load(space.widest.offset, g);
      store(candidates[c].scale, g, simd::fnma(narrower, scale, scale));
      if constexpr (Levels::has_offset)
        store(candidates[c].offset, g, simd::fma(narrower, load(space.center, g) - offset, offset));
    });
  }
  return best_of(groups, levels, space, candidates);
}

/// The whole search. With an offset groups.pivot is that of an Each; round(scale_offsets) makes
/// them what the format keeps, and what is returned has been through it.
template <class Levels, class Round>
ScoredScales search_scales(const GroupSpan& groups, const Levels& levels, const SearchSpace& space,
                           Round&& round) noexcept {
  std::array<ScaleOffsets, 4> finalists;
  finalists[0] = space.widest;
  finalists[1] = finalists[2] = search_ranges(groups, levels, space).best;
  refine_scales(groups, levels, finalists[2], space.zero);

  finalists[3] = space.widest;
  bool try_typical = false;
  for (std::size_t g = 0; g < groups_at_once; ++g) {
    const float widest = std::abs(space.widest.scale[g]), typical = std::abs(space.typical[g]);
    if (typical == 0 || !(Levels::has_offset || typical < widest * space.narrowest)) continue;
    try_typical = true;
    finalists[3].scale[g] = space.typical[g];
    if constexpr (Levels::has_offset)
      finalists[3].offset[g] = std::fma(space.zero ? -(*space.zero)[g] : -0.5f * levels.reach(),
                                        space.typical[g], space.center[g]);
  }
  if (try_typical) refine_scales(groups, levels, finalists[3], space.zero);

  for (ScaleOffsets& finalist : finalists) round(finalist);
  return best_of(groups, levels, space, finalists);
}

}  // namespace detail

}  // namespace cafeq
