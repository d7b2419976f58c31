/// How the bits of a trellis code (trellis/code.hpp) lie in the bytes of a chunk.
///
/// Bits follow each other from the most significant one of a byte on. A file keeps the stream
/// alone. In memory its first window − 1 bits follow it once more, so that no window wraps, and 16
/// bytes more let vectors be loaded whole from the first byte of any window.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "cafeq/trellis/code.hpp"

namespace cafeq::kernel {

/// The streams of one rate and one length of windows. n is a number of weights, t one of them.
struct TrellisStream {
  TrellisRate rate;
  int window;

  /// The weights of a chunk of n. Where n weights have fewer bits than a window, others follow them
  /// that nobody reads.
  constexpr Index padded(Index n) const noexcept {
    return std::max(n, ceil_div(Index(window) * 16, Index(rate.sixteenths)));
  }
  /// The bits of a chunk of n weights.
  constexpr Index bits(Index n) const noexcept { return rate.begin(padded(n)); }
  /// The bytes of a chunk of n weights in memory.
  constexpr Index bytes(Index n) const noexcept {
    return ceil_div(bits(n) + window - 1, Index(8)) + 16;
  }
  /// How many bits of the state of weight t are not in the one before it, which for the first
  /// weight is the last: n weights, none of them missing, are a cycle.
  constexpr int new_bits(Index t, Index n) const noexcept {
    const Index after = t == 0 ? n : t;
    return int(rate.begin(after) - rate.begin(after - 1));
  }

  /// The state of weight t of a chunk in memory.
  std::uint32_t state(const std::uint8_t* chunk, Index t) const noexcept {
    return state_at(chunk, rate.begin(t));
  }
  /// The window that begins at a bit.
  std::uint32_t state_at(const std::uint8_t* chunk, Index bit) const noexcept {
    const std::uint8_t* p = chunk + (bit >> 3);
    const std::uint32_t word = std::uint32_t(p[0]) << 16 | std::uint32_t(p[1]) << 8 | p[2];
    return word >> (24 - window - int(bit & 7)) & ((1u << window) - 1);
  }

  /// From the stream of n weights alone to its form in memory: repeats its first bits behind it.
  void close(std::span<std::uint8_t> chunk, Index n) const noexcept {
    const Index end = bits(n);
    for (Index i = 0; i < window - 1; ++i) {
      const Index to = end + i;
      const std::uint8_t bit = std::uint8_t(chunk[std::size_t(i >> 3)] >> (7 - (i & 7)) & 1);
      std::uint8_t& byte = chunk[std::size_t(to >> 3)];
      const int shift = 7 - int(to & 7);
      byte = std::uint8_t((byte & ~(1 << shift)) | bit << shift);
    }
  }

  bool operator==(const TrellisStream&) const = default;
};

}  // namespace cafeq::kernel
