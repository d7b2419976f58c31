/// Fp16ScaleZero: a half and a whole number of steps below zero, x̂ = scale · (code − zero), so that
/// zero is always one of the levels.
#pragma once

#include "cafeq/quant/scale_fit.hpp"

namespace cafeq {

/// The zero point is one of the codes, 0 … 2^code_bits − 1.
struct Fp16ScaleZero {
  struct Params {
    fp16 scale;
    std::uint8_t zero = 0;
  };
  static constexpr bool has_offset = true;
  static constexpr int scale_digits = 11;

  int code_bits = 8;

  static constexpr Fp16ScaleZero for_bits(int bits) noexcept { return {bits}; }
  constexpr std::int64_t bits() const noexcept { return 16 + code_bits; }
  constexpr float max_zero() const noexcept { return float((1 << code_bits) - 1); }

  static float scale(const Params& p) noexcept { return p.scale; }
  static float offset(const Params& p) noexcept { return -scale(p) * float(p.zero); }
  static float zero(const Params& p) noexcept { return float(p.zero); }
  /// The offset becomes the nearest whole number of steps.
  Params nearest(const Params& p, float scale, float offset) const noexcept {
    if (!std::isfinite(scale) || scale < 0 || !std::isfinite(offset)) return p;
    return {detail::finite_fp16(scale), std::uint8_t(steps_below(scale, offset))};
  }

  template <GridLevels L>
  void fit_row(std::span<const float> x, Index width, const L& levels, const FitOptions& options,
               std::span<Params> params) const noexcept;

  template <class F>
  static void for_each_field(F&& f) {
    f("scales", &Params::scale);
    f("zeros", &Params::zero);
  }

 private:
  float steps_below(float scale, float offset) const noexcept {
    return kernel::detail::clamp_level(std::nearbyint(-offset * kernel::inverse_scale(scale)), 0,
                                       max_zero());
  }
  template <class Arch = DefaultArch>
  void search(detail::Each<float>& scale, detail::Each<float>& zero, detail::GroupSpan groups,
              float top, int bits) const noexcept;
};

template <GridLevels L>
void Fp16ScaleZero::fit_row(std::span<const float> x, Index width, const L& levels,
                            const FitOptions& options, std::span<Params> params) const noexcept {
  const float top = levels.reach();
  detail::for_each_groups(x, width, [&](std::size_t first, const detail::GroupSpan& groups) {
    const std::size_t count = std::size_t(groups.count());
    detail::Each<float> low{}, high{}, scales{}, zeros{};
    kernel::group_ranges(groups.x, width, std::span(low).first(count),
                         std::span(high).first(count));
    for (std::size_t g = 0; g < count; ++g) {
      const float absmax = std::max(std::abs(low[g]), std::abs(high[g]));
      const bool even = options.search == ScaleSearch::absmax;
      low[g] = even ? -absmax : std::min(low[g], 0.0f);
      high[g] = even ? absmax : std::max(high[g], 0.0f);
      scales[g] = high[g] / top - low[g] / top;
      zeros[g] = steps_below(scales[g], low[g]);
    }
    if (options.search == ScaleSearch::mse) search(scales, zeros, groups, top, options.bits);
    const auto stored = detail::finite_fp16(scales);
    for (std::size_t g = 0; g < count; ++g) params[first + g] = {stored[g], std::uint8_t(zeros[g])};
  });
}

/// Shrinking the range does not move its zero point: the neighbours are tried too.
template <class Arch>
void Fp16ScaleZero::search(detail::Each<float>& scale, detail::Each<float>& zero,
                           detail::GroupSpan groups, float top, int bits) const noexcept {
  using detail::Each;
  const Each<float> none{}, widest = scale, middle = zero;
  groups.pivot = none.data();
  detail::SearchSpace space;
  space.narrowest = detail::narrowest_fraction(bits);
  space.widest.scale = widest;
  space.typical = detail::deviations<Arch>(groups);
  for (float& typical : space.typical) typical *= detail::gaussian_step(bits);

  Each<float> least{};
  for (const float step : {0.0f, -1.0f, 1.0f}) {
    Each<float> shifted{};
    for (std::size_t g = 0; g < shifted.size(); ++g) {
      shifted[g] = kernel::detail::clamp_level(middle[g] + step, 0, max_zero());
      space.widest.offset[g] = -shifted[g] * widest[g];
    }
    space.zero = &shifted;
    const auto round = [&](ScaleOffsets& all) {
      const auto halves = detail::finite_fp16(all.scale);
      detail::for_each_lanes(
          [&](std::size_t g) { detail::store(all.scale, g, detail::load(halves, g)); });
      for (std::size_t g = 0; g < shifted.size(); ++g) all.offset[g] = -shifted[g] * all.scale[g];
    };
    const detail::ScoredScales found =
        detail::search_scales(groups, UniformLevels<true>{0, top}, space, round);
    for (std::size_t g = 0; g < shifted.size(); ++g) {
      if (step != 0 && !(found.error[g] < least[g])) continue;
      scale[g] = found.best.scale[g];
      zero[g] = shifted[g];
      least[g] = found.error[g];
    }
  }
}

}  // namespace cafeq
