/// The trellis that a number of bits affords.
#pragma once

#include <cmath>
#include <optional>
#include <span>

#include "cafeq/quant/joint_codes.hpp"
#include "cafeq/trellis/trellis.hpp"

namespace cafeq::detail {

/// What a trellis is to hold: a matrix [rows, cols], and bits that are stored beside its codes.
struct TrellisLoad {
  Index rows = 0;
  Index cols = 0;
  Sequence sequence = Sequence::rows;
  std::int64_t other_bits = 0;

  double weights() const noexcept { return double(rows) * double(cols); }
  std::int64_t storage_bits(Trellis q) const {
    q.sequence = sequence;
    return Codes<Trellis>::storage_bits(q, rows, cols) + other_bits;
  }
};

/// Bits a weight that these take together.
inline double bits_of_loads(std::span<const TrellisLoad> loads, const Trellis& q) {
  double bits = 0, weights = 0;
  for (const TrellisLoad& load : loads) {
    bits += double(load.storage_bits(q));
    weights += load.weights();
  }
  return bits / weights;
}

/// The same at the lowest rate.
inline double least_trellis_bits(std::span<const TrellisLoad> loads, int window = 12) {
  return bits_of_loads(loads, {.rate = {TrellisRate::least}, .scale_bits = 6, .window = window});
}

/// The trellis with the least expected error that holds all of these in `bits` a weight, everything
/// counted, with the sequence of the first; nothing where the lowest rate takes more.
inline std::optional<Trellis> affordable_trellis(std::span<const TrellisLoad> loads, double bits,
                                                 int window = 12) {
  // The relative error of a Gaussian at 2 bits, as tests/trellis/trellis_test.cpp measures it,
  // falls by a factor of 4 a bit. Scales in coarser steps add the square of a step's standard
  // deviation: the logarithms of a matrix's scales span about 2, in as many steps as there are
  // codes.
  constexpr double error_at_two_bits = 0.0694, usual_range = 2;

  std::optional<Trellis> best;
  double least_error = 0;
  for (const int scale_bits : {8, 6}) {
    Trellis candidate{.scale_bits = scale_bits, .window = window};
    int& rate = candidate.rate.sixteenths;
    rate = TrellisRate::most;
    while (rate >= TrellisRate::least && !(bits_of_loads(loads, candidate) <= bits)) --rate;
    if (rate < TrellisRate::least) continue;

    const double step = usual_range / double(1 << scale_bits);
    const double error =
        error_at_two_bits * std::exp2(-2 * (candidate.rate.bits() - 2)) + step * step / 12;
    if (best && error >= least_error) continue;
    best = candidate;
    least_error = error;
  }
  if (best) best->sequence = loads[0].sequence;
  return best;
}

}  // namespace cafeq::detail
