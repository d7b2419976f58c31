/// Random numbers as a function of (seed, stream, counter): the same on every machine, in any
/// order, on any thread.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string_view>

#include "cafeq/core/numeric.hpp"

namespace cafeq {

/// Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC
/// 2011). The key is the seed; the counter is (position, stream), so each tensor can have a stream
/// of its own.
class CounterRng {
 public:
  explicit CounterRng(std::uint64_t seed, std::uint64_t stream = 0) noexcept
      : seed_(seed), stream_(stream) {}

  /// 128 random bits for a position.
  std::array<std::uint32_t, 4> block(std::uint64_t position) const noexcept {
    std::array<std::uint32_t, 4> c{std::uint32_t(position), std::uint32_t(position >> 32),
                                   std::uint32_t(stream_), std::uint32_t(stream_ >> 32)};
    std::uint32_t k0 = std::uint32_t(seed_);
    std::uint32_t k1 = std::uint32_t(seed_ >> 32);
    for (int round = 0; round < 10; ++round) {
      const std::uint64_t p0 = std::uint64_t(0xD2511F53u) * c[0];
      const std::uint64_t p1 = std::uint64_t(0xCD9E8D57u) * c[2];
      c = {std::uint32_t(p1 >> 32) ^ c[1] ^ k0, std::uint32_t(p1),
           std::uint32_t(p0 >> 32) ^ c[3] ^ k1, std::uint32_t(p0)};
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    return c;
  }

  std::uint64_t bits(std::uint64_t position) const noexcept {
    const auto b = block(position);
    return std::uint64_t(b[1]) << 32 | b[0];
  }
  /// In (0, 1): an odd multiple of 2^-53.
  double uniform(std::uint64_t position) const noexcept { return to_uniform(bits(position)); }
  /// An integer in [0, n).
  std::uint64_t below(std::uint64_t position, std::uint64_t n) const noexcept {
    return std::uint64_t(uniform(position) * double(n));
  }
  /// +1 or -1; 128 signs a block.
  float sign(std::uint64_t position) const noexcept {
    const auto b = block(position / 128);
    return (b[(position % 128) / 32] >> (position % 32)) & 1u ? -1.0f : 1.0f;
  }
  /// Standard normal (Box–Muller on two uniforms of the same block).
  double normal(std::uint64_t position) const noexcept {
    const auto b = block(position);
    const double u = to_uniform(std::uint64_t(b[1]) << 32 | b[0]);
    const double v = to_uniform(std::uint64_t(b[3]) << 32 | b[2]);
    return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
  }

 private:
  static double to_uniform(std::uint64_t bits) noexcept {
    return (double(bits >> 12) + 0.5) * 0x1p-52;
  }

  std::uint64_t seed_;
  std::uint64_t stream_;
};

/// A stream number for a tensor's name (64-bit FNV-1a).
constexpr std::uint64_t stream_of(std::string_view name) noexcept {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ std::uint8_t(c)) * 0x100000001b3u;
  return hash;
}

}  // namespace cafeq
