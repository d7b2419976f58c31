/// Scales and offsets that are small integers times halves which several groups share: how the K
/// types of GGUF are fitted.
///
///   x̂ = (d·a)·l − D·b        l a level of the grid, a and b integers of the group, d and D halves
///                             of its super-block
///
/// 1. Of each group a set of codes, from starts about what suits the group alone
///    (quant/group_starts.hpp).
/// 2. d is such that the largest scale is a whole number of it: of the greatest numbers that a can
///    be, the one at which the best codes of all groups cost least together. D likewise.
/// 3. Of a and b and their neighbours, those whose nearest codes have the least error.
#pragma once

#include "cafeq/quant/group_starts.hpp"

namespace cafeq::detail {

/// The half next to a number on the side away from zero, or the last one.
inline fp16 half_beyond(double value) noexcept {
  fp16 half = finite_fp16(float(value));
  if (std::abs(double(half)) < std::abs(value) && std::abs(half) < fp16_max) ++half.bits;
  return half;
}

/// Whether one of the levels is zero, which those without may say.
template <class Levels>
inline constexpr bool has_zero = true;
template <class Levels>
  requires requires { Levels::has_zero; }
inline constexpr bool has_zero<Levels> = Levels::has_zero;

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
  SuperBlocks(const SuperBlocks&) = delete;
  SuperBlocks& operator=(const SuperBlocks&) = delete;

  /// The weights times a power of two for each super-block, which brings its largest magnitude into
  /// [2^12, 2^13), or below where no half is as small.
  std::span<const float> weights() const noexcept { return starts_.groups().x; }
  /// From the scale and offset that suit each group of weights() alone.
  IntegerScales fit(const ScaleOffsets& alone) noexcept;
  /// d or D of weights() for the weights as they were; a half.
  fp16 unscaled(float half, std::size_t g) const noexcept {
    return fp16(float(PowerOfTwo(exponent_[g])(double(half))));
  }

 private:
  using Starts = GroupStarts<Levels, Lowest, Highest>;

  static constexpr int most_units = std::max(Highest, -Lowest);
  /// More of them gain less than a thousandth.
  static constexpr int unit_candidates = std::min(16, (most_units + 1) / 2);
  /// Weights below 2^-48 vanish beside the smallest half, whose square has to be finite.
  static constexpr int least_exponent = -60;

  template <class Choose>
  UnitChoice choose_unit(const Each<float>& largest, Choose&& choose) const noexcept;
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

  alignas(64) std::array<float, 32 * groups_at_once> x_;  // no group has more than 32 weights
  std::size_t count_;
  std::size_t groups_a_block_;
  std::array<int, groups_at_once> exponent_{};
  Starts starts_;
};

template <class Levels, int Lowest, int Highest>
SuperBlocks<Levels, Lowest, Highest>::SuperBlocks(const GroupSpan& groups,
                                                  std::size_t groups_a_block,
                                                  const Levels& levels) noexcept
    : count_(std::size_t(groups.count())), groups_a_block_(groups_a_block), starts_(levels) {
  CAFEQ_ASSERT(groups.x.size() <= x_.size());
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
  starts_.set_groups({x_.data(), groups.x.size()}, groups.width);
}

template <class Levels, int Lowest, int Highest>
IntegerScales SuperBlocks<Levels, Lowest, Highest>::fit(const ScaleOffsets& alone) noexcept {
  const ScaleOffsets middle = starts_.find(alone);
  const Each<float>& pivot = starts_.pivot();

  IntegerScales found;
  const auto any_offset = [](std::size_t, const Lane& offset) { return offset; };
  UnitChoice choice = choose_unit(
      middle.scale, [&](UnitChoice& now) { starts_.choose(now.unit, any_offset, now); });
  found.d = choice.unit;

  if constexpr (has_offset) {
    Each<float> below{};
    for (std::size_t g = 0; g < count_; ++g) below[g] = -pivot[g] - choice.offset[g];
    choice = choose_unit(below, [&](UnitChoice& now) {
      const auto whole_units = [&](std::size_t g, const Lane& offset) {
        const Lane unit = load(now.unit, g), highest = Lane(0.0f) - load(pivot, g);
        return simd::fnma(unit, Starts::units_of(highest - offset, unit, 0), highest);
      };
      starts_.choose(found.d, whole_units, now);
    });
    found.D = choice.unit;
    for_each_lanes([&](std::size_t g) {
      const Lane below_zero = Lane(0.0f) - load(pivot, g) - load(choice.offset, g);
      store(found.b, g, Starts::units_of(below_zero, load(found.D, g), 0));
    });
  }
  found.a = choice.a;
  try_neighbours(found);
  return found;
}

/// The unit at which choose(choice), which finds the rest of a choice, ends with the least error of
/// each super-block. `largest` are the magnitudes of what it has to reach.
template <class Levels, int Lowest, int Highest>
template <class Choose>
UnitChoice SuperBlocks<Levels, Lowest, Highest>::choose_unit(const Each<float>& largest,
                                                             Choose&& choose) const noexcept {
  UnitChoice best;
  for (int c = 0; c < unit_candidates; ++c) {
    UnitChoice now;
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

/// Scale 0 is not among them: at any other scale there are the same levels and more, unless none of
/// them is zero.
template <class Levels, int Lowest, int Highest>
void SuperBlocks<Levels, Lowest, Highest>::try_neighbours(IntegerScales& found) const noexcept {
  constexpr std::array<float, 3> steps{0, -1, 1};
  std::array<ScaleOffsets, has_offset ? 9 : 3> candidates;
  for (std::size_t c = 0; c < candidates.size(); ++c)
    for_each_lanes([&](std::size_t g) {
      const Lane a = kernel::detail::clamp_level(load(found.a, g) + Lane(steps[c % 3]),
                                                 float(Lowest), float(Highest));
      store(candidates[c].scale, g,
            simd::select(a == Lane(0.0f), Lane(1.0f), a) * load(found.d, g));
      if constexpr (has_offset) {
        const Lane b = kernel::detail::clamp_level(load(found.b, g) + Lane(steps[c / 3]), 0.0f,
                                                   float(Highest));
        store(candidates[c].offset, g, Lane(0.0f) - b * load(found.D, g));
      }
    });
  SearchSpace space;
  space.widest = candidates[0];
  const ScoredScales scored = best_of(starts_.groups(), starts_.levels(), space, candidates);
  const ScaleOffsets& best = scored.best;
  for_each_lanes([&](std::size_t g) {
    store(found.a, g,
          kernel::detail::round_even(load(best.scale, g) * inverse_of(load(found.d, g))));
    if constexpr (has_offset)
      store(found.b, g,
            kernel::detail::round_even((Lane(0.0f) - load(best.offset, g)) *
                                       inverse_of(load(found.D, g))));
  });
  if constexpr (!has_offset && !has_zero<Levels>) {
    Each<kernel::Moments> moments;
    kernel::group_moments(starts_.groups().x, starts_.groups().width,
                          std::span(moments).first(count_));
    for (std::size_t g = 0; g < count_; ++g) {
      const double widest = double(space.widest.scale[g]);
      if (moments[g].sum_squares <= double(scored.error[g]) * widest * widest) found.a[g] = 0;
    }
  }
}

}  // namespace cafeq::detail
