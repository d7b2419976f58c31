/// Iq4Xs: x̂ = (d·a)·level, the levels of IQ4_NL under the scales of a K type; GGUF's IQ4_XS.
#pragma once

#include <string_view>

#include "cafeq/quant/gguf_k.hpp"
#include "cafeq/quant/iq4_nl.hpp"

namespace cafeq {

struct Iq4XsLevels : Iq4NlLevels {
  static constexpr std::string_view name = "iq4_xs";
  /// The steps from zero to the farther end, of which the search of a super-block takes parts.
  static constexpr float low = -8;
  static constexpr bool has_zero = false;

  static constexpr Iq4XsLevels of(int) noexcept { return {}; }
};

/// Scales of both signs for groups of 32 weights: integers of six bits times a half that a
/// super-block shares.
using Iq4Xs = Grid<Iq4XsLevels, SuperBlockScale<32, 6>, 4, 32>;

}  // namespace cafeq
