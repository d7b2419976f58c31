/// Micro-float formats: MXFP4 and NVFP4 (E2M1 elements under a scale that is itself 8 bits) and FP8
/// (E4M3).
///
/// Sources: "OCP Microscaling Formats (MX) Specification" 1.0 and "OCP 8-bit Floating Point
/// Specification (OFP8)" 1.0; NVFP4 as in NVIDIA's PTX and TensorRT: E4M3 scales for 16 elements
/// under one fp32 scale a tensor.
#pragma once

#include <array>

#include "cafeq/quant/grid.hpp"

namespace cafeq {

/// A sign, exponent and mantissa float of at most 8 bits with subnormals and no infinities; Reach
/// is its largest value. Rounding is to nearest, ties to the even mantissa, and saturates. Codes
/// are the format's own bits; zero is always +0. A model of GridLevels.
template <int ExponentBits, int MantissaBits, int Reach>
struct MicroFloat {
  static constexpr bool has_offset = false;
  static constexpr int bits = 1 + ExponentBits + MantissaBits;
  static constexpr int bias = (1 << (ExponentBits - 1)) - 1;
  static constexpr float reach() noexcept { return float(Reach); }

  /// The nearest value of the format, for a float or a vector of them.
  template <class V>
  V operator()(const V& u) const noexcept;

  static std::uint8_t to_bits(float value) noexcept;
  static float from_bits(std::uint8_t bits) noexcept;
  static std::uint8_t code(float u) noexcept { return to_bits(u); }
  static float level(std::uint8_t code) noexcept { return from_bits(code); }
};

using E2M1 = MicroFloat<2, 1, 6>;
using E4M3 = MicroFloat<4, 3, 448>;

/// Powers of two as MX keeps them: exponent + 127, here from 2^-127 to 2^125, so that 6 times a
/// scale is finite.
struct E8M0 {
  static constexpr int max_exponent = 125;
  static std::uint8_t from_exponent(int exponent) noexcept {
    return std::uint8_t(std::min(std::max(exponent, -127), max_exponent) + 127);
  }
  static float to_float(std::uint8_t bits) noexcept { return std::ldexp(1.0f, int(bits) - 127); }
  /// The power of two nearest to a positive number, the smaller one of equals.
  static std::uint8_t nearest(float value) noexcept {
    const int exponent = floor_log2(double(value));
    return from_exponent(double(value) > std::ldexp(1.5, exponent) ? exponent + 1 : exponent);
  }
};

namespace detail {

/// For formats with few scales: params[g] = the best of candidates(absmax, scales), the first of
/// which is the standard's own, for group g of x. A group of zeros has Params{}.
template <class Format, class Levels, class Candidates>
void fit_candidates(const Format& format, const Levels& levels, ScaleSearch search,
                    std::span<const float> x, Index width,
                    std::span<typename Format::Params> params, Candidates&& candidates) noexcept {
  kernel::detail::for_each_group(x, width, 0, [&](std::size_t g, std::span<const float> group) {
    const float absmax = kernel::range(group).absmax();
    params[g] = {};
    if (absmax == 0) return;
    std::array<ScaleOffset, 64> scales;
    std::size_t count = candidates(absmax, scales);
    if (search != ScaleSearch::mse) count = 1;
    const auto tried = std::span<const ScaleOffset>(scales).first(count);
    const float scale = count == 1 ? tried[0].scale : best_candidate(group, levels, tried).scale;
    params[g] = format.nearest({}, scale, 0);
  });
}

}  // namespace detail

/// A power of two a group, in 8 bits. minmax and absmax are the standard's choice,
/// 2^(⌊log2 absmax⌋ − ⌊log2 reach⌋), which clips up to a quarter off the largest weight; mse tries
/// the powers of two from twice to a sixteenth of that.
struct E8M0Scale {
  struct Params {
    std::uint8_t scale = 0;  ///< E8M0
  };
  static constexpr bool has_offset = false;
  static constexpr int scale_digits = 1;
  static constexpr std::int64_t bits() noexcept { return 8; }

  static float scale(const Params& p) noexcept { return E8M0::to_float(p.scale); }
  static float offset(const Params&) noexcept { return 0; }
  static Params nearest(const Params& p, float scale, float) noexcept {
    return std::isfinite(scale) && scale > 0 ? Params{E8M0::nearest(scale)} : p;
  }

  template <GridLevels L>
  void fit_row(std::span<const float> x, Index width, const L& levels, const FitOptions& options,
               std::span<Params> params) const noexcept {
    const auto powers = [&](float absmax, auto& scales) {
      const int standard = floor_log2(double(absmax)) - floor_log2(double(levels.reach()));
      std::size_t count = 0;
      for (const int step : {0, 1, -1, -2, -3, -4})
        scales[count++] = {E8M0::to_float(E8M0::from_exponent(standard + step)), 0};
      return count;
    };
    detail::fit_candidates(*this, levels, options.search, x, width, params, powers);
  }
  template <class F>
  static void for_each_field(F&& f) {
    f("scales", &Params::scale);
  }
};

/// An E4M3 scale a group under one fp32 scale a tensor. minmax and absmax are the standard's
/// choice; mse tries every E4M3 scale from three steps above that to eighteen below, about a fifth
/// of it.
struct E4M3Scale {
  struct Params {
    std::uint8_t scale = 0;  ///< E4M3, not negative
  };
  static constexpr bool has_offset = false;
  static constexpr int scale_digits = 24;
  static constexpr std::int64_t bits() noexcept { return 8; }
  static constexpr std::int64_t tensor_bits() noexcept { return 32; }

  /// Set by for_tensor(): the largest magnitude of the matrix is 448 · reach of it.
  float tensor_scale = 1;

  float scale(const Params& p) const noexcept {
    return float(double(E4M3::from_bits(p.scale)) * double(tensor_scale));
  }
  static float offset(const Params&) noexcept { return 0; }
  Params nearest(const Params& p, float scale, float) const noexcept {
    return std::isfinite(scale) && scale >= 0 ? Params{E4M3::to_bits(scale / tensor_scale)} : p;
  }

  E4M3Scale for_tensor(View<const float> X, float reach) const noexcept {
    float absmax = 0;
    for (Index i = 0; i < X.rows; ++i)
      for (Index j = 0; j < X.cols; ++j) absmax = std::max(absmax, std::abs(X(i, j)));
    // Bounds that keep 1/scale and 448 · reach · tensor_scale finite.
    return {std::min(std::max(absmax / (E4M3::reach() * reach), 0x1p-100f), 0x1.8p116f)};
  }
  template <GridLevels L>
  void fit_row(std::span<const float> x, Index width, const L& levels, const FitOptions& options,
               std::span<Params> params) const noexcept {
    constexpr int above = 3, below = 18, largest = 0x7e;  // 448
    const auto steps = [&](float absmax, auto& scales) {
      const int standard = E4M3::to_bits(absmax / levels.reach() / tensor_scale);
      std::size_t count = 0;
      scales[count++] = {scale({std::uint8_t(standard)}), 0};
      for (int code = std::min(standard + above, largest); code >= std::max(standard - below, 0);
           --code)
        if (code != standard) scales[count++] = {scale({std::uint8_t(code)}), 0};
      return count;
    };
    detail::fit_candidates(*this, levels, options.search, x, width, params, steps);
  }
  template <class F>
  static void for_each_field(F&& f) {
    f("scales", &Params::scale);
  }
};

struct MxFp4Levels {
  static constexpr std::string_view name = "mxfp4";
  static constexpr E2M1 of(int) noexcept { return {}; }
};
/// E2M1 with a power-of-two scale for every 32 weights: 4.25 bits a weight.
using MxFp4 = Grid<MxFp4Levels, E8M0Scale, 4, 32>;

struct NvFp4Levels {
  static constexpr std::string_view name = "nvfp4";
  static constexpr E2M1 of(int) noexcept { return {}; }
};
/// E2M1 with an E4M3 scale for every 16 weights and one fp32 scale a tensor: 4.5 bits a weight.
using NvFp4 = Grid<NvFp4Levels, E4M3Scale, 4, 16>;

struct Fp8E4M3Levels {
  static constexpr std::string_view name = "fp8_e4m3";
  static constexpr E4M3 of(int) noexcept { return {}; }
};
/// E4M3 with an fp16 scale a row, group or tensor. minmax and absmax: 448 is absmax.
using Fp8E4M3 = Grid<Fp8E4M3Levels, Fp16Scale<>, 8>;

namespace detail {

/// The power of two that a float has as its exponent, subnormals aside.
inline float binade(float u) noexcept {
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(u) & 0x7f800000u);
}
template <class A>
Batch<float, A> binade(const Batch<float, A>& u) noexcept {
  return u & Batch<float, A>(std::numeric_limits<float>::infinity());
}
inline float at_least(float u, float low) noexcept { return u > low ? u : low; }
template <class A>
Batch<float, A> at_least(const Batch<float, A>& u, float low) noexcept {
  return simd::max(u, Batch<float, A>(low));
}

}  // namespace detail

template <int ExponentBits, int MantissaBits, int Reach>
template <class V>
V MicroFloat<ExponentBits, MantissaBits, Reach>::operator()(const V& u) const noexcept {
  constexpr float smallest_normal = 1.0f / float(1 << (bias - 1));
  const V clamped = kernel::detail::clamp_level(u, -reach(), reach());
  // Adding 1.5 · 2^(23 − MantissaBits) binades leaves MantissaBits of fraction, rounded as the
  // processor does: ties to even. The product is exact.
  const V magic = detail::at_least(detail::binade(clamped), smallest_normal) *
                  V(1.5f * float(1 << (23 - MantissaBits)));
  return (clamped + magic) - magic;
}

template <int ExponentBits, int MantissaBits, int Reach>
std::uint8_t MicroFloat<ExponentBits, MantissaBits, Reach>::to_bits(float value) noexcept {
  constexpr float smallest_normal = 1.0f / float(1 << (bias - 1));
  const float rounded = MicroFloat{}(value);
  const std::uint32_t sign = rounded < 0 ? 1u << (bits - 1) : 0u;
  const float magnitude = std::abs(rounded);
  if (magnitude < smallest_normal)
    return std::uint8_t(sign |
                        std::uint32_t(magnitude * (float(1 << MantissaBits) / smallest_normal)));
  return std::uint8_t(sign | ((std::bit_cast<std::uint32_t>(magnitude) >> (23 - MantissaBits)) -
                              (std::uint32_t(127 - bias) << MantissaBits)));
}

template <int ExponentBits, int MantissaBits, int Reach>
float MicroFloat<ExponentBits, MantissaBits, Reach>::from_bits(std::uint8_t code) noexcept {
  constexpr float smallest_normal = 1.0f / float(1 << (bias - 1));
  const std::uint32_t magnitude = code & ((1u << (bits - 1)) - 1u);
  const std::uint32_t sign = std::uint32_t((code >> (bits - 1)) & 1u) << 31;
  float value;
  if (magnitude < (1u << MantissaBits))
    value = float(magnitude) * (smallest_normal / float(1 << MantissaBits));
  else
    value = std::bit_cast<float>((magnitude << (23 - MantissaBits)) +
                                 (std::uint32_t(127 - bias) << 23));
  if (value > reach())
    value = std::numeric_limits<float>::quiet_NaN();  // E4M3's one pattern past 448
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) | sign);
}

}  // namespace cafeq
