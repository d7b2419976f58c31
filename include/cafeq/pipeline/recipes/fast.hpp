#pragma once

#include "cafeq/pipeline/recipe.hpp"
#include "cafeq/quant/affine.hpp"
#include "cafeq/transform/compose.hpp"
#include "cafeq/transform/dual_scaling.hpp"
#include "cafeq/transform/hadamard.hpp"

namespace cafeq::recipes {

/// Dual scaling, a randomized Hadamard, MSE scales: nearly as fast as reading the weights. b +
/// 32/group bits for the affine grid, b + 16/group for midrise, and 16/rows for the scaling.
template <int Bits = runtime_bits, class G = Affine<Bits>>
struct fast {
  static constexpr std::string_view name = "fast";
  static constexpr std::string_view description =
      "dual scaling and a Hadamard: nearly as fast as reading the weights";
  static constexpr double work = 1;

  [[no_unique_address]] BitCount<Bits> bits{};
  Index group = 64;
  std::uint64_t seed = 0;

  auto pipeline(Index, Index) const {
    return Pipeline{DualScaling{} * RandomizedHadamard{.seed = seed},
                    detail::grid_of<G>(bits, group), Nearest{}};
  }
  auto metric_pipeline(Index rows, Index cols) const {
    return detail::with_feedback(pipeline(rows, cols));
  }
  auto pair(const PairShape&) const {
    return PairPipeline<G>{.quantizer = detail::grid_of<G>(bits, group),
                           .transform = PairTransform::balanced,
                           .alternations = 0,
                           .seed = seed};
  }

  std::string transform(Index, Index) const { return "scaling, Hadamard"; }
  PairAdvice pair_advice(Index) const { return {.form = PairForm::balanced}; }
  template <class Self, class F>
  static void options(Self& recipe, F&& f) {
    f("bits", recipe.bits);
    f("group", recipe.group);
    f("seed", recipe.seed);
  }
};

}  // namespace cafeq::recipes
