/// How the inverse of a block-diagonal transform is stored: in fp32, in fp16, or in int8 with an
/// exponent a column.
///
/// Rounding is idempotent: what has been rounded to a precision is rounded to itself. So a
/// transform that is read back from its stored inverse is the one that was written.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "cafeq/core/error.hpp"
#include "cafeq/core/matrix.hpp"
#include "cafeq/core/scan.hpp"

namespace cafeq {

/// How the entries of a stored inverse are kept. 16-bit numbers share one power of two, which joins
/// that of the weights' scales.
enum class InversePrecision {
  fp32,
  fp16,
  int8,  ///< as Int8Inverse
};

namespace detail {

/// An int8 inverse: N(r, c) = codes[r·k + c] · 2^(base − exponents[c] / 8) in a block of size k,
/// codes in [−127, 127]. A scale a column, since a column of N makes one input channel, weak or
/// strong; an eighth of an octave keeps all but 4 % of the range of a code in use.
struct Int8Inverse {
  struct Block {
    Index size = 0;
    std::vector<std::int8_t> codes;       ///< size² of them
    std::vector<std::uint8_t> exponents;  ///< `size` of them
  };
  int base = 0;
  std::vector<Block> blocks;
};

/// The largest value of what a 16-bit number keeps lands in [2^14, 2^15).
inline int half_exponent(double largest) { return floor_log2(largest) - 14; }

inline void round_to_half(std::vector<Matrix<double>>& blocks) {
  double largest = 0;
  for (const auto& N : blocks) largest = std::max(largest, largest_magnitude(N.view()));
  const int exponent = half_exponent(largest);
  for (auto& N : blocks)
    for (Index i = 0; i < N.size(); ++i)
      N.data()[i] =
          std::ldexp(double(float(fp16(float(std::ldexp(N.data()[i], -exponent))))), exponent);
}

/// 2^(e/8) for any integer e: the same bits everywhere.
inline double eighth_octave(int e) {
  constexpr double fractions[8] = {1.0,
                                   1.0905077326652577,
                                   1.189207115002721,
                                   1.2968395546510096,
                                   1.4142135623730951,
                                   1.5422108254079407,
                                   1.681792830507429,
                                   1.8340080864093424};
  return std::ldexp(fractions[e & 7], e >> 3);
}

/// The smallest e for which codes of 2^(e/8) up to 127 reach `largest` when rounded. What is
/// rounded that way has a code of 117 or more, so it gives the same e again.
inline int int8_exponent(double largest) {
  int e = 8 * (floor_log2(largest) - 7);
  while (std::nearbyint(largest / eighth_octave(e)) > 127) ++e;
  return e;
}

inline Int8Inverse to_int8(const std::vector<Matrix<double>>& blocks) {
  int highest = std::numeric_limits<int>::min();
  for (const auto& N : blocks)
    if (const double largest = largest_magnitude(N.view()); largest > 0)
      highest = std::max(highest, int8_exponent(largest));
  Int8Inverse result;
  result.base = highest == std::numeric_limits<int>::min() ? 0 : (highest + 7) >> 3;
  for (const auto& N : blocks) {
    Int8Inverse::Block block{N.rows(), std::vector<std::int8_t>(std::size_t(N.size())), {}};
    for (Index c = 0; c < N.cols(); ++c) {
      const double largest = largest_magnitude(N.view().col_block(c, 1));
      const int exponent = largest > 0 ? int8_exponent(largest) : 8 * result.base;
      // A column 2^32 below the strongest is lifted to that: M stays its inverse, and what the
      // channel then adds is nothing beside the others.
      block.exponents.push_back(std::uint8_t(std::min(8 * result.base - exponent, 255)));
      const double scale = eighth_octave(exponent);
      for (Index r = 0; r < N.rows(); ++r)
        block.codes[std::size_t(r * N.cols() + c)] = std::int8_t(std::nearbyint(N(r, c) / scale));
    }
    result.blocks.push_back(std::move(block));
  }
  return result;
}

inline std::vector<Matrix<double>> from_int8(const Int8Inverse& stored) {
  std::vector<Matrix<double>> result;
  for (std::size_t b = 0; b < stored.blocks.size(); ++b) {
    const auto& block = stored.blocks[b];
    if (block.size < 1 || Index(block.codes.size()) != block.size * block.size ||
        Index(block.exponents.size()) != block.size)
      raise(ErrorCode::corrupt,
            message("BlockDiagonal: block ", b, " of size ", block.size, " has ",
                    block.codes.size(), " codes and ", block.exponents.size(), " exponents"));
    Matrix<double> N(block.size, block.size);
    for (Index r = 0; r < block.size; ++r)
      for (Index c = 0; c < block.size; ++c)
        N(r, c) = double(block.codes[std::size_t(r * block.size + c)]) *
                  eighth_octave(8 * stored.base - int(block.exponents[std::size_t(c)]));
    result.push_back(std::move(N));
  }
  return result;
}

inline void round_inverse(std::vector<Matrix<double>>& blocks, InversePrecision precision) {
  switch (precision) {
    case InversePrecision::fp32:
      for (auto& N : blocks)
        for (Index i = 0; i < N.size(); ++i) N.data()[i] = double(float(N.data()[i]));
      return;
    case InversePrecision::fp16: return round_to_half(blocks);
    case InversePrecision::int8: blocks = from_int8(to_int8(blocks)); return;
  }
}

}  // namespace detail
}  // namespace cafeq
