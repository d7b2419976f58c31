/// A recipe that the library does not know: all that there is of it stands here.
#pragma once

#include <string>
#include <string_view>

#include "cafeq/pipeline/recipe.hpp"
#include "cafeq/quant/midrise.hpp"
#include "cafeq/transform/hadamard.hpp"

namespace cafeq::test {

/// Small Hadamards side by side, for hardware that cannot do large ones.
struct mine {
  static constexpr std::string_view name = "mine";
  static constexpr std::string_view description = "Hadamards of 16, levels without a zero";
  static constexpr double work = 1;

  int bits = 4;
  Index group = 16;

  auto pipeline(Index, Index) const {
    return Pipeline{BlockHadamard{.block = 16}, Midrise<>{.bits = bits, .group = group}, Nearest{}};
  }

  std::string transform(Index, Index) const { return "Hadamards of 16"; }
  PairAdvice pair_advice(Index) const {
    return {.why = "small Hadamards have no use for it", .always = true};
  }
  template <class Self, class F>
  static void options(Self& recipe, F&& f) {
    f("bits", recipe.bits);
    f("group", recipe.group);
  }
};

}  // namespace cafeq::test
