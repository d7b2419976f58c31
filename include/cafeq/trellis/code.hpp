/// A trellis code: weights chosen together, each a function of a window of bits that slides along a
/// stream.
///
/// A chunk of n weights is a cyclic stream of ⌊nR⌋ bits, the most significant bit of a byte first.
/// The state of weight t is the `window` bits that begin at bit ⌊tR⌋. Neighbours share most of
/// their bits, so a sequence is chosen as a whole, by a Viterbi search: after QTIP's bitshift
/// trellis (arXiv 2406.11235), with codes that decode by a 16-bit product and a look-up of bytes.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <span>

#include "cafeq/core/numeric.hpp"

namespace cafeq {

/// Bits a weight: a whole number of sixteenths, from 2 to 5 bits.
struct TrellisRate {
  int sixteenths = 48;

  static constexpr int least = 32, most = 80;

  constexpr bool is_valid() const noexcept { return sixteenths >= least && sixteenths <= most; }
  constexpr double bits() const noexcept { return sixteenths / 16.0; }
  /// ⌊tR⌋: where the window of weight t begins, and how many bits t weights have.
  constexpr Index begin(Index t) const noexcept { return t * sixteenths >> 4; }
  /// The code of a rate: 2, 3 or 4.
  constexpr int code_class() const noexcept { return std::min(4, sixteenths / 16); }

  bool operator==(const TrellisRate&) const = default;
};

/// What a state means. h = (state · multiplier mod 2^16) >> 8; i = (h >= 128 ? h − 128 : 127 − h) /
/// (128 / levels); the level is ± magnitudes[i], negative for h < 128; a weight is level · unit ·
/// the scale of its row. `unit` is made for weights of variance 1.
struct TrellisCode {
  int window;  ///< bits of a state: 12; 10 for a search three times as fast, 14 for one four times
               ///< as slow
  std::uint16_t multiplier;  ///< odd
  int levels;                ///< 32 or 128 magnitudes, in ascending order
  float unit;
  std::array<std::int8_t, 128> magnitudes;  ///< those past `levels` are 0

  constexpr std::uint32_t states() const noexcept { return std::uint32_t(1) << window; }
  constexpr int level(std::uint32_t state) const noexcept {
    const int h = int((state * multiplier & 0xffff) >> 8);
    const int magnitude = magnitudes[std::size_t((h >= 128 ? h - 128 : 127 - h) / (128 / levels))];
    return h >= 128 ? magnitude : -magnitude;
  }
};

/// The weights of a chunk of n: fewer than a window has bits for are followed by others that nobody
/// reads.
constexpr Index trellis_padded(Index n, TrellisRate rate, int window) noexcept {
  return std::max(n, ceil_div(Index(window) * 16, Index(rate.sixteenths)));
}
/// Their bits.
constexpr Index trellis_bits(Index n, TrellisRate rate, int window) noexcept {
  return rate.begin(trellis_padded(n, rate, window));
}

/// Bytes of a chunk in memory: its bits, the first `window` − 1 of them once more, so that no
/// window wraps, and room for loads of whole vectors.
constexpr Index trellis_chunk_bytes(Index bits, int window) noexcept {
  return ceil_div(bits + window - 1, Index(8)) + 16;
}

/// The state of the weight whose window begins at that bit of a chunk in memory.
inline std::uint32_t trellis_state(const std::uint8_t* chunk, Index bit, int window) noexcept {
  const std::uint8_t* p = chunk + (bit >> 3);
  const std::uint32_t word = std::uint32_t(p[0]) << 16 | std::uint32_t(p[1]) << 8 | p[2];
  return word >> (24 - window - int(bit & 7)) & ((1u << window) - 1);
}

/// Repeats the first bits of a chunk behind its stream of `bits` bits: from the stream alone to the
/// form in memory.
inline void close_trellis_chunk(std::span<std::uint8_t> chunk, Index bits, int window) noexcept {
  for (Index i = 0; i < window - 1; ++i) {
    const Index to = bits + i;
    const std::uint8_t bit = std::uint8_t(chunk[std::size_t(i >> 3)] >> (7 - (i & 7)) & 1);
    auto& byte = chunk[std::size_t(to >> 3)];
    const int shift = 7 - int(to & 7);
    byte = std::uint8_t((byte & ~(1 << shift)) | bit << shift);
  }
}

/// The codes of this library: constants of its format. examples/design_trellis is the program that
/// designs them.
inline constexpr std::array<TrellisCode, 9> trellis_codes{
    TrellisCode{12, 48563, 32, 0.02066383f, {1,  3,  5,  6,  9,  11, 13, 15, 17, 19, 21,
                                             24, 26, 28, 30, 33, 35, 38, 40, 43, 46, 49,
                                             53, 56, 59, 64, 68, 74, 80, 88, 98, 127}},
    TrellisCode{
        12, 8391, 128, 0.02553171f, {0,  1,  1,  2,  2,  3,  3,   3,  4,  4,  4,  5,  5,  5,  6,
                                     6,  7,  7,  8,  8,  9,  9,   9,  10, 10, 10, 11, 11, 12, 13,
                                     13, 13, 13, 14, 15, 15, 15,  16, 16, 16, 17, 17, 18, 18, 19,
                                     19, 20, 20, 20, 21, 22, 22,  23, 23, 23, 24, 24, 25, 26, 26,
                                     26, 28, 28, 28, 28, 29, 30,  30, 30, 30, 31, 32, 33, 33, 33,
                                     34, 35, 36, 36, 37, 37, 38,  39, 39, 40, 41, 41, 42, 43, 43,
                                     44, 45, 45, 46, 47, 48, 48,  49, 50, 51, 52, 53, 53, 54, 56,
                                     57, 58, 59, 60, 61, 62, 63,  64, 66, 67, 69, 71, 72, 75, 76,
                                     79, 81, 84, 88, 92, 97, 106, 127}},
    TrellisCode{
        12, 34545, 128, 0.02803709f, {0,  0,  1,  1,  2,  2,  2,   3,  3,  4,  4,  4,  5,  5,  6,
                                      6,  6,  7,  7,  8,  8,  8,   9,  9,  10, 10, 10, 11, 11, 11,
                                      12, 12, 13, 13, 13, 14, 14,  15, 15, 16, 16, 16, 17, 17, 18,
                                      18, 19, 19, 19, 20, 20, 21,  21, 22, 22, 23, 23, 23, 24, 24,
                                      25, 25, 26, 26, 27, 27, 28,  28, 29, 29, 30, 30, 31, 31, 32,
                                      32, 33, 33, 34, 34, 35, 36,  36, 37, 37, 38, 39, 39, 40, 41,
                                      41, 42, 43, 44, 44, 45, 45,  46, 47, 48, 49, 50, 50, 51, 52,
                                      54, 54, 55, 56, 58, 58, 60,  61, 62, 63, 65, 67, 68, 70, 72,
                                      74, 77, 80, 83, 87, 95, 107, 127}},
    TrellisCode{10, 50893, 32, 0.02048894f, {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 22,
                                             24, 26, 28, 31, 34, 36, 39, 42, 43, 47, 50,
                                             53, 57, 61, 65, 70, 75, 81, 90, 98, 127}},
    TrellisCode{
        10, 8415, 128, 0.02553981f, {0,  1,  1,  1,  2,  2,  3,   3,  4,  4,  5,  5,  5,  5,  6,
                                     7,  7,  7,  8,  8,  8,  9,   9,  10, 10, 10, 11, 11, 12, 12,
                                     13, 13, 14, 14, 15, 15, 15,  16, 16, 17, 17, 18, 18, 18, 19,
                                     19, 20, 20, 21, 21, 22, 22,  23, 23, 24, 24, 25, 25, 25, 26,
                                     26, 27, 28, 28, 29, 29, 29,  30, 31, 31, 32, 32, 33, 34, 34,
                                     34, 35, 36, 36, 37, 37, 38,  39, 39, 40, 41, 42, 42, 43, 44,
                                     44, 45, 45, 46, 46, 49, 49,  49, 51, 51, 52, 53, 54, 55, 55,
                                     57, 58, 58, 60, 61, 62, 63,  64, 66, 68, 70, 71, 72, 75, 76,
                                     79, 81, 85, 88, 92, 99, 106, 127}},
    TrellisCode{
        10, 27045, 128, 0.02766811f, {0,  1,  1,  1,  2,  2,  3,   3,  3,  4,  4,  4,  5,  6,  6,
                                      6,  7,  7,  7,  8,  8,  8,   9,  9,  10, 10, 10, 11, 11, 12,
                                      12, 12, 13, 13, 14, 14, 14,  15, 15, 16, 16, 17, 17, 17, 18,
                                      18, 19, 19, 20, 20, 21, 21,  22, 22, 22, 23, 23, 24, 24, 25,
                                      25, 26, 26, 27, 27, 28, 28,  28, 29, 30, 30, 30, 31, 32, 32,
                                      33, 33, 34, 35, 35, 35, 36,  37, 38, 38, 38, 40, 40, 41, 41,
                                      42, 43, 43, 44, 45, 46, 46,  47, 48, 49, 50, 50, 51, 52, 53,
                                      54, 55, 56, 57, 58, 59, 61,  62, 63, 65, 66, 68, 69, 71, 74,
                                      75, 78, 81, 86, 89, 97, 107, 127}},
    TrellisCode{14, 13511, 32, 0.02060129f, {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 19,
                                             24, 26, 28, 30, 33, 34, 38, 40, 43, 46, 48,
                                             52, 55, 60, 63, 67, 73, 81, 88, 98, 127}},
    TrellisCode{
        14, 7449, 128, 0.02576429f, {0,  1,  1,  1,  2,  2,  2,   3,  4,  4,  4,  5,  5,  6,  6,
                                     7,  7,  7,  7,  8,  9,  9,   9,  10, 10, 11, 11, 12, 12, 12,
                                     13, 13, 14, 14, 15, 15, 16,  16, 16, 17, 17, 18, 18, 19, 19,
                                     19, 20, 20, 21, 21, 21, 22,  23, 23, 23, 24, 25, 25, 26, 26,
                                     26, 27, 28, 29, 29, 29, 30,  30, 31, 31, 32, 32, 32, 33, 34,
                                     35, 35, 36, 36, 37, 38, 38,  38, 39, 40, 41, 41, 42, 43, 44,
                                     44, 44, 45, 46, 46, 47, 48,  49, 49, 50, 52, 52, 53, 54, 55,
                                     56, 57, 57, 59, 59, 62, 63,  63, 64, 65, 68, 70, 72, 73, 74,
                                     76, 81, 82, 87, 90, 96, 107, 127}},
    TrellisCode{
        14, 55247, 128, 0.02628165f, {0,  1,  1,  1,  2,  2,  3,   3,  4,  4,  4,  5,  5,  6,  6,
                                      7,  7,  7,  8,  8,  9,  9,   9,  10, 10, 11, 11, 12, 12, 12,
                                      13, 13, 14, 14, 15, 15, 16,  16, 16, 17, 17, 18, 18, 19, 19,
                                      20, 20, 20, 21, 21, 22, 22,  22, 23, 24, 24, 24, 25, 26, 26,
                                      26, 27, 27, 27, 28, 29, 29,  29, 30, 31, 31, 32, 32, 33, 33,
                                      34, 34, 35, 35, 36, 36, 37,  37, 37, 38, 39, 40, 40, 41, 42,
                                      42, 43, 43, 44, 45, 46, 46,  47, 47, 48, 49, 50, 51, 52, 53,
                                      54, 55, 55, 57, 58, 60, 60,  61, 63, 64, 65, 68, 68, 71, 72,
                                      75, 77, 80, 83, 88, 95, 107, 127}}};

constexpr bool is_trellis_window(int window) noexcept {
  return window == 14 || window == 12 || window == 10;
}

/// `window` is 14, 12 or 10.
constexpr const TrellisCode& trellis_code(TrellisRate rate, int window) noexcept {
  return trellis_codes[std::size_t((window == 12   ? 0
                                    : window == 10 ? 3
                                                   : 6) +
                                   rate.code_class() - 2)];
}

}  // namespace cafeq
