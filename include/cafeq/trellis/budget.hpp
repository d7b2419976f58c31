/// The trellis that a number of bits affords.
#pragma once

#include <array>
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

/// Bits of a scale that are worth a trial, and what the logarithms of a matrix's scales usually
/// span, in as many steps as there are codes. Behind a rotation and divided by the scales of their
/// rows, columns are much alike; a row's own scale then only makes it so, and being off costs
/// nothing of the first order.
struct TrellisScales {
  std::span<const int> bits;
  double range;

  explicit TrellisScales(Sequence sequence) noexcept {
    static constexpr std::array few{8, 6};
    static constexpr std::array any{8, 6, 4, 3};
    const bool alike = sequence == Sequence::scaled_column;
    bits = alike ? std::span<const int>(any) : std::span<const int>(few);
    range = alike ? 0.5 : 2;
  }
};

/// The trellis that takes least.
inline Trellis least_trellis(std::span<const TrellisLoad> loads, int window) {
  const Sequence sequence = loads[0].sequence;
  return {.rate = {TrellisRate::least},
          .scale_bits = TrellisScales(sequence).bits.back(),
          .window = window,
          .sequence = sequence};
}
/// Bits a weight with that.
inline double least_trellis_bits(std::span<const TrellisLoad> loads, int window = 12) {
  return bits_of_loads(loads, least_trellis(loads, window));
}

/// The trellis with the least expected error that holds all of these in `bits` a weight, everything
/// counted, with the sequence of the first; nothing where the lowest rate takes more.
inline std::optional<Trellis> affordable_trellis(std::span<const TrellisLoad> loads, double bits,
                                                 int window = 12) {
  // The relative error of a Gaussian at 2 bits, as tests/trellis/trellis_test.cpp measures it,
  // falls by a factor of 4 a bit. Scales in coarser steps add the square of a step's standard
  // deviation.
  constexpr double error_at_two_bits = 0.0694;
  const TrellisScales scales(loads[0].sequence);

  std::optional<Trellis> best;
  double least_error = 0;
  for (const int scale_bits : scales.bits) {
    Trellis candidate{.scale_bits = scale_bits, .window = window};
    int& rate = candidate.rate.sixteenths;
    rate = TrellisRate::most;
    while (rate >= TrellisRate::least && !(bits_of_loads(loads, candidate) <= bits)) --rate;
    if (rate < TrellisRate::least) continue;

    const double step = scales.range / double(1 << scale_bits);
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
