/// The codes that groups of weights may end with, and what these cost at scales and offsets other
/// than their own: step 1 of quant/super_blocks.hpp.
///
/// About the scale and offset that suit a group alone, each end of its range moves by up to a step,
/// half a step at a time (25 starts); without an offset the one end does, under both signs of the
/// scale (10). Least squares refines each. What the codes l of a start cost at any scale s and
/// offset z above the pivot follows from a few sums over the weights y:
///   Σ (y − s·l − z)² = Σ y² + s·(s·Σ l² − 2 Σ y·l) + z·(n·z + 2·(s·Σ l − Σ y))
#pragma once

#include "cafeq/quant/scale_fit.hpp"

namespace cafeq::detail {

/// For every group the cheapest of its codes at a unit, of which a is the number that makes its
/// scale. The offset counts from the pivot, the error leaves out Σ y².
struct UnitChoice {
  Each<float> unit{}, a{}, offset{}, error{};
};

/// At most groups_at_once groups. Scales are a·unit with a in Lowest … Highest.
template <class Levels, int Lowest, int Highest>
class GroupStarts {
 public:
  static constexpr bool has_offset = Levels::has_offset;

  explicit GroupStarts(const Levels& levels) noexcept : levels_(levels) {}

  /// The groups, their weights no larger than 2^13; they must outlive this.
  void set_groups(std::span<const float> x, Index width) noexcept;
  /// Finds the codes, from the scale and offset that suit each group alone. Returns those that the
  /// starts lie about.
  ScaleOffsets find(const ScaleOffsets& alone) noexcept;
  /// The codes that cost least at scales a·unit[g] and at the offsets above the pivot that
  /// place(g, best offset) allows.
  template <class Place>
  void choose(const Each<float>& unit, Place&& place, UnitChoice& choice) const noexcept;

  const GroupSpan& groups() const noexcept { return groups_; }
  const Levels& levels() const noexcept { return levels_; }
  /// The lowest weight of each group, or zero.
  const Each<float>& pivot() const noexcept { return pivot_; }
  /// The nearest whole numbers of units from low on.
  static Lane units_of(const Lane& value, const Lane& unit, int low) noexcept {
    return kernel::detail::clamp_level(kernel::detail::round_even(value * inverse_of(unit)),
                                       float(low), float(Highest));
  }

 private:
  static constexpr int ends = 5;
  static constexpr std::size_t starts = ends * (has_offset ? ends : 2);

  /// The scale that some codes came from, and their sums.
  struct Codes {
    Each<float> scale;
    kernel::LevelSums sums;
  };

  ScaleOffsets start_at(std::size_t number, const ScaleOffsets& middle) const noexcept;
  Codes codes_of(const ScaleOffsets& start) const noexcept;

  /// A range that begins above zero begins at zero instead; its upper end stays where it is.
  void keep_zero_in_range(ScaleOffsets& at) const noexcept {
    for_each_lanes([&](std::size_t g) {
      const Lane above = simd::max(load(at.offset, g), Lane(0.0f));
      store(at.offset, g, load(at.offset, g) - above);
      store(at.scale, g, simd::fma(above, Lane(1.0f / levels_.high), load(at.scale, g)));
    });
  }

  GroupSpan groups_;
  Levels levels_;
  Each<float> pivot_{}, size_{};
  Each<float> sum_{};  // of the weights above the pivot
  std::array<Codes, starts> codes_;
};

template <class Levels, int Lowest, int Highest>
void GroupStarts<Levels, Lowest, Highest>::set_groups(std::span<const float> x,
                                                      Index width) noexcept {
  groups_ = {x, width, pivot_.data()};
  if constexpr (has_offset) {
    const std::size_t count = std::size_t(groups_.count());
    for (std::size_t g = 0; g < count; ++g) {
      const auto group = groups_.group(Index(g));
      pivot_[g] = std::min(kernel::range(group).min, 0.0f);
      size_[g] = float(group.size());
    }
    Each<kernel::Moments> moments;
    kernel::group_moments(groups_.x, groups_.width, {groups_.pivot, count},
                          std::span(moments).first(count));
    for (std::size_t g = 0; g < count; ++g) sum_[g] = float(moments[g].sum);
  }
}

template <class Levels, int Lowest, int Highest>
ScaleOffsets GroupStarts<Levels, Lowest, Highest>::find(const ScaleOffsets& alone) noexcept {
  ScaleOffsets middle = alone;
  if constexpr (has_offset) {
    keep_zero_in_range(middle);
    // Weights that are all equal: from there to zero.
    for (std::size_t g = 0; g < std::size_t(groups_.count()); ++g)
      if (middle.scale[g] == 0) middle.scale[g] = -middle.offset[g] / levels_.high;
  }
  for (std::size_t number = 0; number < starts; ++number)
    codes_[number] = codes_of(start_at(number, middle));
  return middle;
}

template <class Levels, int Lowest, int Highest>
ScaleOffsets GroupStarts<Levels, Lowest, Highest>::start_at(
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
typename GroupStarts<Levels, Lowest, Highest>::Codes GroupStarts<Levels, Lowest, Highest>::codes_of(
    const ScaleOffsets& start) const noexcept {
  ScaleOffsets at = start;
  refine_scales(groups_, levels_, at, nullptr, 2);
  if constexpr (has_offset) keep_zero_in_range(at);
  kernel::Units units;
  set_units<Levels>(groups_, at, units);
  return {at.scale, kernel::level_sums(groups_, levels_, units)};
}

template <class Levels, int Lowest, int Highest>
template <class Place>
void GroupStarts<Levels, Lowest, Highest>::choose(const Each<float>& unit, Place&& place,
                                                  UnitChoice& choice) const noexcept {
  for_each_lanes([&](std::size_t g) {
    const Lane step = load(unit, g), size = load(size_, g), per_size = inverse_of(size),
               sum = load(sum_, g), highest = Lane(0.0f) - load(pivot_, g);
    Lane best_a(0.0f), best_offset(0.0f), least(std::numeric_limits<float>::max());
    for (const Codes& codes : codes_) {
      const Lane a = units_of(load(codes.scale, g), step, Lowest), s = a * step,
                 product = load(codes.sums.product, g);
      Lane error = s * simd::fms(s, load(codes.sums.level_squares, g), product + product), z(0.0f);
      if constexpr (has_offset) {
        const Lane slope = simd::fms(s, load(codes.sums.level, g), sum);
        z = place(g, simd::min((Lane(0.0f) - slope) * per_size, highest));
        error = simd::fma(z, simd::fma(size, z, slope + slope), error);
      }
      const auto better = error < least;
      least = simd::select(better, error, least);
      best_a = simd::select(better, a, best_a);
      best_offset = simd::select(better, z, best_offset);
    }
    store(choice.a, g, best_a);
    store(choice.offset, g, best_offset);
    store(choice.error, g, least);
  });
}

}  // namespace cafeq::detail
