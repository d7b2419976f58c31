/// Iq4Nl: x̂ = s·level, 16 fixed levels that lie denser about zero than a uniform grid's; GGUF's
/// IQ4_NL.
#pragma once

#include <array>

#include "cafeq/quant/grid.hpp"
#include "cafeq/quant/scale_search.hpp"

namespace cafeq {

/// One fp16 scale for 32 weights, of either sign, since one end of the levels reaches farther than
/// the other. Of two levels equally near, the lower.
struct Iq4Nl {
  struct Params {
    fp16 scale;
  };
  /// The table as kernels take it.
  struct Levels {
    static constexpr bool has_offset = false;
    static constexpr std::array<float, 16> values{-127, -104, -83, -65, -49, -35, -22, -10,
                                                  1,    13,   25,  38,  53,  69,  89,  113};

    template <class V>
    V operator()(const V& u) const noexcept {
      return pick(u, values);
    }
    /// choices[k], k being the level nearest to u, for a vector of them.
    template <class V>
    static V pick(const V& u, const std::array<float, 16>& choices) noexcept {
      V choice(choices[0]);
      for (std::size_t k = 1; k < values.size(); ++k)
        choice = xsimd::select(u > V(threshold(k)), V(choices[k]), choice);
      return choice;
    }
    /// Halfway between level k − 1 and level k.
    static constexpr float threshold(std::size_t k) noexcept {
      return 0.5f * (values[k - 1] + values[k]);
    }
  };
  static constexpr int bits = 4;
  static constexpr Index group = 32;
  static constexpr bool has_offset = false;

  Params fit(std::span<const float> x) const noexcept {
    Params p{};
    fit_row(x, std::max<Index>(1, Index(x.size())), {&p, 1});
    return p;
  }
  void fit_row(std::span<const float> x, Index width, std::span<Params> params) const noexcept {
    constexpr float reach = 113, root_mean_square = 67.44f;
    detail::fit_scales(x, width, Levels{}, ScaleSearch::mse, reach, 1 / root_mean_square, bits,
                       params, detail::Signs::both);
  }
  std::uint8_t encode(float x, const Params& p) const noexcept {
    const float u = x * kernel::inverse_scale(p.scale);
    std::uint8_t code = 0;
    for (std::size_t k = 1; k < Levels::values.size(); ++k)
      code = std::uint8_t(code + int(u > Levels::threshold(k)));
    return code;
  }
  float decode(std::uint8_t code, const Params& p) const noexcept { return scale(p) * level(code); }
  void encode_group(std::span<const float> x, const Params& p,
                    std::span<std::uint8_t> codes) const noexcept {
    using V = Batch<float>;
    constexpr std::array<float, 16> numbers{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const V inverse(kernel::inverse_scale(p.scale));
    const std::size_t whole = x.size() / V::size * V::size;
    for (std::size_t i = 0; i < whole; i += V::size)
      simd::store_uint8<DefaultArch>(
          codes.data() + i, Levels::pick(V::load_unaligned(x.data() + i) * inverse, numbers));
    for (std::size_t i = whole; i < x.size(); ++i) codes[i] = encode(x[i], p);
  }

  float level(std::uint8_t code) const noexcept {
    return Levels::values[code % Levels::values.size()];
  }
  float scale(const Params& p) const noexcept { return p.scale; }
  float offset(const Params&) const noexcept { return 0; }
  Params with_scale(const Params& p, float scale, float) const noexcept {
    return std::isfinite(scale) ? Params{detail::finite_fp16(scale)} : p;
  }
};

}  // namespace cafeq
