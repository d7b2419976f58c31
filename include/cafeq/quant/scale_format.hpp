/// ScaleFormat: how the scale of a group, and its offset if it has one, are stored.
///
/// Here are the concept and the two formats of plain halves. Others stand beside the grids that
/// they are made for: Fp16ScaleZero (zero_point.hpp), E8M0Scale and E4M3Scale (microfloat.hpp),
/// SuperBlockScale and SuperBlockScaleOffset (gguf_k.hpp).
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <span>
#include <type_traits>

#include "cafeq/quant/scale_offsets.hpp"

namespace cafeq {

/// A way to store scales and offsets.
///   Params              what is stored of a group; trivially copyable, and all zero a scale of 0
///   has_offset          whether there is an offset; if not it is zero
///   scale_digits        significant binary digits of a scale, at most. With those of a code 24 or
///                       fewer make scale · code exact in float, which the fastest loops need
///   bits()              stored bits of a group
///   scale(params), offset(params)
///   nearest(params, scale, offset)   what is stored for a scale and an offset: the nearest there
///                       is, or `params` where the format cannot keep them (not finite, or of a
///                       sign that it does not have)
///
/// Optional members:
///   read(params, scale, offset)   scales and offsets of any number of groups, spans of one length
///   read(params)        those of as many groups as ScaleOffsets hold, or fewer
///   store(scale_offsets, params)  the inverse for as many groups as ScaleOffsets hold, or fewer,
///                       each to the nearest that can be stored; all are loops over the above if
///                       not given
///   signs               ScaleSigns::both where scales may be negative (default: positive)
///   for_each_field(f)   f(name, &Params::member) for each member, by the name that it has in a
///                       quantized file: "scales", "offsets", "zeros"
///   for_bits(bits)      the format for codes of so many bits, where it is another one
///   zero(params)        the offset is minus so many whole steps; see HasZeroPoint
///   for_tensor(X, reach), tensor_bits()   state for a whole matrix, and its bits
///   fault(group)        what is wrong with the format for groups of such a size, if anything
///   fit_row(x, width, levels, options, params)   a search of its own for the parameters of a row's
///                       groups; without it they come from the search of quant/scale_fit.hpp, at
///                       the precision in which this format stores them
template <class F>
concept ScaleFormat =
    std::copyable<F> && requires(const F& format, const typename F::Params& params, float value) {
      requires std::is_trivially_copyable_v<typename F::Params>;
      { F::has_offset } -> std::convertible_to<bool>;
      { F::scale_digits } -> std::convertible_to<int>;
      { format.bits() } -> std::convertible_to<std::int64_t>;
      { format.scale(params) } -> std::same_as<float>;
      { format.offset(params) } -> std::same_as<float>;
      { format.nearest(params, value, value) } -> std::same_as<typename F::Params>;
    };

/// A format whose offset is a whole number of steps, zero(params) of them below zero. Weights are
/// then counted in steps first, x/s rounded, which makes zero one of the levels; the levels are
/// UniformLevels from 0 on without an offset, shifted by the zero point.
template <class F>
concept HasZeroPoint =
    ScaleFormat<F> && requires(const F& format, const typename F::Params& params) {
      { format.zero(params) } -> std::convertible_to<float>;
    };

/// Which scales a format has. The search tries both signs where there are both.
enum class ScaleSigns { positive, both };

/// One half a group.
template <ScaleSigns Signs = ScaleSigns::positive>
struct Fp16Scale {
  struct Params {
    fp16 scale;
  };
  static constexpr bool has_offset = false;
  static constexpr int scale_digits = 11;
  static constexpr ScaleSigns signs = Signs;
  static constexpr std::int64_t bits() noexcept { return 16; }

  static float scale(const Params& p) noexcept { return p.scale; }
  static float offset(const Params&) noexcept { return 0; }
  static Params nearest(const Params& p, float scale, float) noexcept {
    const bool has_it = std::isfinite(scale) && (Signs == ScaleSigns::both || scale >= 0);
    return has_it ? Params{detail::finite_fp16(scale)} : p;
  }

  static ScaleOffsets read(std::span<const Params> params) noexcept;
  static void read(std::span<const Params> params, std::span<float> scale,
                   std::span<float> offset) noexcept;
  static void store(const ScaleOffsets& from, std::span<Params> params) noexcept;

  template <class F>
  static void for_each_field(F&& f) {
    f("scales", &Params::scale);
  }
};

/// Two halves a group, the scale not negative. A group whose weights differ by less than fp16 tells
/// apart has scale 0 and is its offset.
struct Fp16ScaleOffset {
  struct Params {
    fp16 scale;
    fp16 offset;
  };
  static constexpr bool has_offset = true;
  static constexpr int scale_digits = 11;
  /// Steps below this fraction of the offset would vanish in the rounding of scale · level + offset
  /// to float (2^-24), and different codes would decode alike; here they are 0.
  static constexpr float least_step = 0x1p-20f;
  static constexpr std::int64_t bits() noexcept { return 32; }

  static float scale(const Params& p) noexcept { return p.scale; }
  static float offset(const Params& p) noexcept { return p.offset; }
  static Params nearest(const Params& p, float scale, float offset) noexcept {
    if (!std::isfinite(scale) || scale < 0 || !std::isfinite(offset)) return p;
    const Params near{detail::finite_fp16(scale), detail::finite_fp16(offset)};
    const bool vanishes = float(near.scale) < least_step * std::abs(float(near.offset));
    return vanishes ? Params{fp16(0.0f), near.offset} : near;
  }

  static ScaleOffsets read(std::span<const Params> params) noexcept;
  static void read(std::span<const Params> params, std::span<float> scale,
                   std::span<float> offset) noexcept;
  static void store(const ScaleOffsets& from, std::span<Params> params) noexcept;

  template <class F>
  static void for_each_field(F&& f) {
    f("scales", &Params::scale);
    f("offsets", &Params::offset);
  }
};

namespace detail {

template <ScaleFormat F>
constexpr ScaleSigns signs_of() noexcept {
  if constexpr (requires { F::signs; }) return F::signs;
  else return ScaleSigns::positive;
}

template <ScaleFormat F>
void read_params(const F& format, std::span<const typename F::Params> params,
                 std::span<float> scale, std::span<float> offset) noexcept {
  if constexpr (requires { format.read(params, scale, offset); }) {
    format.read(params, scale, offset);
  } else {
    for (std::size_t g = 0; g < params.size(); ++g) {
      scale[g] = format.scale(params[g]);
      offset[g] = format.offset(params[g]);
    }
  }
}
template <ScaleFormat F>
ScaleOffsets read_params(const F& format, std::span<const typename F::Params> params) noexcept {
  if constexpr (requires { format.read(params); }) {
    return format.read(params);
  } else {
    ScaleOffsets all;
    read_params(format, params, std::span(all.scale).first(params.size()),
                std::span(all.offset).first(params.size()));
    return all;
  }
}

template <ScaleFormat F>
void store_params(const F& format, const ScaleOffsets& from,
                  std::span<typename F::Params> params) noexcept {
  if constexpr (requires { format.store(from, params); }) {
    format.store(from, params);
  } else {
    for (std::size_t g = 0; g < params.size(); ++g)
      params[g] = format.nearest(typename F::Params{}, from.scale[g], from.offset[g]);
  }
}

/// What the format keeps of scales and offsets.
template <ScaleFormat F>
void round_to_stored(const F& format, ScaleOffsets& all) noexcept {
  Each<typename F::Params> params;
  store_params(format, all, std::span(params));
  all = read_params(format, std::span<const typename F::Params>(params));
}

}  // namespace detail

template <ScaleSigns Signs>
void Fp16Scale<Signs>::read(std::span<const Params> params, std::span<float> scale,
                            std::span<float> offset) noexcept {
  using detail::Lane;
  static_assert(sizeof(Params) == sizeof(fp16));
  const auto* halves = reinterpret_cast<const fp16*>(params.data());
  const std::size_t whole = params.size() / Lane::size * Lane::size;
  for (std::size_t g = 0; g < whole; g += Lane::size) {
    simd::load_float<DefaultArch>(halves + g).store_unaligned(scale.data() + g);
    Lane(0.0f).store_unaligned(offset.data() + g);
  }
  for (std::size_t g = whole; g < params.size(); ++g) {
    scale[g] = params[g].scale;
    offset[g] = 0;
  }
}

template <ScaleSigns Signs>
ScaleOffsets Fp16Scale<Signs>::read(std::span<const Params> params) noexcept {
  detail::Each<Params> all{};
  detail::copy_groups(params.data(), params.size(), all.data());
  const auto halves = std::bit_cast<detail::Each<fp16>>(all);
  ScaleOffsets read;
  detail::for_each_lanes(
      [&](std::size_t g) { detail::store(read.scale, g, detail::load(halves, g)); });
  return read;
}

template <ScaleSigns Signs>
void Fp16Scale<Signs>::store(const ScaleOffsets& from, std::span<Params> params) noexcept {
  const auto halves = detail::finite_fp16(from.scale);
  detail::copy_groups(std::bit_cast<detail::Each<Params>>(halves).data(), params.size(),
                      params.data());
}

inline void Fp16ScaleOffset::read(std::span<const Params> params, std::span<float> scale,
                                  std::span<float> offset) noexcept {
  using detail::Lane;
  static_assert(sizeof(Params) == 2 * sizeof(fp16));
  const auto* halves = reinterpret_cast<const fp16*>(params.data());
  const std::size_t whole = params.size() / Lane::size * Lane::size;
  for (std::size_t g = 0; g < whole; g += Lane::size) {
    const fp16* pairs = halves + 2 * g;
    const auto [s, z] = simd::unzip(simd::load_float<DefaultArch>(pairs),
                                    simd::load_float<DefaultArch>(pairs + Lane::size));
    s.store_unaligned(scale.data() + g);
    z.store_unaligned(offset.data() + g);
  }
  for (std::size_t g = whole; g < params.size(); ++g) {
    scale[g] = params[g].scale;
    offset[g] = params[g].offset;
  }
}

inline ScaleOffsets Fp16ScaleOffset::read(std::span<const Params> params) noexcept {
  using detail::Lane;
  detail::Each<Params> all{};
  detail::copy_groups(params.data(), params.size(), all.data());
  const auto pairs = std::bit_cast<std::array<fp16, 2 * detail::groups_at_once>>(all);
  ScaleOffsets read;
  detail::for_each_lanes([&](std::size_t g) {
    const fp16* p = pairs.data() + 2 * g;
    const auto [scale, offset] = simd::unzip(simd::load_float<DefaultArch>(p),
                                             simd::load_float<DefaultArch>(p + Lane::size));
    detail::store(read.scale, g, scale);
    detail::store(read.offset, g, offset);
  });
  return read;
}

inline void Fp16ScaleOffset::store(const ScaleOffsets& from, std::span<Params> params) noexcept {
  using detail::Lane;
  const auto scales = detail::finite_fp16(from.scale), offsets = detail::finite_fp16(from.offset);
  std::array<fp16, 2 * detail::groups_at_once> pairs;
  detail::for_each_lanes([&](std::size_t g) {
    const Lane scale = detail::load(scales, g), offset = detail::load(offsets, g);
    const auto vanishes = scale < Lane(least_step) * simd::abs(offset);
    const auto [a, b] = simd::zip(simd::select(vanishes, Lane(0.0f), scale), offset);
    simd::store_float(pairs.data() + 2 * g, a);
    simd::store_float(pairs.data() + 2 * g + Lane::size, b);
  });
  detail::copy_groups(std::bit_cast<detail::Each<Params>>(pairs).data(), params.size(),
                      params.data());
}

}  // namespace cafeq
