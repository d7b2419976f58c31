/// A trellis code: weights chosen together, each a function of a window of bits that slides along a
/// stream.
///
/// A chunk of n weights is a cyclic stream of ⌊nR⌋ bits, R the rate. The state of weight t is the
/// `window` bits that begin at bit ⌊tR⌋, and the code says which level a state stands for.
/// Neighbours share most of their bits, so a sequence is chosen as a whole, by a Viterbi search:
/// after QTIP's bitshift trellis (arXiv 2406.11235), with codes that decode by a 16-bit product and
/// a look-up of bytes.
///
/// How streams lie in memory is said in trellis/stream.hpp; the codes in use are those of
/// trellis/code_tables.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "cafeq/core/numeric.hpp"

namespace cafeq {

/// Bits a weight: a whole number of sixteenths, from 1 to 5 bits.
struct TrellisRate {
  int sixteenths = 48;

  static constexpr int least = 16, most = 80;

  constexpr bool is_valid() const noexcept { return sixteenths >= least && sixteenths <= most; }
  constexpr double bits() const noexcept { return sixteenths / 16.0; }
  /// ⌊tR⌋: where the window of weight t begins, and how many bits t weights have.
  constexpr Index begin(Index t) const noexcept { return t * sixteenths >> 4; }
  /// Rates share a code by their whole bits: 1, 2, 3 or 4, which also serves 5.
  constexpr int code_class() const noexcept { return std::min(4, sixteenths / 16); }

  bool operator==(const TrellisRate&) const = default;
};

/// What a state means. With h = (state · multiplier mod 2^16) >> 8, a byte, and
/// i = (h >= 128 ? h − 128 : 127 − h) / (128 / levels), the level is ± magnitudes[i], negative for
/// h < 128. A weight is level · unit · the scale of its row; `unit` is made for weights of
/// variance 1.
struct TrellisCode {
  int window;  ///< bits of a state: 12; 10 for a search three times as fast, 14 for one four times
               ///< as slow
  std::uint16_t multiplier;  ///< odd
  int levels;                ///< 32 or 128 magnitudes, in ascending order
  float unit;
  std::array<std::int8_t, 128> magnitudes;  ///< those past `levels` are 0

  constexpr std::uint32_t states() const noexcept { return std::uint32_t(1) << window; }
  constexpr int level(std::uint32_t state) const noexcept {
    return level_of_hash(int((state * multiplier & 0xffff) >> 8));
  }
  /// Of a byte h.
  constexpr int level_of_hash(int h) const noexcept {
    const int magnitude = magnitudes[std::size_t((h >= 128 ? h - 128 : 127 - h) / (128 / levels))];
    return h >= 128 ? magnitude : -magnitude;
  }
};

}  // namespace cafeq
