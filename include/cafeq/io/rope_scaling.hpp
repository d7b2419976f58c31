/// The ways in which models slow down their rotary positions, as numbers of RopeScaling.
///
/// Rotation i of `dims` coordinates takes 2π base^(2i/dims) positions for a turn.
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "cafeq/core/numeric.hpp"

namespace cafeq::detail {

/// How Llama 3.1 does it: a rotation is slowed down by `factor` where a turn takes more than
/// original / low positions, left alone where it takes less than original / high, and in between
/// one goes over into the other.
struct Llama3Scaling {
  double factor;
  double low;       ///< low_freq_factor
  double high;      ///< high_freq_factor
  double original;  ///< original_max_position_embeddings
};

/// How YaRN does it: a rotation is slowed down by `factor` where it makes fewer than `slow` turns
/// in `original` positions, left alone where it makes more than `fast`, and in between one goes
/// over into the other, by the number of the rotation.
struct YarnScaling {
  double factor;
  double original;
  double fast = 32;  ///< beta_fast
  double slow = 1;   ///< beta_slow
};

inline double rope_turn(Index dims, double base, Index i) {
  return 2 * std::numbers::pi * std::pow(base, double(2 * i) / double(dims));
}

/// A rotation that keeps this part of its frequency, the rest being divided by the factor.
inline double kept_in_part(double kept, double factor) { return 1 / ((1 - kept) / factor + kept); }

inline std::vector<double> rope_factors(Index dims, double base, const Llama3Scaling& scaling) {
  std::vector<double> factors;
  for (Index i = 0; i < dims / 2; ++i) {
    const double kept = std::clamp(
        (scaling.original / rope_turn(dims, base, i) - scaling.low) / (scaling.high - scaling.low),
        0.0, 1.0);
    factors.push_back(kept_in_part(kept, scaling.factor));
  }
  return factors;
}

inline std::vector<double> rope_factors(Index dims, double base, const YarnScaling& scaling) {
  // The number, not whole, of the rotation that makes so many turns.
  const auto rotation_with = [&](double turns) {
    return double(dims) * std::log(scaling.original / (turns * 2 * std::numbers::pi)) /
           (2 * std::log(base));
  };
  const double first = std::max(std::floor(rotation_with(scaling.fast)), 0.0),
               last = std::min(std::ceil(rotation_with(scaling.slow)), double(dims - 1));
  std::vector<double> factors;
  for (Index i = 0; i < dims / 2; ++i) {
    const double slowed = std::clamp((double(i) - first) / std::max(last - first, 1e-3), 0.0, 1.0);
    factors.push_back(kept_in_part(1 - slowed, scaling.factor));
  }
  return factors;
}

/// What YaRN multiplies queries and keys by.
inline double yarn_magnitude(double factor) { return factor <= 1 ? 1 : 0.1 * std::log(factor) + 1; }

/// What LongRoPE multiplies queries and keys by.
inline double longrope_magnitude(double factor, double original) {
  return factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(original));
}

}  // namespace cafeq::detail
