#pragma once

#include "cafeq/optimize/adam.hpp"
#include "cafeq/pipeline/recipes/learned.hpp"

namespace cafeq::recipes {

/// As published (arXiv 2511.19705): LogSumExp with t = 5, a general M from a randomized Hadamard,
/// Adam, nearest rounding; no polish.
template <int Bits = runtime_bits, class G = Midrise<Bits>>
struct paper {
  static constexpr std::string_view name = "paper";
  static constexpr std::string_view description = "CafeQ as published, for comparison";
  static constexpr double work = 300;

  [[no_unique_address]] BitCount<Bits> bits{};
  Index group = per_row;
  double transform_bits = 0.34;
  Index max_block = 128;
  double learning_rate = 1e-2;
  Index steps = 3000;
  std::uint64_t seed = 0;

  auto pipeline(Index rows, Index cols) const {
    const G grid = detail::grid_of<G>(bits, group, ScaleSearch::absmax);
    return Pipeline{
        LearnedBlockDiagonal<G, LogSumExp, Adam>{.block = block(rows, cols),
                                                 .quantizer = grid,
                                                 .optimizer = adam(),
                                                 .parametrization = Parametrization::general,
                                                 .scaling_power = 0,
                                                 .itq_rounds = 0,
                                                 .als_rounds = 0,
                                                 .seed = seed},
        grid, Nearest{}};
  }
  auto pair(const PairShape&) const {
    return PairPipeline<G, LogSumExp, Adam>{
        .quantizer = detail::grid_of<G>(bits, group), .optimizer = adam(), .seed = seed};
  }
  std::optional<Error> fault(Index, Index) const {
    return detail::learned_fault(transform_bits, max_block);
  }

  Index block(Index rows, Index cols) const {
    return detail::affordable_block(rows, cols, transform_bits, max_block);
  }
  std::string transform(Index rows, Index cols) const {
    return message("learned, k = ", block(rows, cols));
  }
  PairAdvice pair_advice(Index head_dim) const {
    return {.form = head_dim >= least_head_dim ? PairForm::together : PairForm::balanced};
  }
  auto trial() const { return fast<>{.bits = bits, .group = group, .seed = seed}; }
  template <class Self, class F>
  static void options(Self& recipe, F&& f) {
    f("bits", recipe.bits);
    f("group", recipe.group);
    f("seed", recipe.seed);
    f("transform_bits", recipe.transform_bits);
    f("max_block", recipe.max_block);
    f("learning_rate", recipe.learning_rate);
    f("steps", recipe.steps);
  }

 private:
  Adam adam() const { return {.learning_rate = learning_rate, .steps = steps}; }
};

}  // namespace cafeq::recipes
