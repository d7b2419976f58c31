/// How the scale (and offset) of a group is found: one search for every grid whose values are scale · level + offset.
///
/// mse: 40 candidates, the range times 1 … a fraction that depends on the bits, strict < keeping the first of equals; from the best, up to 8
/// alternations of codes and least squares. The same from what the spread of the weights suggests, where that lies below all candidates (one huge
/// outlier) or where there is an offset, which least squares alone moves too slowly (worth 1 to 2 % of the error). All of these and the whole
/// range are then compared at the precision in which they are stored, so the error is never above that of the range.
#pragma once

#include <array>
#include <cmath>

#include "cafeq/kernel/codec.hpp"

namespace cafeq {

enum class ScaleSearch {
  minmax,  ///< the levels span the group's smallest to largest weight; grids without an offset take it as absmax
  absmax,  ///< the levels span −absmax … absmax
  mse,     ///< the least squared error that the search finds
};

using kernel::Line;

/// Where the search looks.
struct SearchSpace {
  Line widest;             ///< no weight is clipped: the first candidate; its sign of scale is that of all
  float center = 0;        ///< what the range shrinks towards (0 without an offset)
  float narrowest = 0.5f;  ///< the last candidate as a fraction of the widest
  Line typical = {};       ///< what the spread of the weights suggests; scale 0 for none
};

/// A line and its squared error.
struct ScoredLine {
  Line line;
  double error = 0;
};

/// The narrowest candidate of a grid of `bits`: the fewer levels, the more is worth clipping.
constexpr float narrowest_fraction(int bits) noexcept { return bits <= 2 ? 0.2f : bits == 3 ? 0.3f : bits == 4 ? 0.4f : 0.5f; }

/// The step of the uniform grid of 2^bits levels that suits a Gaussian of unit variance best.
constexpr float gaussian_step(int bits) noexcept {
  constexpr std::array<float, 7> steps{0.99568670f, 0.58601945f, 0.33520061f, 0.18813879f, 0.10406301f, 0.05686766f, 0.03076239f};
  return steps[std::size_t(bits < 2 ? 0 : bits > 8 ? 6 : bits - 2)];
}

/// The first of the lines with the least squared error. At least one line, at most 64.
template <class Levels>
ScoredLine best_line(std::span<const float> x, const Levels& levels, std::span<const Line> lines) noexcept {
  CAFEQ_ASSERT(!lines.empty() && lines.size() <= 64);
  std::array<double, 64> errors;
  kernel::squared_errors(x, levels, lines, std::span(errors).first(lines.size()));
  std::size_t best = 0;
  for (std::size_t c = 1; c < lines.size(); ++c)
    if (errors[c] < errors[best]) best = c;
  return {lines[best], errors[best]};
}

/// The best of 40 ranges, unrounded.
template <class Levels>
ScoredLine search_ranges(std::span<const float> x, const Levels& levels, const SearchSpace& space) noexcept {
  constexpr int count = 40;
  std::array<Line, count> lines;
  for (int c = 0; c < count; ++c) {
    const float fraction = 1.0f + (space.narrowest - 1.0f) * float(c) / float(count - 1);
    lines[std::size_t(c)] = {space.widest.scale * fraction, space.widest.offset};
    // A product of floats is exact in double, so that contraction changes nothing.
    if constexpr (Levels::has_offset)
      lines[std::size_t(c)].offset = float(double(space.center) + double(space.widest.offset - space.center) * double(fraction));
  }
  return best_line(x, levels, std::span<const Line>(lines));
}

/// `rounds` alternations of nearest codes and least squares, unrounded; ends early at a fixed point, or where a step would turn the sign of
/// the scale or is not finite.
template <class Levels>
Line refine_line(std::span<const float> x, const Levels& levels, Line line, int rounds = 8) noexcept {
  const double n = double(x.size());
  for (int round = 0; round < rounds; ++round) {
    const kernel::LevelSums sums = kernel::level_sums(x, levels, line);
    Line next = line;
    if constexpr (Levels::has_offset) {
      const double mean_level = sums.level / n;
      const double mean_residual = sums.residual / n;
      const double variance = std::fma(-sums.level, mean_level, sums.level_squares);
      if (!(variance > 0)) return line;
      const double change = std::fma(-sums.level, mean_residual, sums.residual_level) / variance;
      next.scale = float(double(line.scale) + change);
      next.offset = float(double(line.offset) + std::fma(-change, mean_level, mean_residual));
    } else {
      if (!(sums.level_squares > 0)) return line;
      next.scale = float(double(line.scale) + sums.residual_level / sums.level_squares);
    }
    const bool usable = std::isfinite(next.scale) && std::isfinite(next.offset) && next.scale != 0 && (next.scale > 0) == (line.scale > 0);
    if (!usable || next == line) return line;
    line = next;
  }
  return line;
}

/// The whole search. store(line) is the line as the format keeps it; what is returned has been through it.
template <class Levels, class Store>
ScoredLine search_line(std::span<const float> x, const Levels& levels, const SearchSpace& space, Store&& store) noexcept {
  const Line best = search_ranges(x, levels, space).line;
  const bool below_candidates = std::abs(space.typical.scale) < std::abs(space.widest.scale * space.narrowest);
  const bool try_typical = space.typical.scale != 0 && (Levels::has_offset || below_candidates);
  const std::array<Line, 4> finalists{store(space.widest), store(best), store(refine_line(x, levels, best)),
                                      store(try_typical ? refine_line(x, levels, space.typical) : space.widest)};
  return best_line(x, levels, std::span<const Line>(finalists));
}

namespace detail {

/// The nearest fp16 that is finite.
inline fp16 finite_fp16(float value) noexcept { return fp16(std::fmin(std::fmax(value, -fp16_max), fp16_max)); }

/// A line without offset as an fp16 scale keeps it.
inline Line scale_in_fp16(Line line) noexcept { return {float(finite_fp16(line.scale)), 0}; }

/// The fp16 scale of a grid without offset whose largest level is `reach` and whose scale for unit RMS is `unit_step`. Positive, or 0 for a
/// group of zeros.
template <class Levels>
float fit_scale(std::span<const float> x, const Levels& levels, ScaleSearch search, float reach, float unit_step, int bits) noexcept {
  const float absmax = kernel::range(x).absmax();
  const Line widest{absmax / reach, 0};
  if (absmax == 0 || search != ScaleSearch::mse) return scale_in_fp16(widest).scale;
  const float rms = float(std::sqrt(kernel::moments(x).sum_squares / double(x.size())));
  const SearchSpace space{widest, 0, narrowest_fraction(bits), {rms * unit_step, 0}};
  return search_line(x, levels, space, scale_in_fp16).line.scale;
}

}  // namespace detail

}  // namespace cafeq
