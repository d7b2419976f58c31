#pragma once

#include "cafeq/optimize/learned_block_diagonal.hpp"
#include "cafeq/pipeline/recipe.hpp"
#include "cafeq/pipeline/recipes/fast.hpp"
#include "cafeq/quant/midrise.hpp"
#include "cafeq/rounding/error_feedback.hpp"

namespace cafeq {

namespace detail {

/// The largest power of two k for which an int8 inverse, 8k/rows + 8/rows bits a weight, costs at
/// most `budget`; 1 where none does.
inline Index affordable_block(Index rows, Index cols, double budget, Index max_block) {
  const auto bits_a_column = [cols](Index k) { return double(8 * k + 8) + 16.0 / double(cols); };
  Index k = 1;
  while (2 * k <= max_block && k < cols && bits_a_column(2 * k) <= budget * double(rows)) k *= 2;
  return k;
}

/// What is wrong with the members that recipes with learned transforms have in common, if anything.
inline std::optional<Error> learned_fault(double transform_bits, Index max_block) {
  if (!(transform_bits >= 0))
    return Error(ErrorCode::invalid_argument,
                 message("transform_bits is ", transform_bits, ", must not be negative"));
  if (max_block < 1)
    return Error(ErrorCode::invalid_argument,
                 message("max_block is ", max_block, ", must be positive"));
  return std::nullopt;
}

}  // namespace detail

namespace recipes {

/// The best known scalar recipe: dual scaling, p-norm by L-BFGS over an orthogonal block-diagonal
/// M, ITQ, ALS to a general inverse stored in int8 that takes up the scaling, LDLQ in the metric of
/// that inverse. k is the largest block that keeps the stored inverse within `transform_bits` a
/// weight.
template <int Bits = runtime_bits, class G = Midrise<Bits>>
struct learned {
  static constexpr std::string_view name = "learned";
  static constexpr std::string_view description =
      "a learned transform and error feedback: the best scalar codes";
  static constexpr double work = 60;

  [[no_unique_address]] BitCount<Bits> bits{};
  Index group = per_row;
  double transform_bits = 0.34;
  Index max_block = 128;
  std::uint64_t seed = 0;

  auto pipeline(Index rows, Index cols) const {
    const G grid = detail::grid_of<G>(bits, group);
    return Pipeline{
        LearnedBlockDiagonal<G>{
            .block = block(rows, cols), .quantizer = grid, .surrogate = surrogate(), .seed = seed},
        grid, ErrorFeedback{.sweeps = 3}};
  }
  auto metric_pipeline(Index rows, Index cols) const {
    auto pipeline = this->pipeline(rows, cols);
    pipeline.rounder.fit_scales = true;
    return pipeline;
  }
  auto pair(const PairShape&) const {
    return PairPipeline<G>{
        .quantizer = detail::grid_of<G>(bits, group), .surrogate = surrogate(), .seed = seed};
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
  }

 private:
  /// Few levels are set by the extremes of a row, many by its bulk.
  PNorm surrogate() const { return {.p = bits >= 4 ? 16 : 8}; }
};

}  // namespace recipes
}  // namespace cafeq
