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

/// Fits a row: Alone is the format in which a group would be stored by itself, store(d, a, dmin, b)
/// what becomes of the result.
template <class Blocks, class Alone, class Levels, class Params, class Store>
void fit_super_blocks(std::span<const float> x, Index width, Index group, const Levels& levels,
                      const FitOptions& options, std::span<Params> params, Store&& store) noexcept {
  for_each_groups(x, width, [&](std::size_t first, const GroupSpan& groups) {
    const std::size_t count = std::size_t(groups.count());
    Blocks blocks(groups, std::size_t(super_block / group), levels);
    Each<typename Alone::Params> each;
    const auto alone = std::span(each).first(count);
    fit_scales(Alone{}, levels, options, blocks.weights(), width, alone);
    const IntegerScales found =
        blocks.fit(read_params(Alone{}, std::span<const typename Alone::Params>(alone)));
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

inline std::optional<Error> super_block_fault(Index group, Index width) {
  if (group == width) return std::nullopt;
  return Error(ErrorCode::invalid_argument,
               message("quantizer: group is ", group, ", in these super-blocks it is ", width));
}

}  // namespace detail

/// (d·a, −dmin·b) for each group of Width weights (16 or 32), a and b with ScaleBits bits.
template <Index Width, int ScaleBits>
struct SuperBlockScaleOffset {
  struct Params {
    fp16 d;
    fp16 dmin;
    std::uint8_t scale = 0;
    std::uint8_t min = 0;
  };
  static constexpr bool has_offset = true;
  static constexpr int scale_digits = 11 + ScaleBits;
  static constexpr int max_scale = (1 << ScaleBits) - 1;
  static constexpr std::int64_t bits() noexcept { return 32 * Width / super_block + 2 * ScaleBits; }
  static std::optional<Error> fault(Index group) { return detail::super_block_fault(group, Width); }

  static float scale(const Params& p) noexcept { return float(p.d) * float(p.scale); }
  static float offset(const Params& p) noexcept { return -(float(p.dmin) * float(p.min)); }
  /// The halves stay as they are: they belong to the other groups too.
  static Params nearest(const Params& p, float scale, float offset) noexcept {
    if (!std::isfinite(scale) || !std::isfinite(offset) || scale * float(p.d) < 0) return p;
    return usable({p.d, p.dmin, std::uint8_t(detail::whole_units(scale, p.d, 0, max_scale)),
                   std::uint8_t(detail::whole_units(-offset, p.dmin, 0, max_scale))});
  }

  template <GridLevels L>
  static void fit_row(std::span<const float> x, Index width, const L& levels,
                      const FitOptions& options, std::span<Params> params) noexcept {
    detail::fit_super_blocks<detail::SuperBlocks<L, 1, max_scale>, Fp16ScaleOffset>(
        x, width, Width, levels, options, params, [](fp16 d, int a, fp16 dmin, int b) {
          return usable({d, dmin, std::uint8_t(a), std::uint8_t(b)});
        });
  }
  template <class F>
  static void for_each_field(F&& f) {
    f("block_scales", &Params::d);
    f("block_minima", &Params::dmin);
    f("scales", &Params::scale);
    f("minima", &Params::min);
  }

 private:
  /// Steps that small would vanish in the rounding of the sum to float, and different codes would
  /// decode alike.
  static Params usable(Params p) noexcept {
    const float step = float(p.d) * float(p.scale), offset = float(p.dmin) * float(p.min);
    if (std::abs(step) < Fp16ScaleOffset::least_step * std::abs(offset)) p.scale = 0;
    return p;
  }
};

/// d·a for each group of Width weights, a a signed integer of ScaleBits bits.
template <Index Width, int ScaleBits>
struct SuperBlockScale {
  struct Params {
    fp16 d;
    std::int8_t scale = 0;
  };
  static constexpr bool has_offset = false;
  static constexpr int scale_digits = 11 + ScaleBits - 1;
  static constexpr ScaleSigns signs = ScaleSigns::both;
  static constexpr int max_scale = (1 << (ScaleBits - 1)) - 1;
  static constexpr std::int64_t bits() noexcept { return 16 * Width / super_block + ScaleBits; }
  static std::optional<Error> fault(Index group) { return detail::super_block_fault(group, Width); }

  static float scale(const Params& p) noexcept { return float(p.d) * float(p.scale); }
  static float offset(const Params&) noexcept { return 0; }
  /// d stays as it is: it belongs to the other groups too.
  static Params nearest(const Params& p, float scale, float) noexcept {
    if (!std::isfinite(scale)) return p;
    return {p.d, std::int8_t(detail::whole_units(scale, p.d, -max_scale - 1, max_scale))};
  }

  template <GridLevels L>
  static void fit_row(std::span<const float> x, Index width, const L& levels,
                      const FitOptions& options, std::span<Params> params) noexcept {
    detail::fit_super_blocks<detail::SuperBlocks<L, -max_scale - 1, max_scale>,
                             Fp16Scale<ScaleSigns::both>>(
        x, width, Width, levels, options, params,
        [](fp16 d, int a, fp16, int) { return Params{d, std::int8_t(a)}; });
  }
  template <class F>
  static void for_each_field(F&& f) {
    f("block_scales", &Params::d);
    f("scales", &Params::scale);
  }
};

struct AffineKLevels : AffineLevels {
  static constexpr std::string_view name = "affine_k";
};
template <int Bits, Index Width, int ScaleBits>
using AffineK = Grid<AffineKLevels, SuperBlockScaleOffset<Width, ScaleBits>, Bits, Width>;

struct SymmetricKLevels : SymmetricLevels {
  static constexpr std::string_view name = "symmetric_k";
};
/// Groups of 16 weights; scales of both signs, since one end has a level more.
template <int Bits, int ScaleBits>
using SymmetricK = Grid<SymmetricKLevels, SuperBlockScale<16, ScaleBits>, Bits, 16>;

}  // namespace cafeq
