#pragma once

#include <array>
#include <span>

#include "cafeq/pipeline/recipe.hpp"
#include "cafeq/transform/hadamard.hpp"
#include "cafeq/trellis/budget.hpp"

namespace cafeq::recipes {

/// Codes chosen together: a randomized Hadamard, then a trellis with one logarithmic scale a row.
/// `bits` is a budget for everything, 1.05 to 5 or so; rate and scales are what it affords. The
/// least error of all recipes at equal bits; .5 s for a million weights on one core. A learned
/// transform gains less here than the bits that it is stored with (docs/explanation/trellis.md).
struct smallest {
  static constexpr std::string_view name = "smallest";
  static constexpr std::string_view description =
      "codes chosen together, at any size: the least error at equal bits";
  static constexpr double work = 15;

  double bits = 3.25;
  int window = 12;
  std::uint64_t seed = 0;
  bool or_least = false;  ///< the lowest rate instead of an error where that takes more than `bits`

  auto pipeline(Index rows, Index cols) const {
    const detail::TrellisLoad one = load(rows, cols);
    return Pipeline{RandomizedHadamard{.seed = seed}, afforded({&one, 1}), Nearest{}};
  }
  /// Sequences along the columns, so that what a column gets wrong is made up for by those behind
  /// it; a scale a row besides, since rows differ more than columns.
  auto metric_pipeline(Index rows, Index cols) const {
    const detail::TrellisLoad one = load(rows, cols, Sequence::scaled_column);
    return Pipeline{RandomizedHadamard{.seed = seed}, afforded({&one, 1}),
                    ErrorFeedback{.sweeps = 0}};
  }
  /// Balance and a randomized Hadamard between the two, sequences along the outer dimensions, one
  /// scale a channel; codes by alternating error feedback. The budget is for both together.
  auto pair(const PairShape& shape) const {
    return PairPipeline<Trellis>{.quantizer = afforded(loads(shape)),
                                 .transform = PairTransform::balanced,
                                 .rounder = {.sweeps = 0},
                                 .alternations = 3,
                                 .seed = seed};
  }
  std::optional<Error> fault(Index rows, Index cols) const {
    const detail::TrellisLoad one = load(rows, cols);
    return budget_fault({&one, 1});
  }
  std::optional<Error> pair_fault(const PairShape& shape) const {
    return budget_fault(loads(shape));
  }

  std::string transform(Index, Index) const { return "Hadamard"; }
  PairAdvice pair_advice(Index head_dim) const {
    if (head_dim >= least_head_dim) return {.form = PairForm::together};
    return {.why = message("heads of ", head_dim, " channels gain nothing by it")};
  }
  smallest with_bits(double mean) const {
    smallest other = *this;
    other.bits = mean;
    return other;
  }
  template <class Self, class F>
  static void options(Self& recipe, F&& f) {
    f("bits", recipe.bits);
    f("seed", recipe.seed);
    f("window", recipe.window);
  }

 private:
  static constexpr std::int64_t exponent_bits = 16;

  static detail::TrellisLoad load(Index rows, Index cols, Sequence sequence = Sequence::rows) {
    return {rows, cols, sequence, RandomizedHadamard::storage_bits(cols) + exponent_bits};
  }
  static std::array<detail::TrellisLoad, 2> loads(const PairShape& s) {
    return {detail::TrellisLoad{s.first_lines, s.first_length, Sequence::row, exponent_bits},
            detail::TrellisLoad{s.second_lines, s.second_length, Sequence::row, exponent_bits}};
  }

  /// What the budget affords, else the lowest rate. Raises what budget_fault() finds.
  Trellis afforded(std::span<const detail::TrellisLoad> loads) const {
    if (auto fault = budget_fault(loads)) raise(*fault);
    if (auto q = detail::affordable_trellis(loads, bits, window)) return *q;
    return detail::least_trellis(loads, window);
  }
  std::optional<Error> budget_fault(std::span<const detail::TrellisLoad> loads) const {
    if (auto fault = detail::least_trellis(loads, window).fault(0, 0)) return fault;
    if (!std::isfinite(bits))
      return Error(ErrorCode::invalid_argument, message("smallest: bits is ", bits));
    if (or_least && !(bits >= 1 && bits <= 9))
      return Error(ErrorCode::invalid_argument,
                   message("smallest: bits is ", bits, ", must be 1 to 9"));
    const double least = detail::least_trellis_bits(loads, window);
    if (or_least || bits >= least) return std::nullopt;
    return Error(ErrorCode::invalid_argument,
                 message("smallest: ", bits, " bits are fewer than the ", least, " that ",
                         loads[0].rows, " x ", loads[0].cols,
                         loads.size() > 1 ? " and other weights take" : " weights take"));
  }
};

}  // namespace cafeq::recipes
