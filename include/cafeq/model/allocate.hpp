/// Bits over matrices so that the error is least for a total of storage.
#pragma once

#include <cstdint>
#include <queue>
#include <span>
#include <vector>

#include "cafeq/core/error.hpp"
#include "cafeq/core/numeric.hpp"

namespace cafeq {

/// What one matrix costs with some number of bits.
struct BitChoice {
  std::int64_t storage = 0;  ///< in bits
  double error = 0;          ///< what is added up over the matrices
};

/// For each matrix the position of its choice, such that the storage of all is at most `budget` and
/// the sum of errors small. Choices are in order of growing storage; the first ones are where it
/// starts, even where they alone exceed the budget (`fits` says so). From there the step with the
/// largest gain of error a bit is taken as long as one fits, a step being to any later choice of a
/// matrix. Within one step of the optimum for convex errors.
struct Allocation {
  std::vector<std::size_t> choice;
  std::int64_t storage = 0;
  bool fits = false;
};
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

  struct Move {
    double gain;  // of error a bit
    std::size_t matrix;
    std::size_t choice;
    bool operator<(const Move& other) const noexcept {
      return gain < other.gain || (gain == other.gain && matrix > other.matrix);
    }
  };
  std::priority_queue<Move> moves;
  const auto cost = [&](std::size_t m, std::size_t c) {
    return matrices[m][c].storage - matrices[m][result.choice[m]].storage;
  };
  const auto offer = [&](std::size_t m) {  // the best step of a matrix that fits
    Move best{0, m, 0};
    for (std::size_t c = result.choice[m] + 1;
         c < matrices[m].size() && cost(m, c) <= budget - result.storage; ++c) {
      const double gain =
          (matrices[m][result.choice[m]].error - matrices[m][c].error) / double(cost(m, c));
      if (gain > best.gain) best = {gain, m, c};
    }
    if (best.gain > 0) moves.push(best);
  };
  for (std::size_t m = 0; m < matrices.size(); ++m) offer(m);
  while (!moves.empty()) {
    const Move move = moves.top();
    moves.pop();
    if (cost(move.matrix, move.choice) <= budget - result.storage) {
      result.storage += cost(move.matrix, move.choice);
      result.choice[move.matrix] = move.choice;
    }
    offer(move.matrix);
  }
  return result;
}

}  // namespace cafeq
