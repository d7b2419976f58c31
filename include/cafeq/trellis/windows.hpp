/// How the windows of a trellis code are cut out of a chunk, sixteen at a time, and what their
/// levels are looked up in.
///
/// A stretch is 16 weights that begin at a multiple of 16. Stretch g begins at bit g·(16 R) exactly
/// and has the same ⌊iR⌋ inside, so only its place within a byte, one of 8, changes from stretch to
/// stretch. For each place a shuffle of 16 bytes brings two neighbouring windows into a 32-bit
/// lane, and two shifts bring each of them into its half.
#pragma once

#include <array>
#include <cstdint>

#include "cafeq/trellis/code.hpp"

namespace cafeq::kernel::detail {

/// Weights that are decoded at once.
inline constexpr Index stretch = 16;

/// How the windows of a stretch are cut out of the 16 bytes from its first one on. Lane l has
/// windows 2l and 2l + 1.
struct alignas(128) TrellisWindows {
  alignas(32) std::array<std::uint8_t, 32> bytes;  // three or four that have both windows of a
                                                   // lane, the first one on top
  alignas(32) std::array<std::uint32_t, 8> right;  // brings the even window to bit 0
  alignas(32) std::array<std::uint32_t, 8> left;   // brings the odd one to bit 16
};

/// Of stretches that begin at bit `place` of a byte, 0 … 7.
///
/// A pair of windows of 12 bits spans at most 7 + 5 + 12 = 24 bits, three bytes, and the last byte
/// of a stretch is its twelfth. Longer windows need a fourth byte, and the odd one has to move up
/// or not at all: where it begins at the second bit of these, they begin a byte earlier, which then
/// has nothing that is looked at.
constexpr TrellisWindows windows_at(Index place, TrellisRate rate, int window) noexcept {
  constexpr std::uint8_t none = 0x80;  // a shuffle makes 0 of it
  const int span = window > 12 ? 4 : 3;

  TrellisWindows windows{};
  for (std::size_t l = 0; l < 8; ++l) {
    const Index even = place + rate.begin(Index(2 * l)), odd = place + rate.begin(Index(2 * l + 1));
    Index byte = even / 8;
    if (window + 16 - 8 * span + int(odd - 8 * byte) < 0) --byte;
    for (int b = 0; b < 4; ++b) {
      const Index from = byte + span - 1 - b;
      windows.bytes[4 * l + std::size_t(b)] = b < span && from >= 0 ? std::uint8_t(from) : none;
    }
    windows.right[l] = std::uint32_t(8 * span - window - int(even - 8 * byte));
    windows.left[l] = std::uint32_t(window + 16 - 8 * span + int(odd - 8 * byte));
  }
  return windows;
}

/// What the decoding of a code at a rate needs, the same whatever the architecture.
template <class Ops>
struct TrellisPlan {
  TrellisPlan(const TrellisCode& code, TrellisRate rate) noexcept;

  int sixteenths;
  int window;
  int multiplier;
  int magnitudes;
  float unit;
  std::array<TrellisWindows, 8> windows;  // of a stretch that begins at that bit of a byte
  /// What magnitude 16k + i has more than magnitude 16(k−1) + i, at i and 16 + i of table k: a
  /// magnitude is the sum of a column down to its own row.
  alignas(32) std::array<std::array<std::int8_t, 32>, 8> table;
  std::array<std::int8_t, 256> level;  // of each h
};

template <class Ops>
TrellisPlan<Ops>::TrellisPlan(const TrellisCode& code, TrellisRate rate) noexcept
    : sixteenths(rate.sixteenths),
      window(code.window),
      multiplier(code.multiplier),
      magnitudes(code.levels),
      unit(code.unit),
      windows{},
      table{},
      level{} {
  CAFEQ_ASSERT(rate.is_valid() &&
               (magnitudes == 32 || (magnitudes == 128 && code.magnitudes[0] == 0)));
  for (std::size_t place = 0; place < windows.size(); ++place)
    windows[place] = windows_at(Index(place), rate, window);

  for (int i = 0; i < magnitudes; ++i) {
    const int before = i < 16 ? 0 : code.magnitudes[std::size_t(i - 16)];
    for (int half : {0, 16})
      table[std::size_t(i / 16)][std::size_t(half + i % 16)] =
          std::int8_t(code.magnitudes[std::size_t(i)] - before);
  }

  for (int h = 0; h < 256; ++h) level[std::size_t(h)] = std::int8_t(code.level_of_hash(h));
}

}  // namespace cafeq::kernel::detail
