/// Midrise<Bits>: x̂ = (c + ½)·s with c = clamp(⌊x/s⌋, −m, m − 1), m = 2^(Bits−1). An even number of
/// levels, symmetric about a zero that is none of them; one positive fp16 scale a group, 16/g bits
/// a weight.
#pragma once

#include "cafeq/kernel/pack.hpp"
#include "cafeq/quant/grid.hpp"
#include "cafeq/quant/scale_search.hpp"

namespace cafeq {

/// Codes are c + m. A group of zeros has scale 0, at which every code is zero. Midrise<>{.bits = b}
/// chooses the bits at run time.
template <int Bits = runtime_bits>
struct Midrise {
  struct Params {
    fp16 scale;
  };
  using Levels = kernel::UniformLevels<false, true>;
  static constexpr bool has_offset = false;

  [[no_unique_address]] BitCount<Bits> bits{};
  Index group = per_row;
  ScaleSearch search = ScaleSearch::mse;  ///< minmax and absmax: the outermost levels are ±absmax

  constexpr Levels levels() const noexcept {
    return {-float(1 << (bits - 1)), float((1 << (bits - 1)) - 1)};
  }

  Params fit(std::span<const float> x) const noexcept {
    Params p{};
    fit_row(x, std::max<Index>(1, Index(x.size())), {&p, 1});
    return p;
  }
  void fit_row(std::span<const float> x, Index width, std::span<Params> params) const noexcept {
    const float reach = float(1 << (bits - 1)) - 0.5f;
    detail::fit_scales(x, width, levels(), search, reach, gaussian_step(bits), bits, params);
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
    return std::isfinite(scale) && scale >= 0 ? Params{detail::finite_fp16(scale)} : p;
  }
  void check() const { check_bits(bits); }
};

}  // namespace cafeq
