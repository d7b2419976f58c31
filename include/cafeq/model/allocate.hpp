/// Spreads bits over matrices so that the error of all is small for a total of storage.
#pragma once

#include <cstddef>
#include <cstdint>
#include <queue>
#include <span>
#include <vector>

#include "cafeq/core/error.hpp"
#include "cafeq/core/numeric.hpp"

namespace cafeq::detail {

/// What one matrix costs with some number of bits.
struct BitChoice {
  std::int64_t storage = 0;  ///< in bits
  double error = 0;          ///< of that matrix; the sum over all matrices is to be small
};

/// What allocate_bits() has chosen.
struct Allocation {
  std::vector<std::size_t> choice;  ///< for each matrix a position among its choices
  std::int64_t storage = 0;         ///< of all matrices, in bits
  bool fits = false;                ///< whether that is within the budget
};

/// Chooses for each matrix, such that the storage of all is at most `budget` and the sum of their
/// errors small.
///
/// The choices of a matrix are in order of growing storage. Every matrix starts with its first one,
/// even where these alone exceed the budget. From there one step is taken after the other, always
/// the one that lessens the error most for each bit of storage, among those that fit; a step leads
/// to any later choice of a matrix. For errors that are convex in the storage the result is within
/// one step of the optimum.
inline Allocation allocate_bits(std::span<const std::vector<BitChoice>> matrices,
                                std::int64_t budget) {
  Allocation result;
  for (const auto& choices : matrices) {
    if (choices.empty())
      raise(ErrorCode::invalid_argument, "allocate_bits: a matrix without choices");
    for (std::size_t i = 1; i < choices.size(); ++i)
      if (choices[i].storage <= choices[i - 1].storage)
        raise(ErrorCode::invalid_argument,
              "allocate_bits: choices must be in order of growing storage");
    result.choice.push_back(0);
    result.storage += choices[0].storage;
  }
  result.fits = result.storage <= budget;

  struct Step {
    double gain;  // of error a bit
    std::size_t matrix;
    std::size_t choice;
    bool operator<(const Step& other) const noexcept {
      return gain < other.gain || (gain == other.gain && matrix > other.matrix);
    }
  };
  const auto cost = [&](std::size_t m, std::size_t c) {
    return matrices[m][c].storage - matrices[m][result.choice[m]].storage;
  };

  // The queue holds the best step of each matrix that fitted when the matrix was last looked at.
  std::priority_queue<Step> steps;
  const auto offer = [&](std::size_t m) {
    Step best{.gain = 0, .matrix = m, .choice = 0};
    for (std::size_t c = result.choice[m] + 1;
         c < matrices[m].size() && cost(m, c) <= budget - result.storage; ++c) {
      const double gain =
          (matrices[m][result.choice[m]].error - matrices[m][c].error) / double(cost(m, c));
      if (gain > best.gain) best = {.gain = gain, .matrix = m, .choice = c};
    }
    if (best.gain > 0) steps.push(best);
  };
  for (std::size_t m = 0; m < matrices.size(); ++m) offer(m);

  // A step that no longer fits is not taken, but a smaller one of the same matrix may fit still.
  while (!steps.empty()) {
    const Step step = steps.top();
    steps.pop();
    if (cost(step.matrix, step.choice) <= budget - result.storage) {
      result.storage += cost(step.matrix, step.choice);
      result.choice[step.matrix] = step.choice;
    }
    offer(step.matrix);
  }
  return result;
}

}  // namespace cafeq::detail
