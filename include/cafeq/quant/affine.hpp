/// Integer grids: Affine (scale and offset), AffineIntegerZero (scale and integer zero point),
/// Symmetric (scale alone).
///
///   Affine             x̂ = s·q + z,       q = clamp(round((x − z)/s), 0, 2^b − 1)    32 bits a
///   group AffineIntegerZero  x̂ = s·(q − zero),  zero in 0 … 2^b − 1                        16 + b
///   bits Symmetric          x̂ = s·q,           q in −2^(b−1) … 2^(b−1) − 1                16 bits
/// Scales and offsets are fp16; ties go to the even q. Affine<4> has four bits, Affine<>{.bits = b}
/// those that are chosen at run time.
#pragma once

#include "cafeq/kernel/pack.hpp"
#include "cafeq/quant/grid.hpp"
#include "cafeq/quant/scale_search.hpp"

namespace cafeq {

/// A group whose weights differ by less than fp16 tells apart has scale 0 and is its offset.
template <int Bits = runtime_bits>
struct Affine {
  struct Params {
    fp16 scale;
    fp16 offset;
  };
  using Levels = kernel::UniformLevels<true, false>;
  static constexpr bool has_offset = true;

  [[no_unique_address]] BitCount<Bits> bits{};
  Index group = per_row;
  ScaleSearch search = ScaleSearch::mse;

  constexpr Levels levels() const noexcept { return {0, float((1 << bits) - 1)}; }

  Params fit(std::span<const float> x) const noexcept {
    Params p{};
    fit_row(x, std::max<Index>(1, Index(x.size())), {&p, 1});
    return p;
  }
  void fit_row(std::span<const float> x, Index width, std::span<Params> params) const noexcept {
    const float steps = levels().high;
    detail::for_each_groups(x, width, [&](std::size_t first, const GroupSpan& groups) {
      const std::size_t count = std::size_t(groups.count());
      Each<float> low{}, high{};
      kernel::group_ranges(groups.x, width, std::span(low).first(count),
                           std::span(high).first(count));
      Lines lines;
      detail::for_each_lanes([&](std::size_t g) {
        using detail::Lane;
        Lane least = detail::load(low, g), greatest = detail::load(high, g);
        if (search == ScaleSearch::absmax) {
          greatest = xsimd::max(xsimd::abs(least), xsimd::abs(greatest));
          least = Lane(0.0f) - greatest;
        }
        detail::store(lines.offset, g, least + Lane(0.0f));  // no -0
        detail::store(lines.scale, g, greatest / Lane(steps) - least / Lane(steps));
      });
      if (search == ScaleSearch::mse) search_from(lines, groups);
      store(lines);
      std::array<fp16, 2 * detail::groups_at_once> pairs;
      detail::for_each_lanes([&](std::size_t g) {
        const auto [a, b] = simd::zip(detail::load(lines.scale, g), detail::load(lines.offset, g));
        simd::store_float(pairs.data() + 2 * g, a);
        simd::store_float(pairs.data() + 2 * g + detail::Lane::size, b);
      });
      detail::copy_groups(std::bit_cast<Each<Params>>(pairs).data(), count, params.data() + first);
    });
  }

  std::uint8_t encode(float x, const Params& p) const noexcept {
    return levels().code((x - offset(p)) * kernel::inverse_scale(p.scale));
  }
  /// The product is exact in float, so contraction cannot change the sum.
  float decode(std::uint8_t code, const Params& p) const noexcept {
    return scale(p) * level(code) + offset(p);
  }
  void encode_group(std::span<const float> x, const Params& p,
                    std::span<std::uint8_t> codes) const noexcept {
    kernel::encode(x, levels(), line(p), codes);
  }

  Line line(const Params& p) const noexcept { return {p.scale, p.offset}; }
  Lines lines(std::span<const Params> params) const noexcept {
    Each<Params> all{};
    detail::copy_groups(params.data(), params.size(), all.data());
    const auto pairs = std::bit_cast<std::array<fp16, 2 * detail::groups_at_once>>(all);
    Lines lines;
    detail::for_each_lanes([&](std::size_t g) {
      const fp16* p = pairs.data() + 2 * g;
      const auto [scale, offset] = simd::unzip(
          simd::load_float<DefaultArch>(p), simd::load_float<DefaultArch>(p + detail::Lane::size));
      detail::store(lines.scale, g, scale);
      detail::store(lines.offset, g, offset);
    });
    return lines;
  }
  /// x̂ = scale · code + offset.
  Lines code_lines(std::span<const Params> params) const noexcept { return lines(params); }
  float level(std::uint8_t code) const noexcept { return float(code); }
  float scale(const Params& p) const noexcept { return p.scale; }
  float offset(const Params& p) const noexcept { return p.offset; }
  Params with_scale(const Params& p, float scale, float offset) const noexcept {
    return std::isfinite(scale) && scale >= 0 && std::isfinite(offset) ? stored({scale, offset})
                                                                       : p;
  }
  void check() const { check_bits(bits); }

 private:
  static Params stored(Line line) noexcept {
    return usable({detail::finite_fp16(line.scale), detail::finite_fp16(line.offset)});
  }
  /// Steps that small would vanish in the rounding of s·q + z to float, and different codes would
  /// decode alike.
  static constexpr float least_step = 0x1p-20f;
  static Params usable(Params p) noexcept {
    return float(p.scale) < least_step * std::abs(float(p.offset)) ? Params{fp16(0.0f), p.offset}
                                                                   : p;
  }
  static void store(Lines& lines) noexcept {
    detail::round_to_fp16(lines.scale);
    detail::round_to_fp16(lines.offset);
    detail::for_each_lanes([&](std::size_t g) {
      const detail::Lane scale = detail::load(lines.scale, g),
                         offset = detail::load(lines.offset, g);
      detail::store(lines.scale, g,
                    xsimd::select(scale < detail::Lane(least_step) * xsimd::abs(offset),
                                  detail::Lane(0.0f), scale));
    });
  }
  /// From the whole range of each group to what the search finds.
  void search_from(Lines& lines, GroupSpan groups) const noexcept {
    groups.pivot = lines.offset.data();
    SearchSpace space;
    space.narrowest = narrowest_fraction(bits);
    space.widest = lines;
    Each<float> mean{};
    space.typical = detail::deviations(groups, &mean);
    for (std::size_t g = 0; g < mean.size(); ++g) {
      const bool finite = space.typical[g] <= std::numeric_limits<float>::max();
      space.typical[g] = finite ? space.typical[g] * gaussian_step(bits) : 0.0f;
      space.center[g] =
          lines.offset[g] + (finite ? mean[g] : 0.5f * levels().high * lines.scale[g]);
    }
    lines = search_lines(groups, levels(), space, store).lines;
  }
};

/// Zero is always one of the levels.
template <int Bits = runtime_bits>
struct AffineIntegerZero {
  struct Params {
    fp16 scale;
    std::uint8_t zero = 0;
  };
  using Levels = kernel::UniformLevels<false, false>;
  static constexpr bool has_offset = true;

  [[no_unique_address]] BitCount<Bits> bits{};
  Index group = per_row;
  ScaleSearch search = ScaleSearch::mse;

  /// The levels in units of the scale for a zero point.
  constexpr int max_code() const noexcept { return (1 << bits) - 1; }
  constexpr Levels levels(std::uint8_t zero) const noexcept {
    return {-float(zero), float(max_code() - zero)};
  }
  std::int64_t param_bits() const noexcept { return 16 + bits; }

  Params fit(std::span<const float> x) const noexcept {
    Params p{};
    fit_row(x, std::max<Index>(1, Index(x.size())), {&p, 1});
    return p;
  }
  void fit_row(std::span<const float> x, Index width, std::span<Params> params) const noexcept {
    detail::for_each_groups(x, width, [&](std::size_t first, const GroupSpan& groups) {
      const std::size_t count = std::size_t(groups.count());
      Each<float> low{}, high{}, scale{}, zero{};
      kernel::group_ranges(groups.x, width, std::span(low).first(count),
                           std::span(high).first(count));
      for (std::size_t g = 0; g < count; ++g) {
        const float absmax = std::max(std::abs(low[g]), std::abs(high[g]));
        low[g] = search == ScaleSearch::absmax ? -absmax : std::min(low[g], 0.0f);
        high[g] = search == ScaleSearch::absmax ? absmax : std::max(high[g], 0.0f);
        scale[g] = high[g] / float(max_code()) - low[g] / float(max_code());
        zero[g] = float(zero_point(scale[g], low[g]));
      }
      if (search == ScaleSearch::mse) search_from(scale, zero, groups);
      const Each<fp16> stored = detail::finite_fp16(scale);
      for (std::size_t g = 0; g < count; ++g)
        params[first + g] = {stored[g], std::uint8_t(zero[g])};
    });
  }
  std::uint8_t encode(float x, const Params& p) const noexcept {
    return levels(p.zero).code(x * kernel::inverse_scale(p.scale));
  }
  float decode(std::uint8_t code, const Params& p) const noexcept {
    return scale(p) * (level(code) - float(p.zero));
  }
  void encode_group(std::span<const float> x, const Params& p,
                    std::span<std::uint8_t> codes) const noexcept {
    kernel::encode(x, levels(p.zero), Line{scale(p), 0}, codes);
  }

  /// x̂ = scale · code + offset.
  Lines code_lines(std::span<const Params> params) const noexcept {
    Lines lines;
    for (std::size_t g = 0; g < params.size(); ++g) {
      lines.scale[g] = scale(params[g]);
      lines.offset[g] = offset(params[g]);
    }
    return lines;
  }
  float level(std::uint8_t code) const noexcept { return float(code); }
  float scale(const Params& p) const noexcept { return p.scale; }
  float offset(const Params& p) const noexcept { return -scale(p) * float(p.zero); }
  /// The offset becomes the nearest whole number of steps.
  Params with_scale(const Params& p, float scale, float offset) const noexcept {
    if (!std::isfinite(scale) || scale < 0 || !std::isfinite(offset)) return p;
    return {detail::finite_fp16(scale), zero_point(scale, offset)};
  }
  void check() const { check_bits(bits); }

 private:
  std::uint8_t zero_point(float scale, float offset) const noexcept {
    return std::uint8_t(kernel::detail::clamp_level(
        std::nearbyint(-offset * kernel::inverse_scale(scale)), 0, float(max_code())));
  }
  /// Shrinking the range does not move its zero point: the neighbours are tried too.
  void search_from(Each<float>& scale, Each<float>& zero, GroupSpan groups) const noexcept {
    const Each<float> none{}, widest = scale, middle = zero;
    groups.pivot = none.data();
    SearchSpace space;
    space.narrowest = narrowest_fraction(bits);
    space.widest.scale = widest;
    space.typical = detail::deviations(groups);
    for (float& typical : space.typical) typical *= gaussian_step(bits);
    Each<float> least{};
    for (const float step : {0.0f, -1.0f, 1.0f}) {
      Each<float> shifted{};
      for (std::size_t g = 0; g < shifted.size(); ++g) {
        shifted[g] = kernel::detail::clamp_level(middle[g] + step, 0, float(max_code()));
        space.widest.offset[g] = -shifted[g] * widest[g];
      }
      space.zero = &shifted;
      const auto store = [&](Lines& lines) {
        detail::round_to_fp16(lines.scale);
        for (std::size_t g = 0; g < shifted.size(); ++g)
          lines.offset[g] = -shifted[g] * lines.scale[g];
      };
      const ScoredLines found = search_lines(
          groups, kernel::UniformLevels<true, false>{0, float(max_code())}, space, store);
      for (std::size_t g = 0; g < shifted.size(); ++g) {
        if (step != 0 && !(found.error[g] < least[g])) continue;
        scale[g] = found.lines.scale[g];
        zero[g] = shifted[g];
        least[g] = found.error[g];
      }
    }
  }
};

/// The search looks at both signs of the scale, since the end with one more level may be needed on
/// either side. Codes are q + 2^(b−1).
template <int Bits = runtime_bits>
struct Symmetric {
  struct Params {
    fp16 scale;
  };
  using Levels = kernel::UniformLevels<false, false>;
  static constexpr bool has_offset = false;

  [[no_unique_address]] BitCount<Bits> bits{};
  Index group = per_row;
  ScaleSearch search =
      ScaleSearch::mse;  ///< minmax and absmax: s = absmax/(2^(b−1) − 1), the lowest level unused

  constexpr Levels levels() const noexcept {
    return {-float(1 << (bits - 1)), float((1 << (bits - 1)) - 1)};
  }

  Params fit(std::span<const float> x) const noexcept {
    Params p{};
    fit_row(x, std::max<Index>(1, Index(x.size())), {&p, 1});
    return p;
  }
  void fit_row(std::span<const float> x, Index width, std::span<Params> params) const noexcept {
    detail::fit_scales(x, width, levels(), search, levels().high, gaussian_step(bits), bits, params,
                       detail::Signs::both);
  }
  std::uint8_t encode(float x, const Params& p) const noexcept {
    return levels().code(x * kernel::inverse_scale(p.scale));
  }
  float decode(std::uint8_t code, const Params& p) const noexcept { return scale(p) * level(code); }
  void encode_group(std::span<const float> x, const Params& p,
                    std::span<std::uint8_t> codes) const noexcept {
    kernel::encode(x, levels(), line(p), codes);
  }

  Line line(const Params& p) const noexcept { return {scale(p), 0}; }
  Lines lines(std::span<const Params> params) const noexcept {
    return {detail::stored_scales(params), {}};
  }
  /// x̂ = scale · code + offset.
  Lines code_lines(std::span<const Params> params) const noexcept {
    return detail::lines_of_codes(lines(params), levels().base());
  }
  float level(std::uint8_t code) const noexcept { return levels().level(code); }
  float scale(const Params& p) const noexcept { return p.scale; }
  float offset(const Params&) const noexcept { return 0; }
  Params with_scale(const Params& p, float scale, float) const noexcept {
    return std::isfinite(scale) ? Params{detail::finite_fp16(scale)} : p;
  }
  void check() const { check_bits(bits); }
};

}  // namespace cafeq
