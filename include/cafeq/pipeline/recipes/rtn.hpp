#pragma once

#include "cafeq/pipeline/recipe.hpp"
#include "cafeq/quant/affine.hpp"

namespace cafeq::recipes {

/// Round to nearest on the plain matrix, min/max scales: what everything else is compared with. b +
/// 32/group bits.
template <int Bits = runtime_bits, class G = Affine<Bits>>
struct rtn {
  static constexpr std::string_view name = "rtn";
  static constexpr std::string_view description = "round to nearest, what others are compared with";
  static constexpr double work = 1;

  [[no_unique_address]] BitCount<Bits> bits{};
  Index group = per_row;

  auto pipeline(Index, Index) const {
    return Pipeline{Identity{}, detail::grid_of<G>(bits, group, ScaleSearch::minmax), Nearest{}};
  }

  std::string transform(Index, Index) const { return "none"; }
  PairAdvice pair_advice(Index) const {
    return {.why = "rounding to nearest has no use for it", .always = true};
  }
  template <class Self, class F>
  static void options(Self& recipe, F&& f) {
    f("bits", recipe.bits);
    f("group", recipe.group);
  }
};

}  // namespace cafeq::recipes
