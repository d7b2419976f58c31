/// Iq4Nl: x̂ = s·level, 16 fixed levels that lie denser about zero than a uniform grid's; GGUF's
/// IQ4_NL.
#pragma once

#include <array>

#include "cafeq/quant/grid.hpp"

namespace cafeq {

/// The levels of ggml's table kvalues_iq4nl. Of two equally near, the lower.
struct Iq4NlLevels {
  static constexpr std::string_view name = "iq4_nl";
  static constexpr bool has_offset = false;
  static constexpr std::array<float, 16> values{-127, -104, -83, -65, -49, -35, -22, -10,
                                                1,    13,   25,  38,  53,  69,  89,  113};

  static constexpr Iq4NlLevels of(int) noexcept { return {}; }

  template <class V>
  V operator()(const V& u) const noexcept {
    return pick(u, values);
  }
  template <class V>
  static V codes(const V& u) noexcept {
    constexpr std::array<float, 16> numbers{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return pick(u, numbers);
  }
  static std::uint8_t code(float u) noexcept {
    std::uint8_t code = 0;
    for (std::size_t k = 1; k < values.size(); ++k)
      code = std::uint8_t(code + int(u > threshold(k)));
    return code;
  }
  static float level(std::uint8_t code) noexcept { return values[code % values.size()]; }
  /// The shorter end: the search looks at both signs of the scale.
  static constexpr float reach() noexcept { return 113; }
  /// One over the root mean square of the levels.
  static constexpr float unit_scale() noexcept { return 1 / 67.44f; }

 private:
  /// choices[k], k being the level nearest to u, for a float or a vector of them.
  static float pick(float u, const std::array<float, 16>& choices) noexcept {
    return choices[code(u)];
  }
  template <class V>
  static V pick(const V& u, const std::array<float, 16>& choices) noexcept {
    V choice(choices[0]);
    for (std::size_t k = 1; k < values.size(); ++k)
      choice = simd::select(u > V(threshold(k)), V(choices[k]), choice);
    return choice;
  }
  /// Halfway between level k − 1 and level k.
  static constexpr float threshold(std::size_t k) noexcept {
    return 0.5f * (values[k - 1] + values[k]);
  }
};

/// One fp16 scale for 32 weights, of either sign, since one end of the levels reaches farther than
/// the other.
using Iq4Nl = Grid<Iq4NlLevels, Fp16Scale<ScaleSigns::both>, 4, 32>;

}  // namespace cafeq
