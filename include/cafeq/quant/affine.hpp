/// Integer grids: Affine (scale and offset), AffineIntegerZero (scale and integer zero point), Symmetric (scale alone).
///
///   Affine             x̂ = s·q + z,           q = clamp(round((x − z)/s), 0, 2^b − 1)      32 bits a group
///   AffineIntegerZero  x̂ = s·(q − zero),      zero in 0 … 2^b − 1                          16 + b bits a group
///   Symmetric          x̂ = s·q,               q in −2^(b−1) … 2^(b−1) − 1                  16 bits a group
/// Scales and offsets are fp16; ties go to the even q.
#pragma once

#include "cafeq/quant/grid.hpp"
#include "cafeq/quant/scale_search.hpp"

namespace cafeq {

/// A group whose weights differ by less than fp16 tells apart has scale 0 and is its offset.
template <int Bits>
struct Affine {
  static_assert(Bits >= 2 && Bits <= 8, "cafeq: bits must be 2 to 8");
  struct Params {
    fp16 scale;
    fp16 offset;
  };
  using Levels = kernel::UniformLevels<true, false>;
  static constexpr int bits = Bits;
  static constexpr bool has_offset = true;

  Index group = per_row;
  ScaleSearch search = ScaleSearch::mse;

  static constexpr Levels levels() noexcept { return {0, float((1 << Bits) - 1)}; }

  Params fit(std::span<const float> x) const noexcept {
    const SearchSpace space = search_space(x);
    if (space.widest.scale == 0 || search != ScaleSearch::mse) return stored(space.widest);
    return stored(search_line(x, levels(), space, [](Line line) { return line_of(stored(line)); }).line);
  }
  /// What fit() searches.
  SearchSpace search_space(std::span<const float> x) const noexcept {
    kernel::Range range = kernel::range(x);
    if (search == ScaleSearch::absmax) range = {-range.absmax(), range.absmax()};
    constexpr double steps = (1 << Bits) - 1;
    SearchSpace space{{float((double(range.max) - double(range.min)) / steps), range.min}, 0, narrowest_fraction(Bits), {}};
    if (search != ScaleSearch::mse) return space;
    const kernel::Moments moments = kernel::moments(x);
    const double n = double(x.size());
    const double mean = moments.sum / n;
    const double variance = std::fma(-mean, mean, moments.sum_squares / n);
    if (!std::isfinite(variance)) {
      space.center = 0.5f * range.min + 0.5f * range.max;
      return space;
    }
    space.center = float(mean);
    const float step = gaussian_step(Bits) * float(std::sqrt(std::max(variance, 0.0)));
    space.typical = {step, float(std::fma(-0.5 * steps, double(step), mean))};
    return space;
  }

  std::uint8_t encode(float x, const Params& p) const noexcept { return levels().code((x - offset(p)) * kernel::inverse_scale(p.scale)); }
  /// The product is exact in float, so contraction cannot change the sum.
  float decode(std::uint8_t code, const Params& p) const noexcept { return scale(p) * level(code) + offset(p); }
  void encode_group(std::span<const float> x, const Params& p, std::span<std::uint8_t> codes) const noexcept {
    kernel::encode(x, levels(), line_of(p), codes);
  }

  float level(std::uint8_t code) const noexcept { return float(code); }
  float scale(const Params& p) const noexcept { return p.scale; }
  float offset(const Params& p) const noexcept { return p.offset; }
  Params with_scale(const Params& p, float scale, float offset) const noexcept {
    return std::isfinite(scale) && scale >= 0 && std::isfinite(offset) ? stored({scale, offset}) : p;
  }

 private:
  static Line line_of(const Params& p) noexcept { return {p.scale, p.offset}; }
  static Params stored(Line line) noexcept {
    const Params p{detail::finite_fp16(line.scale), detail::finite_fp16(line.offset)};
    // Steps that small would vanish in the rounding of s·q + z to float, and different codes would decode alike.
    return float(p.scale) < 0x1p-20f * std::abs(float(p.offset)) ? Params{fp16(0.0f), p.offset} : p;
  }
};

/// Zero is always one of the levels.
template <int Bits>
struct AffineIntegerZero {
  static_assert(Bits >= 2 && Bits <= 8, "cafeq: bits must be 2 to 8");
  struct Params {
    fp16 scale;
    std::uint8_t zero = 0;
  };
  using Levels = kernel::UniformLevels<false, false>;
  static constexpr int bits = Bits;
  static constexpr bool has_offset = true;
  static constexpr int max_code = (1 << Bits) - 1;

  Index group = per_row;
  ScaleSearch search = ScaleSearch::mse;

  /// The levels in units of the scale for a zero point.
  static constexpr Levels levels(std::uint8_t zero) noexcept { return {-float(zero), float(max_code - zero)}; }
  static constexpr std::int64_t param_bits() noexcept { return 16 + Bits; }

  Params fit(std::span<const float> x) const noexcept {
    kernel::Range range = kernel::range(x);
    range = search == ScaleSearch::absmax ? kernel::Range{-range.absmax(), range.absmax()}
                                          : kernel::Range{std::min(range.min, 0.0f), std::max(range.max, 0.0f)};
    const float widest = float((double(range.max) - double(range.min)) / max_code);
    const std::uint8_t zero = zero_point(widest, range.min);
    const Params from_range{detail::finite_fp16(widest), zero};
    if (widest == 0 || search != ScaleSearch::mse) return from_range;
    const float rms = float(std::sqrt(kernel::moments(x).sum_squares / double(x.size())));
    const SearchSpace space{{widest, 0}, 0, narrowest_fraction(Bits), {rms * gaussian_step(Bits), 0}};
    Params best = from_range;
    double least = 0;
    for (const int step : {0, -1, 1}) {  // shrinking the range does not move its zero point: the neighbours are tried too
      if (zero + step < 0 || zero + step > max_code) continue;
      const auto shifted = std::uint8_t(zero + step);
      const ScoredLine found = search_line(x, levels(shifted), space, detail::scale_in_fp16);
      if (step != 0 && !(found.error < least)) continue;
      best = {fp16(found.line.scale), shifted};
      least = found.error;
    }
    return best;
  }
  std::uint8_t encode(float x, const Params& p) const noexcept { return levels(p.zero).code(x * kernel::inverse_scale(p.scale)); }
  float decode(std::uint8_t code, const Params& p) const noexcept { return scale(p) * (level(code) - float(p.zero)); }
  void encode_group(std::span<const float> x, const Params& p, std::span<std::uint8_t> codes) const noexcept {
    kernel::encode(x, levels(p.zero), Line{scale(p), 0}, codes);
  }

  float level(std::uint8_t code) const noexcept { return float(code); }
  float scale(const Params& p) const noexcept { return p.scale; }
  float offset(const Params& p) const noexcept { return -scale(p) * float(p.zero); }
  /// The offset becomes the nearest whole number of steps.
  Params with_scale(const Params& p, float scale, float offset) const noexcept {
    if (!std::isfinite(scale) || scale < 0 || !std::isfinite(offset)) return p;
    return {detail::finite_fp16(scale), zero_point(scale, offset)};
  }

 private:
  static std::uint8_t zero_point(float scale, float offset) noexcept {
    return std::uint8_t(kernel::detail::clamp_level(std::nearbyint(-offset * kernel::inverse_scale(scale)), 0, float(max_code)));
  }
};

/// The search looks at both signs of the scale, since the end with one more level may be needed on either side. Codes are q + 2^(b−1).
template <int Bits>
struct Symmetric {
  static_assert(Bits >= 2 && Bits <= 8, "cafeq: bits must be 2 to 8");
  struct Params {
    fp16 scale;
  };
  using Levels = kernel::UniformLevels<false, false>;
  static constexpr int bits = Bits;
  static constexpr bool has_offset = false;

  Index group = per_row;
  ScaleSearch search = ScaleSearch::mse;  ///< minmax and absmax: s = absmax/(2^(b−1) − 1), the lowest level unused

  static constexpr Levels levels() noexcept { return {-float(1 << (Bits - 1)), float((1 << (Bits - 1)) - 1)}; }

  Params fit(std::span<const float> x) const noexcept {
    const float absmax = kernel::range(x).absmax();
    const float widest = absmax / levels().high;
    if (absmax == 0 || search != ScaleSearch::mse) return {detail::finite_fp16(widest)};
    const float typical = gaussian_step(Bits) * float(std::sqrt(kernel::moments(x).sum_squares / double(x.size())));
    const auto along = [&](float sign) {
      const SearchSpace space{{sign * widest, 0}, 0, narrowest_fraction(Bits), {sign * typical, 0}};
      return search_line(x, levels(), space, detail::scale_in_fp16);
    };
    const ScoredLine positive = along(1), negative = along(-1);
    return {fp16(negative.error < positive.error ? negative.line.scale : positive.line.scale)};
  }
  std::uint8_t encode(float x, const Params& p) const noexcept { return levels().code(x * kernel::inverse_scale(p.scale)); }
  float decode(std::uint8_t code, const Params& p) const noexcept { return scale(p) * level(code); }
  void encode_group(std::span<const float> x, const Params& p, std::span<std::uint8_t> codes) const noexcept {
    kernel::encode(x, levels(), Line{scale(p), 0}, codes);
  }

  float level(std::uint8_t code) const noexcept { return levels().level(code); }
  float scale(const Params& p) const noexcept { return p.scale; }
  float offset(const Params&) const noexcept { return 0; }
  Params with_scale(const Params& p, float scale, float) const noexcept {
    return std::isfinite(scale) ? Params{detail::finite_fp16(scale)} : p;
  }
};

}  // namespace cafeq
