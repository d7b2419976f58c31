/// Scales and offsets that are small integers times halves which several groups share: how the K
/// types of GGUF are fitted.
///
///   x̂ = (d·a)·l − D·b        l a level of the grid, a and b integers of the group, d and D halves
///                             of its super-block
///
/// 1. What the library's search finds for a group alone is the middle of its starts: each end of
///    the range moves by up to a step, half a step at a time (25 starts); without an offset the one
///    end does, under both signs of the scale (10). Least squares refines each. The codes that a
///    start ends with leave sums, from which their error at any other scale and offset follows.
/// 2. d is such that the largest scale is a whole number of it: of the greatest numbers that a can
///    be, the one at which the best codes of all groups cost least together. D likewise.
/// 3. Of a and b and their neighbours, those whose nearest codes have the least error.
#pragma once

#include "cafeq/quant/scale_fit.hpp"

namespace cafeq::detail {

/// The half next to a number on the side away from zero, or the last one.
inline fp16 half_beyond(double value) noexcept {
  fp16 half = finite_fp16(float(value));
  if (std::abs(double(half)) < std::abs(value) && std::abs(half) < fp16_max) ++half.bits;
  return half;
}

/// The scales and offsets of some groups as they are stored. Without an offset D and b are zero.
struct IntegerScales {
  Each<float> d{}, a{}, D{}, b{};
};

/// At most groups_at_once groups of a row, the first of which begins a super-block. a is Lowest …
/// Highest, b 0 … Highest. With an offset Lowest is 1, so that zero is in the range of every group.
template <class Levels, int Lowest, int Highest>
class SuperBlocks {
 public:
  static constexpr bool has_offset = Levels::has_offset;

  SuperBlocks(const GroupSpan& groups, std::size_t groups_a_block, const Levels& levels) noexcept;

  /// The weights times a power of two for each super-block, which brings its largest magnitude into
  /// [2^12, 2^13), or below where no half is as small.
  std::span<const float> weights() const noexcept { return groups_.x; }
  /// From the line that suits each group of weights() alone.
  IntegerScales fit(const ScaleOffsets& alone) noexcept;
  /// d or D of weights() for the weights as they were; a half.
  fp16 unscaled(float half, std::size_t g) const noexcept {
    return fp16(float(PowerOfTwo(exponent_[g])(double(half))));
  }

 private:
  static constexpr int ends = 5;
  static constexpr std::size_t starts = ends * (has_offset ? ends : 2);
  static constexpr int most_units = std::max(Highest, -Lowest);
  static constexpr int unit_candidates =
      std::min(16, (most_units + 1) / 2);  // more of them gain less than a thousandth
  static constexpr int least_exponent =
      -60;  // weights below 2^-48 vanish beside the smallest half, whose square has to be finite

  /// The scale that some codes came from, and their sums.
  struct Codes {
    Each<float> scale;
    kernel::LevelSums sums;
  };
  /// For every group the cheapest of its codes at a unit, d or D. The offset counts from the pivot.
  struct Choice {
    Each<float> unit{}, a{}, offset{}, error{};
  };

  ScaleOffsets start_at(std::size_t number, const ScaleOffsets& middle) const noexcept;
  Codes codes_of(const ScaleOffsets& start) const noexcept;
  template <class Place>
  void choose_codes(const Each<float>& d, Place&& place, Choice& choice) const noexcept;
  template <class Choose>
  Choice choose_unit(Each<float> largest, Choose&& choose) const noexcept;
  void try_neighbours(IntegerScales& found) const noexcept;

  /// f(first group, end) for every super-block.
  template <class F>
  void for_each_block(F&& f) const noexcept {
    for (std::size_t begin = 0; begin < count_; begin += groups_a_block_)
      f(begin, std::min(begin + groups_a_block_, count_));
  }
  float stored(float unit, std::size_t g) const noexcept {
    const fp16 half = half_beyond(PowerOfTwo(exponent_[g])(double(unit)));
    return float(PowerOfTwo(-exponent_[g])(double(half)));
  }
  /// A range that begins above zero begins at zero instead; its upper end stays where it is.
  void keep_zero_in_range(ScaleOffsets& at) const noexcept {
    for_each_lanes([&](std::size_t g) {
      const Lane above = xsimd::max(load(at.offset, g), Lane(0.0f));
      store(at.offset, g, load(at.offset, g) - above);
      store(at.scale, g, simd::fma(above, Lane(1.0f / levels_.high), load(at.scale, g)));
    });
  }
  /// The nearest whole numbers of units, within bounds.
  static Lane units_of(const Lane& value, const Lane& unit, int low) noexcept {
    return kernel::detail::clamp_level(kernel::detail::round_even(value * inverse_of(unit)),
                                       float(low), float(Highest));
  }

  alignas(64) std::array<float, 32 * groups_at_once> x_;  // no group has more than 32 weights
  GroupSpan groups_;
  std::size_t count_;
  std::size_t groups_a_block_;
  Levels levels_;
  std::array<int, groups_at_once> exponent_{};
  Each<float> pivot_{}, size_{},
      sum_{};  // the lowest weight or zero; weights; what they sum to above the pivot
  std::array<Codes, starts> codes_;
};

template <class Levels, int Lowest, int Highest>
SuperBlocks<Levels, Lowest, Highest>::SuperBlocks(const GroupSpan& groups,
                                                  std::size_t groups_a_block,
                                                  const Levels& levels) noexcept
    : count_(std::size_t(groups.count())), groups_a_block_(groups_a_block), levels_(levels) {
  CAFEQ_ASSERT(groups.x.size() <= x_.size());
  groups_ = {{x_.data(), groups.x.size()}, groups.width, pivot_.data()};
  for_each_block([&](std::size_t begin, std::size_t end) {
    const std::size_t first = begin * std::size_t(groups.width);
    const auto block =
        groups.x.subspan(first, std::min(end * std::size_t(groups.width), groups.x.size()) - first);
    const int exponent =
        std::max(floor_log2(double(kernel::range(block).absmax())) - 12, least_exponent);
    const PowerOfTwo scale(-exponent);
    for (std::size_t i = 0; i < block.size(); ++i) x_[first + i] = float(scale(double(block[i])));
    for (std::size_t g = begin; g < end; ++g) exponent_[g] = exponent;
  });
  if constexpr (has_offset) {
    Each<kernel::Moments> moments;
    for (std::size_t g = 0; g < count_; ++g) {
      const auto group = groups_.group(Index(g));
      pivot_[g] = std::min(kernel::range(group).min, 0.0f);
      size_[g] = float(group.size());
    }
    kernel::group_moments(groups_.x, groups_.width, {groups_.pivot, count_},
                          std::span(moments).first(count_));
    for (std::size_t g = 0; g < count_; ++g) sum_[g] = float(moments[g].sum);
  }
}

template <class Levels, int Lowest, int Highest>
IntegerScales SuperBlocks<Levels, Lowest, Highest>::fit(const ScaleOffsets& alone) noexcept {
  ScaleOffsets middle = alone;
  if constexpr (has_offset) {
    keep_zero_in_range(middle);
    for (std::size_t g = 0; g < count_; ++g)
      if (middle.scale[g] == 0)
        middle.scale[g] =
            -middle.offset[g] / levels_.high;  // weights that are all equal: from there to zero
  }
  for (std::size_t number = 0; number < starts; ++number)
    codes_[number] = codes_of(start_at(number, middle));

  IntegerScales found;
  const auto any_offset = [](std::size_t, const Lane& offset) { return offset; };
  Choice choice =
      choose_unit(middle.scale, [&](Choice& now) { choose_codes(now.unit, any_offset, now); });
  found.d = choice.unit;
  if constexpr (has_offset) {
    Each<float> below{};
    for (std::size_t g = 0; g < count_; ++g) below[g] = -pivot_[g] - choice.offset[g];
    choice = choose_unit(below, [&](Choice& now) {
      const auto whole_units = [&](std::size_t g, const Lane& offset) {
        const Lane unit = load(now.unit, g), highest = Lane(0.0f) - load(pivot_, g);
        return simd::fnma(unit, units_of(highest - offset, unit, 0), highest);
      };
      choose_codes(found.d, whole_units, now);
    });
    found.D = choice.unit;
    for_each_lanes([&](std::size_t g) {
      store(found.b, g,
            units_of(Lane(0.0f) - load(pivot_, g) - load(choice.offset, g), load(found.D, g), 0));
    });
  }
  found.a = choice.a;
  try_neighbours(found);
  return found;
}

template <class Levels, int Lowest, int Highest>
ScaleOffsets SuperBlocks<Levels, Lowest, Highest>::start_at(
    std::size_t number, const ScaleOffsets& middle) const noexcept {
  const auto steps = [](std::size_t end) { return 0.5f * float(int(end) - ends / 2); };
  const float up = steps(number % ends), down = steps(number / ends);
  ScaleOffsets at;
  for_each_lanes([&](std::size_t g) {
    const Lane scale = load(middle.scale, g);
    if constexpr (has_offset) {
      store(at.scale, g, scale * Lane(1 + (up - down) / levels_.high));
      store(at.offset, g, simd::fma(scale, Lane(down), load(middle.offset, g)));
    } else {
      store(at.scale, g, scale * Lane((number < ends ? 1.0f : -1.0f) * (1 - up / levels_.low)));
    }
  });
  return at;
}

template <class Levels, int Lowest, int Highest>
typename SuperBlocks<Levels, Lowest, Highest>::Codes SuperBlocks<Levels, Lowest, Highest>::codes_of(
    const ScaleOffsets& start) const noexcept {
  ScaleOffsets at = start;
  refine_scales(groups_, levels_, at, nullptr, 2);
  if constexpr (has_offset) keep_zero_in_range(at);
  kernel::Units units;
  set_units<Levels>(groups_, at, units);
  return {at.scale, kernel::level_sums(groups_, levels_, units)};
}

/// The codes that cost least at scales a·d and at the offsets that place(g, best offset) allows.
template <class Levels, int Lowest, int Highest>
template <class Place>
void SuperBlocks<Levels, Lowest, Highest>::choose_codes(const Each<float>& d, Place&& place,
                                                        Choice& choice) const noexcept {
  for_each_lanes([&](std::size_t g) {
    const Lane unit = load(d, g), size = load(size_, g), per_size = inverse_of(size),
               sum = load(sum_, g), highest = Lane(0.0f) - load(pivot_, g);
    Lane best_a(0.0f), best_offset(0.0f), least(std::numeric_limits<float>::max());
    for (const Codes& codes : codes_) {
      const Lane a = units_of(load(codes.scale, g), unit, Lowest), s = a * unit,
                 product = load(codes.sums.product, g);
      // Σ (y − s·l − z)² = Σ y² + s·(s·Σ l² − 2 Σ y·l) + z·(n·z + 2·(s·Σ l − Σ y))
      Lane error = s * simd::fms(s, load(codes.sums.level_squares, g), product + product), z(0.0f);
      if constexpr (has_offset) {
        const Lane slope = simd::fms(s, load(codes.sums.level, g), sum);
        z = place(g, xsimd::min((Lane(0.0f) - slope) * per_size, highest));
        error = simd::fma(z, simd::fma(size, z, slope + slope), error);
      }
      const auto better = error < least;
      least = xsimd::select(better, error, least);
      best_a = xsimd::select(better, a, best_a);
      best_offset = xsimd::select(better, z, best_offset);
    }
    store(choice.a, g, best_a);
    store(choice.offset, g, best_offset);
    store(choice.error, g, least);
  });
}

/// The unit at which choose(choice), which finds the rest of a choice, ends with the least error of
/// each super-block. `largest` are the magnitudes of what it has to reach.
template <class Levels, int Lowest, int Highest>
template <class Choose>
typename SuperBlocks<Levels, Lowest, Highest>::Choice
SuperBlocks<Levels, Lowest, Highest>::choose_unit(Each<float> largest,
                                                  Choose&& choose) const noexcept {
  Choice best;
  for (int c = 0; c < unit_candidates; ++c) {
    Choice now;
    for_each_block([&](std::size_t begin, std::size_t end) {
      float most = 0;
      for (std::size_t g = begin; g < end; ++g) most = std::max(most, std::abs(largest[g]));
      if (most > 0)
        std::fill(now.unit.begin() + begin, now.unit.begin() + end,
                  stored(most / float(most_units - c), begin));
    });
    choose(now);
    for_each_block([&](std::size_t begin, std::size_t end) {
      float sum = 0, least = 0;
      for (std::size_t g = begin; g < end; ++g) {
        sum += now.error[g];
        least += best.error[g];
      }
      if (c > 0 && !(sum < least)) return;
      for (std::size_t g = begin; g < end; ++g) {
        best.unit[g] = now.unit[g];
        best.a[g] = now.a[g];
        best.offset[g] = now.offset[g];
        best.error[g] = now.error[g];
      }
    });
  }
  return best;
}

/// Scale 0 is not among them: at any other scale there are the same levels and more.
template <class Levels, int Lowest, int Highest>
void SuperBlocks<Levels, Lowest, Highest>::try_neighbours(IntegerScales& found) const noexcept {
  constexpr std::array<float, 3> steps{0, -1, 1};
  std::array<ScaleOffsets, has_offset ? 9 : 3> candidates;
  for (std::size_t c = 0; c < candidates.size(); ++c)
    for_each_lanes([&](std::size_t g) {
      const Lane a = kernel::detail::clamp_level(load(found.a, g) + Lane(steps[c % 3]),
                                                 float(Lowest), float(Highest));
      store(candidates[c].scale, g,
            xsimd::select(a == Lane(0.0f), Lane(1.0f), a) * load(found.d, g));
      if constexpr (has_offset) {
        const Lane b = kernel::detail::clamp_level(load(found.b, g) + Lane(steps[c / 3]), 0.0f,
                                                   float(Highest));
        store(candidates[c].offset, g, Lane(0.0f) - b * load(found.D, g));
      }
    });
  SearchSpace space;
  space.widest = candidates[0];
  const ScaleOffsets best = best_of(groups_, levels_, space, candidates).best;
  for_each_lanes([&](std::size_t g) {
    store(found.a, g,
          kernel::detail::round_even(load(best.scale, g) * inverse_of(load(found.d, g))));
    if constexpr (has_offset)
      store(found.b, g,
            kernel::detail::round_even((Lane(0.0f) - load(best.offset, g)) *
                                       inverse_of(load(found.D, g))));
  });
}

}  // namespace cafeq::detail
