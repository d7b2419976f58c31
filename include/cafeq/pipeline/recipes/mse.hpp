#pragma once

#include "cafeq/pipeline/recipe.hpp"
#include "cafeq/quant/affine.hpp"

namespace cafeq::recipes {

/// Round to nearest with scales by MSE search. b + 32/group bits. In a metric of the inputs scales
/// are fitted in that, and errors fed back: the best codes for engines whose format has no room for
/// a transform. Pairs are rounded one by one, their error measured as that of any other pair: what
/// those are compared with.
template <int Bits = runtime_bits, class G = Affine<Bits>>
struct mse {
  static constexpr std::string_view name = "mse";
  static constexpr std::string_view description =
      "no transform: scales by MSE search, in a metric with errors fed back";
  static constexpr double work = 1;

  [[no_unique_address]] BitCount<Bits> bits{};
  Index group = per_row;

  auto pipeline(Index, Index) const {
    return Pipeline{Identity{}, detail::grid_of<G>(bits, group), Nearest{}};
  }
  auto metric_pipeline(Index rows, Index cols) const {
    return detail::with_feedback(pipeline(rows, cols));
  }
  auto pair(const PairShape&) const {
    return PairPipeline<G>{.quantizer = detail::grid_of<G>(bits, group),
                           .transform = PairTransform::none,
                           .alternations = 0};
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
