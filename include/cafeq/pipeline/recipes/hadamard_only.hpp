#pragma once

#include "cafeq/pipeline/recipe.hpp"
#include "cafeq/quant/affine.hpp"
#include "cafeq/transform/hadamard.hpp"

namespace cafeq::recipes {

/// A randomized Hadamard over the whole width, then MSE scales. b + 32/group bits.
template <int Bits = runtime_bits, class G = Affine<Bits>>
struct hadamard {
  static constexpr std::string_view name = "hadamard";
  static constexpr std::string_view description = "a randomized Hadamard, scales by MSE search";
  static constexpr double work = 1;

  [[no_unique_address]] BitCount<Bits> bits{};
  Index group = per_row;
  std::uint64_t seed = 0;

  auto pipeline(Index, Index) const {
    return Pipeline{RandomizedHadamard{.seed = seed}, detail::grid_of<G>(bits, group), Nearest{}};
  }

  auto metric_pipeline(Index rows, Index cols) const {
    return detail::with_feedback(pipeline(rows, cols));
  }

  std::string transform(Index, Index) const { return "Hadamard"; }
  PairAdvice pair_advice(Index) const {
    return {.why = "a Hadamard alone has no use for it", .always = true};
  }
  template <class Self, class F>
  static void options(Self& recipe, F&& f) {
    f("bits", recipe.bits);
    f("group", recipe.group);
    f("seed", recipe.seed);
  }
};

}  // namespace cafeq::recipes
