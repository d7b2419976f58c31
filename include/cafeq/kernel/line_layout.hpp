/// Rows of a matrix into lines, and the codes of lines back into rows: transposes.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

#include "cafeq/core/copy.hpp"
#include "cafeq/core/view.hpp"
#include "cafeq/simd/batch.hpp"

namespace cafeq::kernel {

/// Rows [m, n] into lines [n, m]. Whole tiles through registers, the rest by copy().
template <class Arch = DefaultArch>
void rows_to_lines(View<const float> rows, View<float> lines) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index w = Index(V::size);
  CAFEQ_ASSERT(rows.rows == lines.cols && rows.cols == lines.rows && rows.rows_contiguous() &&
               lines.rows_contiguous());
  const Index m = rows.rows / w * w, n = rows.cols / w * w;
  for (Index i = 0; i < m; i += w)
    for (Index j = 0; j < n; j += w) {
      V tile[w];
      CAFEQ_UNROLL
      for (Index r = 0; r < w; ++r)
        tile[r] = V::load_unaligned(rows.data + (i + r) * rows.row_stride + j);
      simd::transpose<Arch>(tile);
      CAFEQ_UNROLL
      for (Index r = 0; r < w; ++r)
        tile[r].store_unaligned(lines.data + (j + r) * lines.row_stride + i);
    }
  if (n < rows.cols)
    copy(rows.block(0, n, m, rows.cols - n), lines.block(n, 0, rows.cols - n, m).transposed());
  if (m < rows.rows)
    copy(rows.row_block(m, rows.rows - m), lines.col_block(m, rows.rows - m).transposed());
}

namespace detail {

/// Byte j of word i and byte i of word j change places.
inline void transpose_bytes(std::uint64_t (&word)[8]) noexcept {
  const auto exchange = [&](int distance, int shift, std::uint64_t mask) {
    CAFEQ_UNROLL
    for (int i = 0; i < 8; ++i)
      if ((i & distance) == 0) {
        const std::uint64_t moved = ((word[i] >> shift) ^ word[i + distance]) & mask;
        word[i + distance] ^= moved;
        word[i] ^= moved << shift;
      }
  };
  exchange(4, 32, 0x00000000ffffffffu);
  exchange(2, 16, 0x0000ffff0000ffffu);
  exchange(1, 8, 0x00ff00ff00ff00ffu);
}

}  // namespace detail

/// Codes of n lines of m lanes, lines `stride` apart, into m rows that row(l) gives as pointers to
/// n bytes.
template <class Row>
void lines_to_rows(const std::uint8_t* codes, Index stride, Index n, Index m, Row&& row) noexcept {
  constexpr Index tile = 8;
  for (Index l = 0; l < m; l += tile) {
    std::uint8_t* out[tile];
    const Index lanes = std::min(tile, m - l);
    for (Index i = 0; i < lanes; ++i) out[i] = row(l + i);
    Index j = 0;
    if (lanes == tile && std::endian::native == std::endian::little)
      for (; j + tile <= n; j += tile) {
        std::uint64_t word[tile];
        CAFEQ_UNROLL
        for (Index i = 0; i < tile; ++i)
          std::memcpy(&word[i], codes + (j + i) * stride + l, sizeof word[i]);
        detail::transpose_bytes(word);
        CAFEQ_UNROLL
        for (Index i = 0; i < tile; ++i) std::memcpy(out[i] + j, &word[i], sizeof word[i]);
      }
    for (; j < n; ++j)
      for (Index i = 0; i < lanes; ++i) out[i][j] = codes[j * stride + l + i];
  }
}

}  // namespace cafeq::kernel
