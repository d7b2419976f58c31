/// The grids of GGUF's K types: integer scales under halves that the groups of a super-block share.
///
///   AffineK     x̂ = (d·a)·q − dmin·b,  q in 0 … 2^bits − 1                  Q2_K, Q4_K, Q5_K
///   SymmetricK  x̂ = (d·a)·q,           q in −2^(bits−1) … 2^(bits−1) − 1    Q3_K, Q6_K
///
/// d and dmin are fp16, a and b integers of the group. All products are exact in float: a half
/// times an integer scale times a level has 24 bits at most. fit_row fits the groups of a
/// super-block together; fit is for a group that has one to itself.
#pragma once

#include "cafeq/quant/affine.hpp"
#include "cafeq/quant/super_blocks.hpp"

namespace cafeq {

/// Weights of a super-block. The last one of a row may be shorter, though not in a file.
inline constexpr Index super_block = 256;

namespace detail {

/// Fits a row: Alone is the grid that searches for a group by itself, store(line, d, a, dmin, b)
/// what becomes of the result.
template <class Blocks, class Alone, class Params, class Store>
void fit_super_blocks(std::span<const float> x, Index width, Index group, const Alone& alone,
                      std::span<Params> params, Store&& store) noexcept {
  for_each_groups(x, width, [&](std::size_t first, const GroupSpan& groups) {
    const std::size_t count = std::size_t(groups.count());
    Blocks blocks(groups, std::size_t(super_block / group), alone.levels());
    Each<typename Alone::Params> each;
    const auto lines = std::span(each).first(count);
    alone.fit_row(blocks.weights(), width, lines);
    const IntegerLines found = blocks.fit(alone.lines(lines));
    for (std::size_t g = 0; g < count; ++g)
      params[first + g] = store(blocks.unscaled(found.d[g], g), int(found.a[g]),
                                blocks.unscaled(found.D[g], g), int(found.b[g]));
  });
}

/// The whole number of units nearest to a value, within bounds; 0 where the unit is 0.
inline int whole_units(float value, float unit, int low, int high) noexcept {
  return int(kernel::detail::clamp_level(std::nearbyint(value * kernel::inverse_scale(unit)),
                                         float(low), float(high)));
}

}  // namespace detail

/// Width is 16 or 32.
template <int Bits, Index Width, int ScaleBits>
struct AffineK {
  struct Params {
    fp16 d;
    fp16 dmin;
    std::uint8_t scale = 0;
    std::uint8_t min = 0;
  };
  using Levels = kernel::UniformLevels<true, false>;
  static constexpr int bits = Bits;
  static constexpr Index group = Width;
  static constexpr bool has_offset = true;
  static constexpr int max_scale = (1 << ScaleBits) - 1;

  static constexpr Levels levels() noexcept { return {0, float((1 << Bits) - 1)}; }
  static constexpr std::int64_t param_bits() noexcept {
    return 32 * Width / super_block + 2 * ScaleBits;
  }

  Params fit(std::span<const float> x) const noexcept {
    Params p{};
    fit_row(x, std::max<Index>(1, Index(x.size())), {&p, 1});
    return p;
  }
  void fit_row(std::span<const float> x, Index width, std::span<Params> params) const noexcept {
    const auto stored = [](fp16 d, int a, fp16 dmin, int b) {
      return usable({d, dmin, std::uint8_t(a), std::uint8_t(b)});
    };
    detail::fit_super_blocks<detail::SuperBlocks<Levels, 1, max_scale>>(
        x, width, Width, Affine<Bits>{}, params, stored);
  }
  std::uint8_t encode(float x, const Params& p) const noexcept {
    return levels().code((x - offset(p)) * kernel::inverse_scale(scale(p)));
  }
  float decode(std::uint8_t code, const Params& p) const noexcept {
    return scale(p) * level(code) + offset(p);
  }
  void encode_group(std::span<const float> x, const Params& p,
                    std::span<std::uint8_t> codes) const noexcept {
    kernel::encode(x, levels(), line(p), codes);
  }

  Line line(const Params& p) const noexcept { return {scale(p), offset(p)}; }
  Lines lines(std::span<const Params> params) const noexcept {
    Lines lines;
    for (std::size_t g = 0; g < params.size(); ++g) {
      lines.scale[g] = scale(params[g]);
      lines.offset[g] = offset(params[g]);
    }
    return lines;
  }
  /// x̂ = scale · code + offset.
  Lines code_lines(std::span<const Params> params) const noexcept { return lines(params); }
  float level(std::uint8_t code) const noexcept { return float(code); }
  float scale(const Params& p) const noexcept { return float(p.d) * float(p.scale); }
  float offset(const Params& p) const noexcept { return -(float(p.dmin) * float(p.min)); }
  /// The halves stay as they are: they belong to the other groups too.
  Params with_scale(const Params& p, float scale, float offset) const noexcept {
    if (!std::isfinite(scale) || !std::isfinite(offset) || scale * float(p.d) < 0) return p;
    return usable({p.d, p.dmin, std::uint8_t(detail::whole_units(scale, p.d, 0, max_scale)),
                   std::uint8_t(detail::whole_units(-offset, p.dmin, 0, max_scale))});
  }

 private:
  /// Steps that small would vanish in the rounding of the sum to float, and different codes would
  /// decode alike.
  static Params usable(Params p) noexcept {
    const float step = float(p.d) * float(p.scale), offset = float(p.dmin) * float(p.min);
    if (std::abs(step) < 0x1p-20f * std::abs(offset)) p.scale = 0;
    return p;
  }
};

/// Groups of 16 weights; scales of both signs, since one end has a level more.
template <int Bits, int ScaleBits>
struct SymmetricK {
  struct Params {
    fp16 d;
    std::int8_t scale = 0;
  };
  using Levels = kernel::UniformLevels<false, false>;
  static constexpr int bits = Bits;
  static constexpr Index group = 16;
  static constexpr bool has_offset = false;
  static constexpr int max_scale = (1 << (ScaleBits - 1)) - 1;

  static constexpr Levels levels() noexcept {
    return {-float(1 << (Bits - 1)), float((1 << (Bits - 1)) - 1)};
  }
  static constexpr std::int64_t param_bits() noexcept {
    return 16 * group / super_block + ScaleBits;
  }

  Params fit(std::span<const float> x) const noexcept {
    Params p{};
    fit_row(x, std::max<Index>(1, Index(x.size())), {&p, 1});
    return p;
  }
  void fit_row(std::span<const float> x, Index width, std::span<Params> params) const noexcept {
    const auto stored = [](fp16 d, int a, fp16, int) { return Params{d, std::int8_t(a)}; };
    detail::fit_super_blocks<detail::SuperBlocks<Levels, -max_scale - 1, max_scale>>(
        x, width, group, Symmetric<Bits>{}, params, stored);
  }
  std::uint8_t encode(float x, const Params& p) const noexcept {
    return levels().code(x * kernel::inverse_scale(scale(p)));
  }
  float decode(std::uint8_t code, const Params& p) const noexcept { return scale(p) * level(code); }
  void encode_group(std::span<const float> x, const Params& p,
                    std::span<std::uint8_t> codes) const noexcept {
    kernel::encode(x, levels(), line(p), codes);
  }

  Line line(const Params& p) const noexcept { return {scale(p), 0}; }
  Lines lines(std::span<const Params> params) const noexcept {
    Lines lines;
    for (std::size_t g = 0; g < params.size(); ++g) lines.scale[g] = scale(params[g]);
    return lines;
  }
  /// x̂ = scale · code + offset.
  Lines code_lines(std::span<const Params> params) const noexcept {
    return detail::lines_of_codes(lines(params), levels().base());
  }
  float level(std::uint8_t code) const noexcept { return levels().level(code); }
  float scale(const Params& p) const noexcept { return float(p.d) * float(p.scale); }
  float offset(const Params&) const noexcept { return 0; }
  /// d stays as it is: it belongs to the other groups too.
  Params with_scale(const Params& p, float scale, float) const noexcept {
    return std::isfinite(scale)
               ? Params{p.d,
                        std::int8_t(detail::whole_units(scale, p.d, -max_scale - 1, max_scale))}
               : p;
  }
};

}  // namespace cafeq
