/// Micro-float formats: MXFP4 and NVFP4 (E2M1 elements under a scale that is itself 8 bits) and FP8
/// (E4M3).
///
/// Sources: "OCP Microscaling Formats (MX) Specification" 1.0 and "OCP 8-bit Floating Point
/// Specification (OFP8)" 1.0; NVFP4 as in NVIDIA's PTX and TensorRT: E4M3 scales for 16 elements
/// under one fp32 scale a tensor.
#pragma once

#include <array>

#include "cafeq/quant/grid.hpp"
#include "cafeq/quant/scale_search.hpp"

namespace cafeq {

/// A sign, exponent and mantissa float of at most 8 bits with subnormals and no infinities; Reach
/// is its largest value. Rounding is to nearest, ties to the even mantissa, and saturates. Codes
/// are the format's own bits; zero is always +0.
template <int ExponentBits, int MantissaBits, int Reach>
struct MicroFloat {
  static constexpr bool has_offset = false;
  static constexpr int bits = 1 + ExponentBits + MantissaBits;
  static constexpr int bias = (1 << (ExponentBits - 1)) - 1;
  static constexpr float reach = float(Reach);

  /// The nearest value of the format, for a float or a vector of them.
  template <class V>
  V operator()(const V& u) const noexcept;

  static std::uint8_t to_bits(float value) noexcept;
  static float from_bits(std::uint8_t bits) noexcept;
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

/// E2M1 with a power-of-two scale for every 32 weights: 4.25 bits a weight. absmax is the
/// standard's choice, 2^(⌊log2 absmax⌋ − 2), which clips up to a quarter off the largest weight;
/// mse tries the powers of two from twice to a sixteenth of that.
struct MxFp4 {
  struct Params {
    std::uint8_t scale = 0;  ///< E8M0
  };
  using Levels = E2M1;
  static constexpr int bits = 4;
  static constexpr bool has_offset = false;

  Index group = 32;
  ScaleSearch search = ScaleSearch::mse;

  Params fit(std::span<const float> x) const noexcept {
    const float absmax = kernel::range(x).absmax();
    if (absmax == 0) return {};
    const int exponent = floor_log2(double(absmax)) - 2;
    if (search != ScaleSearch::mse) return {E8M0::from_exponent(exponent)};
    std::array<Line, 6> lines;
    for (int c = 0; c < 6; ++c) {  // the standard's own comes first, so that it wins a draw
      const int step = c == 0 ? 0 : c == 1 ? 1 : 1 - c;
      lines[std::size_t(c)] = {E8M0::to_float(E8M0::from_exponent(exponent + step)), 0};
    }
    return {E8M0::nearest(best_line(x, Levels{}, std::span<const Line>(lines)).line.scale)};
  }
  std::uint8_t encode(float x, const Params& p) const noexcept {
    return E2M1::to_bits(x * kernel::inverse_scale(scale(p)));
  }
  float decode(std::uint8_t code, const Params& p) const noexcept { return scale(p) * level(code); }

  float level(std::uint8_t code) const noexcept { return E2M1::from_bits(code); }
  float scale(const Params& p) const noexcept { return E8M0::to_float(p.scale); }
  float offset(const Params&) const noexcept { return 0; }
  Params with_scale(const Params& p, float scale, float) const noexcept {
    return std::isfinite(scale) && scale > 0 ? Params{E8M0::nearest(scale)} : p;
  }
};

/// E2M1 with an E4M3 scale for every 16 weights and one fp32 scale a tensor: 4.5 bits a weight.
/// absmax is the standard's choice; mse tries every E4M3 scale from three steps above that to
/// eighteen below, about a fifth of it.
struct NvFp4 {
  struct Params {
    std::uint8_t scale = 0;  ///< E4M3, not negative
  };
  using Levels = E2M1;
  static constexpr int bits = 4;
  static constexpr bool has_offset = false;

  Index group = 16;
  ScaleSearch search = ScaleSearch::mse;
  float tensor_scale =
      1;  ///< set by for_tensor(): the largest magnitude of the matrix is 448 · 6 of it

  static constexpr std::int64_t tensor_bits() noexcept { return 32; }

  NvFp4 for_tensor(View<const float> X) const noexcept {
    float absmax = 0;
    for (Index i = 0; i < X.rows; ++i)
      for (Index j = 0; j < X.cols; ++j) absmax = std::max(absmax, std::abs(X(i, j)));
    NvFp4 fitted = *this;
    // Bounds that keep 1/scale and 6 · 448 · tensor_scale finite.
    fitted.tensor_scale =
        std::min(std::max(absmax / (E4M3::reach * E2M1::reach), 0x1p-100f), 0x1.8p116f);
    return fitted;
  }
  Params fit(std::span<const float> x) const noexcept {
    const float absmax = kernel::range(x).absmax();
    const int standard = E4M3::to_bits(absmax / E2M1::reach / tensor_scale);
    if (absmax == 0 || search != ScaleSearch::mse) return {std::uint8_t(standard)};
    constexpr int above = 3, below = 18;
    std::array<Line, std::size_t(above + below + 1)> lines;
    std::size_t count = 0;
    lines[count++] = {scale(Params{std::uint8_t(standard)}), 0};
    for (int code = std::min(standard + above, max_scale); code >= std::max(standard - below, 0);
         --code)
      if (code != standard) lines[count++] = {scale(Params{std::uint8_t(code)}), 0};
    return with_scale(
        {}, best_line(x, Levels{}, std::span<const Line>(lines).first(count)).line.scale, 0);
  }
  std::uint8_t encode(float x, const Params& p) const noexcept {
    return E2M1::to_bits(x * kernel::inverse_scale(scale(p)));
  }
  /// Rounded from the exact product, which no contraction can reach.
  float decode(std::uint8_t code, const Params& p) const noexcept {
    return float(double(scale(p)) * double(level(code)));
  }

  float level(std::uint8_t code) const noexcept { return E2M1::from_bits(code); }
  float scale(const Params& p) const noexcept {
    return float(double(E4M3::from_bits(p.scale)) * double(tensor_scale));
  }
  float offset(const Params&) const noexcept { return 0; }
  Params with_scale(const Params& p, float scale, float) const noexcept {
    return std::isfinite(scale) && scale >= 0 ? Params{E4M3::to_bits(scale / tensor_scale)} : p;
  }

 private:
  static constexpr int max_scale = 0x7e;  // 448
};

/// E4M3 with an fp16 scale a row, group or tensor.
struct Fp8E4M3 {
  struct Params {
    fp16 scale;
  };
  using Levels = E4M3;
  static constexpr int bits = 8;
  static constexpr bool has_offset = false;

  Index group = per_row;
  ScaleSearch search = ScaleSearch::mse;  ///< minmax and absmax: 448 is absmax

  Params fit(std::span<const float> x) const noexcept {
    Params p{};
    fit_row(x, std::max<Index>(1, Index(x.size())), {&p, 1});
    return p;
  }
  void fit_row(std::span<const float> x, Index width, std::span<Params> params) const noexcept {
    detail::fit_scales(x, width, Levels{}, search, E4M3::reach, 0, bits, params);
  }
  std::uint8_t encode(float x, const Params& p) const noexcept {
    return E4M3::to_bits(x * kernel::inverse_scale(p.scale));
  }
  float decode(std::uint8_t code, const Params& p) const noexcept { return scale(p) * level(code); }

  float level(std::uint8_t code) const noexcept { return E4M3::from_bits(code); }
  float scale(const Params& p) const noexcept { return p.scale; }
  float offset(const Params&) const noexcept { return 0; }
  Params with_scale(const Params& p, float scale, float) const noexcept {
    return std::isfinite(scale) && scale >= 0 ? Params{detail::finite_fp16(scale)} : p;
  }
};

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
  return xsimd::max(u, Batch<float, A>(low));
}

}  // namespace detail

template <int ExponentBits, int MantissaBits, int Reach>
template <class V>
V MicroFloat<ExponentBits, MantissaBits, Reach>::operator()(const V& u) const noexcept {
  constexpr float smallest_normal = 1.0f / float(1 << (bias - 1));
  const V clamped = kernel::detail::clamp_level(u, -reach, reach);
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
  if (value > reach)
    value = std::numeric_limits<float>::quiet_NaN();  // E4M3's one pattern past 448
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) | sign);
}

}  // namespace cafeq
