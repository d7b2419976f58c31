// Chunks of trellis codes at random, and byte operations in plain loops to decode them with.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cafeq/core/rng.hpp"
#include "cafeq/simd/byte_ops.hpp"
#include "cafeq/trellis/code_tables.hpp"
#include "cafeq/trellis/stream.hpp"

namespace cafeq::test {

/// n weights of one code, at random or all of one state, in a buffer of no byte too many, so that a
/// sanitizer sees loads past its end.
struct TrellisChunk {
  TrellisChunk(Index weights, int sixteenths, int window, std::uint64_t seed = 1)
      : n(weights),
        rate{sixteenths},
        code(trellis_code(rate, window)),
        stream{rate, window},
        bits(stream.bits(n)),
        bytes(std::size_t(stream.bytes(n))) {
    const CounterRng rng(seed, 7);
    fill([&](Index b) { return rng.bits(std::uint64_t(b)) & 1; });
  }
  template <class F>
  void fill(F&& bit) {
    std::fill(bytes.begin(), bytes.end(),
              std::uint8_t(0xa5));  // what the slack holds must not matter
    for (Index b = 0; b < bits + code.window - 1; ++b) {
      const std::uint8_t mask = std::uint8_t(0x80 >> (b & 7));
      std::uint8_t& byte = bytes[std::size_t(b >> 3)];
      byte = std::uint8_t(bit(b % bits) ? byte | mask : byte & ~mask);
    }
  }
  int level(Index t) const { return code.level(stream.state(bytes.data(), t)); }

  Index n;
  TrellisRate rate;
  const TrellisCode& code;
  kernel::TrellisStream stream;
  Index bits;
  std::vector<std::uint8_t> bytes;
};

/// The shuffles of the fast kernel in plain loops, which by themselves decode one by one.
using PlainTrellisOps = simd::PortableByteOps<DefaultArch>;
struct PortableTrellisOps : PlainTrellisOps {
  static constexpr bool fast = true;
};

}  // namespace cafeq::test
