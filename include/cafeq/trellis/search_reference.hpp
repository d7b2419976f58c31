/// What the search for the states of a trellis code must find, in plain loops: for tests and
/// benchmarks.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "cafeq/trellis/stream.hpp"

namespace cafeq::kernel {

/// The meaning of TrellisSearch: the least Σ (x_t − level · unit)² of all cycles whose first state
/// begins with the bits `across`, or of all chains, open at both ends, where `across` is negative.
/// x has all weights of the chunk, also those that nobody reads. Plain loops in double, n ·
/// 2^window of memory.
inline double trellis_search_reference(const TrellisCode& code, TrellisRate rate,
                                       std::span<const double> x, int across,
                                       std::span<std::uint16_t> states) {
  const Index n = Index(x.size());
  const TrellisStream stream{rate, code.window};
  const std::uint32_t count = code.states();
  const double infinity = std::numeric_limits<double>::infinity();
  std::vector<double> cost(count), best(count);
  std::vector<std::vector<std::uint8_t>> predecessor(x.size());

  // Costs of all states of one weight after the other, and where each prefix came from.
  for (Index t = 0; t < n; ++t) {
    const int shift = stream.new_bits(t, n);
    const std::uint32_t prefixes = count >> shift;
    if (t == 0) {
      for (std::uint32_t p = 0; p < prefixes; ++p)
        best[p] = across < 0 || p == std::uint32_t(across) ? 0 : infinity;
    } else {
      auto& from = predecessor[std::size_t(t)];
      from.assign(prefixes, 0);
      for (std::uint32_t p = 0; p < prefixes; ++p) {
        best[p] = cost[p];
        for (std::uint32_t j = 1; j < 1u << shift; ++j)
          if (cost[j * prefixes + p] < best[p]) {
            best[p] = cost[j * prefixes + p];
            from[p] = std::uint8_t(j);
          }
      }
    }
    for (std::uint32_t s = 0; s < count; ++s) {
      const double difference = x[std::size_t(t)] - code.level(s) * double(code.unit);
      cost[s] = best[s >> shift] + difference * difference;
    }
  }

  // The best last state, which must end with the bits that the first one begins with.
  const std::uint32_t prefixes = count >> stream.new_bits(0, n);
  std::uint32_t s = across < 0 ? 0 : std::uint32_t(across);
  for (std::uint32_t other = s; other < count; other += across < 0 ? 1 : prefixes)
    if (cost[other] < cost[s]) s = other;
  const double total = cost[s];

  for (Index t = n - 1; t >= 0; --t) {
    states[std::size_t(t)] = std::uint16_t(s);
    if (t == 0) break;
    const int shift = stream.new_bits(t, n);
    s >>= shift;
    s |= std::uint32_t(predecessor[std::size_t(t)][s]) << (code.window - shift);
  }
  return total;
}

}  // namespace cafeq::kernel
