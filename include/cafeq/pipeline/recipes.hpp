/// Recipes: pipelines with every choice made.
///
/// A recipe is anything with pipeline(rows, cols), which gives the Pipeline for a matrix of that
/// shape. Its members are the choices a caller may change. Bits and grid are part of its type:
/// fast<3>{.group = 32}; or the grid alone is, fast<>{.bits = b, .group = 32}.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <span>

#include "cafeq/optimize/adam.hpp"
#include "cafeq/optimize/learned_block_diagonal.hpp"
#include "cafeq/pipeline/pair_pipeline.hpp"
#include "cafeq/pipeline/pipeline.hpp"
#include "cafeq/pipeline/trellis_pipeline.hpp"
#include "cafeq/quant/affine.hpp"
#include "cafeq/quant/midrise.hpp"
#include "cafeq/rounding/error_feedback.hpp"
#include "cafeq/transform/compose.hpp"
#include "cafeq/transform/dual_scaling.hpp"
#include "cafeq/transform/hadamard.hpp"

namespace cafeq::recipes {

namespace detail {

template <class Grid>
Grid grid(int bits, Index group, ScaleSearch search = ScaleSearch::mse) {
  Grid grid{.group = group};
  if constexpr (requires { grid.search = search; }) grid.search = search;
  if constexpr (std::is_same_v<decltype(grid.bits), BitCount<runtime_bits>>) grid.bits = bits;
  return grid;
}

}  // namespace detail

/// Round to nearest on the plain matrix, min/max scales: what everything else is compared with. b +
/// 32/group bits.
template <int Bits = runtime_bits, class Grid = Affine<Bits>>
struct rtn {
  [[no_unique_address]] BitCount<Bits> bits{};
  Index group = per_row;

  auto pipeline(Index, Index) const {
    return Pipeline{Identity{}, detail::grid<Grid>(bits, group, ScaleSearch::minmax), Nearest{}};
  }
};

/// The same with scales by MSE search.
template <int Bits = runtime_bits, class Grid = Affine<Bits>>
struct mse {
  [[no_unique_address]] BitCount<Bits> bits{};
  Index group = per_row;

  auto pipeline(Index, Index) const {
    return Pipeline{Identity{}, detail::grid<Grid>(bits, group), Nearest{}};
  }
  auto pair() const {
    return PairPipeline<Grid>{.quantizer = detail::grid<Grid>(bits, group),
                              .transform = PairTransform::none,
                              .alternations = 0};
  }
};

/// A randomized Hadamard over the whole width, then MSE scales.
template <int Bits = runtime_bits, class Grid = Affine<Bits>>
struct hadamard {
  [[no_unique_address]] BitCount<Bits> bits{};
  Index group = per_row;
  std::uint64_t seed = 0;

  auto pipeline(Index, Index) const {
    return Pipeline{RandomizedHadamard{.seed = seed}, detail::grid<Grid>(bits, group), Nearest{}};
  }
};

/// Dual scaling, a randomized Hadamard, MSE scales: nearly as fast as reading the weights. b +
/// 32/group bits for the affine grid, b + 16/group for midrise, and 16/rows for the scaling.
template <int Bits = runtime_bits, class Grid = Affine<Bits>>
struct fast {
  [[no_unique_address]] BitCount<Bits> bits{};
  Index group = 64;
  std::uint64_t seed = 0;

  auto pipeline(Index, Index) const {
    return Pipeline{DualScaling{} * RandomizedHadamard{.seed = seed},
                    detail::grid<Grid>(bits, group), Nearest{}};
  }
  auto pair() const {
    return PairPipeline<Grid>{.quantizer = detail::grid<Grid>(bits, group),
                              .transform = PairTransform::balanced,
                              .alternations = 0,
                              .seed = seed};
  }
};

/// The largest power of two k for which an int8 inverse, 8k/rows + 8/rows bits a weight, costs at
/// most `budget`; 1 where none does.
inline Index affordable_block(Index rows, Index cols, double budget, Index max_block) {
  Index k = 1;
  const auto bits = [cols](Index size) {
    return double(8 * size + 8) + 16.0 / double(cols);
  };  // a column of W
  while (2 * k <= max_block && k < cols && bits(2 * k) <= budget * double(rows)) k *= 2;
  return k;
}

/// The best known scalar recipe: dual scaling, p-norm by L-BFGS over an orthogonal block-diagonal
/// M, ITQ, ALS to a general inverse stored in int8 that takes up the scaling, LDLQ in the metric of
/// that inverse. k is the largest block that keeps the stored inverse within `transform_bits` a
/// weight.
template <int Bits = runtime_bits, class Grid = Midrise<Bits>>
struct learned {
  [[no_unique_address]] BitCount<Bits> bits{};
  Index group = per_row;
  double transform_bits = 0.34;
  Index max_block = 128;
  std::uint64_t seed = 0;

  auto pipeline(Index rows, Index cols) const {
    const Grid grid = detail::grid<Grid>(bits, group);
    return Pipeline{
        LearnedBlockDiagonal<Grid>{.block = affordable_block(rows, cols, transform_bits, max_block),
                                   .quantizer = grid,
                                   .surrogate = {.p = bits >= 4 ? 16 : 8},
                                   .seed = seed},
        grid, ErrorFeedback{.sweeps = 3}};
  }
  auto pair() const {
    return PairPipeline<Grid>{.quantizer = detail::grid<Grid>(bits, group),
                              .surrogate = {.p = bits >= 4 ? 16 : 8},
                              .seed = seed};
  }
};

/// As published: LogSumExp with t = 5, a general M from a randomized Hadamard, Adam, nearest
/// rounding; no polish.
template <int Bits = runtime_bits, class Grid = Midrise<Bits>>
struct paper {
  [[no_unique_address]] BitCount<Bits> bits{};
  Index group = per_row;
  double transform_bits = 0.34;
  Index max_block = 128;
  double learning_rate = 1e-2;
  Index steps = 3000;
  std::uint64_t seed = 0;

  auto pipeline(Index rows, Index cols) const {
    const Grid grid = detail::grid<Grid>(bits, group, ScaleSearch::absmax);
    return Pipeline{LearnedBlockDiagonal<Grid, LogSumExp, Adam>{
                        .block = affordable_block(rows, cols, transform_bits, max_block),
                        .quantizer = grid,
                        .optimizer = {.learning_rate = learning_rate, .steps = steps},
                        .parametrization = Parametrization::general,
                        .scaling_power = 0,
                        .itq_rounds = 0,
                        .als_rounds = 0,
                        .seed = seed},
                    grid, Nearest{}};
  }
  auto pair() const {
    return PairPipeline<Grid, LogSumExp, Adam>{
        .quantizer = detail::grid<Grid>(bits, group),
        .optimizer = {.learning_rate = learning_rate, .steps = steps},
        .seed = seed};
  }
};

/// What a trellis is to hold: a matrix [rows, cols] beside a transform that takes some bits.
struct TrellisLoad {
  Index rows, cols;
  TrellisSequence sequence = TrellisSequence::rows;
  std::int64_t transform_bits = 64;  ///< a Hadamard's seed

  double weights() const noexcept { return double(rows) * double(cols); }
  /// With the exponent of the result.
  std::int64_t storage_bits(Trellis q) const noexcept {
    q.sequence = sequence;
    return Encoding<Trellis>::storage_bits(q, rows, cols) + 16 + transform_bits;
  }
};

/// What these take at the lowest rate, in bits a weight.
inline double least_trellis_bits(std::span<const TrellisLoad> loads, int window = 12) {
  double bits = 0, weights = 0;
  for (const TrellisLoad& load : loads) {
    bits += double(
        load.storage_bits({.rate = {TrellisRate::least}, .scale_bits = 6, .window = window}));
    weights += load.weights();
  }
  return bits / weights;
}

/// The trellis with the least expected error that holds all of these in `bits` a weight, everything
/// counted. Raises invalid_argument where the lowest rate takes more.
inline Trellis affordable_trellis(std::span<const TrellisLoad> loads, double bits,
                                  int window = 12) {
  constexpr double usual_range = 2;  // of logarithms of scales
  std::optional<Trellis> best;
  double least_error = 0;
  for (const int scale_bits : {8, 6}) {
    for (int sixteenths = TrellisRate::most; sixteenths >= TrellisRate::least; --sixteenths) {
      const Trellis candidate{.rate = {sixteenths}, .scale_bits = scale_bits, .window = window};
      double taken = 0, weights = 0;
      for (const TrellisLoad& load : loads) {
        taken += double(load.storage_bits(candidate));
        weights += load.weights();
      }
      if (!(taken <= bits * weights)) continue;
      const double step = usual_range / double(1 << scale_bits);
      const double error = 0.0694 * std::exp2(-2 * (candidate.rate.bits() - 2)) + step * step / 12;
      if (!best || error < least_error) {
        best = candidate;
        least_error = error;
      }
      break;
    }
  }
  if (!best)
    raise(ErrorCode::invalid_argument,
          message("smallest: ", bits, " bits are fewer than the ",
                  least_trellis_bits(loads, window), " that ", loads[0].rows, " x ", loads[0].cols,
                  loads.size() > 1 ? " and other weights take" : " weights take"));
  best->sequence = loads[0].sequence;
  return *best;
}

/// Codes chosen together: a randomized Hadamard, then a trellis with one logarithmic scale a row.
/// `bits` is a budget for everything, 2.05 to 5 or so; rate and scales are what it affords. The
/// least error of all recipes at equal bits; .5 s for a million weights on one core.
struct smallest {
  double bits = 3.25;
  int window = 12;
  std::uint64_t seed = 0;

  static TrellisLoad load(Index rows, Index cols) {
    return {rows, cols, TrellisSequence::rows, RandomizedHadamard::storage_bits(cols)};
  }
  static std::array<TrellisLoad, 2> pair_loads(Index first_lines, Index first_length,
                                               Index second_lines, Index second_length) {
    return {TrellisLoad{first_lines, first_length, TrellisSequence::row, 0},
            TrellisLoad{second_lines, second_length, TrellisSequence::row, 0}};
  }

  auto pipeline(Index rows, Index cols) const {
    const TrellisLoad one = load(rows, cols);
    return Pipeline{RandomizedHadamard{.seed = seed}, affordable_trellis({&one, 1}, bits, window),
                    Nearest{}};
  }
  /// Balance and a randomized Hadamard between the two, sequences along the outer dimensions, one
  /// scale a channel; codes by alternating error feedback. Both factors as [lines, length], lines
  /// the inner dimension; the budget is for both together.
  auto pair(Index first_lines, Index first_length, Index second_lines, Index second_length) const {
    return PairPipeline<Trellis>{
        .quantizer = affordable_trellis(
            pair_loads(first_lines, first_length, second_lines, second_length), bits, window),
        .transform = PairTransform::balanced,
        .rounder = {.sweeps = 0},
        .alternations = 3,
        .seed = seed};
  }
};

}  // namespace cafeq::recipes
