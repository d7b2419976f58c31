/// The parameters of the groups of a row: from their ranges, or from a search that starts there, at
/// the precision in which a scale format keeps them.
#pragma once

#include "cafeq/quant/levels.hpp"
#include "cafeq/quant/scale_format.hpp"
#include "cafeq/quant/scale_search.hpp"

namespace cafeq {

/// What a grid tells a scale format that fits a row by itself.
struct FitOptions {
  int bits = 4;  ///< of a code
  ScaleSearch search = ScaleSearch::mse;
};

namespace detail {

/// The root mean square of each group, or its standard deviation about the mean of its weights
/// above a pivot, which is written to `mean`.
template <class Arch = DefaultArch>
Each<float> deviations(const GroupSpan& groups, Each<float>* mean = nullptr) noexcept {
  const std::size_t count = std::size_t(groups.count());
  Each<kernel::Moments> moments;
  Each<float> deviation{};
  kernel::group_moments<Arch>(
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

/// The search without an offset, from scales at which nothing is clipped.
template <class Format, class Levels>
void search_scale(const Format& format, const Levels& levels, int bits, const GroupSpan& groups,
                  ScaleOffsets& at) noexcept {
  const auto round = [&](ScaleOffsets& all) { round_to_stored(format, all); };
  SearchSpace space;
  space.narrowest = narrowest_fraction(bits);
  space.widest.scale = at.scale;
  space.typical = deviations(groups);
  const float unit = unit_scale(levels, bits);
  for (float& typical : space.typical) typical *= unit;
  const ScoredScales positive = search_scales(groups, levels, space, round);
  at.scale = positive.best.scale;
  if constexpr (signs_of<Format>() == ScaleSigns::both) {
    for (std::size_t g = 0; g < groups_at_once; ++g) {
      space.widest.scale[g] = -space.widest.scale[g];
      space.typical[g] = -space.typical[g];
    }
    const ScoredScales negative = search_scales(groups, levels, space, round);
    for (std::size_t g = 0; g < groups_at_once; ++g)
      if (negative.error[g] < positive.error[g]) at.scale[g] = negative.best.scale[g];
  }
}

/// The search with a free offset, from the whole range of each group.
template <class Format, class Levels>
void search_scale_offset(const Format& format, const Levels& levels, int bits, GroupSpan groups,
                         ScaleOffsets& at) noexcept {
  groups.pivot = at.offset.data();
  SearchSpace space;
  space.narrowest = narrowest_fraction(bits);
  space.widest = at;
  Each<float> mean{};
  space.typical = deviations(groups, &mean);
  const float unit = unit_scale(levels, bits);
  for (std::size_t g = 0; g < mean.size(); ++g) {
    const bool finite = space.typical[g] <= std::numeric_limits<float>::max();
    space.typical[g] = finite ? space.typical[g] * unit : 0.0f;
    space.center[g] = at.offset[g] + (finite ? mean[g] : 0.5f * levels.reach() * at.scale[g]);
  }
  at = search_scales(groups, levels, space, [&](ScaleOffsets& all) {
         round_to_stored(format, all);
       }).best;
}

/// params[g] = what suits group g of x.
template <ScaleFormat Format, GridLevels Levels>
void fit_scales(const Format& format, const Levels& levels, const FitOptions& options,
                std::span<const float> x, Index width,
                std::span<typename Format::Params> params) noexcept {
  const Lane reach(levels.reach());
  for_each_groups(x, width, [&](std::size_t first, const GroupSpan& groups) {
    const std::size_t count = std::size_t(groups.count());
    Each<float> low{}, high{};
    kernel::group_ranges(groups.x, width, std::span(low).first(count),
                         std::span(high).first(count));

    ScaleOffsets at;
    for_each_lanes([&](std::size_t g) {
      Lane least = load(low, g), greatest = load(high, g);
      if (!Format::has_offset || options.search == ScaleSearch::absmax) {
        greatest = simd::max(simd::abs(least), simd::abs(greatest));
        least = Lane(0.0f) - greatest;
      }
      if constexpr (Format::has_offset) {
        store(at.offset, g, least + Lane(0.0f));  // no -0
        store(at.scale, g, greatest / reach - least / reach);
      } else {
        store(at.scale, g, greatest / reach);
      }
    });

    if (options.search == ScaleSearch::mse) {
      if constexpr (Format::has_offset)
        search_scale_offset(format, levels, options.bits, groups, at);
      else search_scale(format, levels, options.bits, groups, at);
    }
    store_params(format, at, params.subspan(first, count));
  });
}

/// The first of the candidates with the least squared error. At least one of them, at most 64.
template <class Levels>
ScaleOffset best_candidate(std::span<const float> x, const Levels& levels,
                           std::span<const ScaleOffset> candidates) noexcept {
  CAFEQ_ASSERT(!candidates.empty() && candidates.size() <= 64);
  std::array<double, 64> errors;
  kernel::squared_errors(x, levels, candidates, std::span(errors).first(candidates.size()));
  std::size_t best = 0;
  for (std::size_t c = 1; c < candidates.size(); ++c)
    if (errors[c] < errors[best]) best = c;
  return candidates[best];
}

}  // namespace detail

}  // namespace cafeq
