/// Dense storage of codes of 1 to 8 bits.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>

#include "cafeq/core/matrix.hpp"

namespace cafeq {

/// Packs codes little-endian: code j of a row takes bits [j * bits, (j + 1) * bits) of the row's bytes, least significant first.
/// `packed` has ceil(codes.size() * bits / 8) bytes; unused bits at its end are zero. Every code must be below 2^bits.
inline void pack_codes(std::span<const std::uint8_t> codes, int bits, std::span<std::uint8_t> packed) noexcept {
  CAFEQ_ASSERT(Index(packed.size()) >= ceil_div(Index(codes.size()) * bits, 8));
  std::uint32_t pending = 0;
  int held = 0;
  std::size_t out = 0;
  for (const std::uint8_t code : codes) {
    CAFEQ_ASSERT(code < (1u << bits));
    pending |= std::uint32_t(code) << held;
    held += bits;
    while (held >= 8) {
      packed[out++] = std::uint8_t(pending);
      pending >>= 8;
      held -= 8;
    }
  }
  if (held > 0) packed[out] = std::uint8_t(pending);
}

/// The inverse of pack_codes.
inline void unpack_codes(std::span<const std::uint8_t> packed, int bits, std::span<std::uint8_t> codes) noexcept {
  CAFEQ_ASSERT(Index(packed.size()) >= ceil_div(Index(codes.size()) * bits, 8));
  const auto mask = (1u << bits) - 1u;
  std::uint32_t pending = 0;
  int held = 0;
  std::size_t in = 0;
  for (std::uint8_t& code : codes) {
    if (held < bits) {
      pending |= std::uint32_t(packed[in++]) << held;
      held += 8;
    }
    code = std::uint8_t(pending & mask);
    pending >>= bits;
    held -= bits;
  }
}

/// rows × cols codes of `bits` bits, each row starting at a byte.
class PackedCodes {
 public:
  PackedCodes() = default;
  PackedCodes(Index rows, Index cols, int bits)
      : rows_(rows), cols_(cols), bits_(checked(bits)), row_bytes_(ceil_div(cols * bits, 8)), bytes_(std::size_t(rows * row_bytes_)) {}

  Index rows() const noexcept { return rows_; }
  Index cols() const noexcept { return cols_; }
  int bits() const noexcept { return bits_; }
  Index row_bytes() const noexcept { return row_bytes_; }

  std::span<std::uint8_t> row(Index i) noexcept { return {bytes_.data() + i * row_bytes_, std::size_t(row_bytes_)}; }
  std::span<const std::uint8_t> row(Index i) const noexcept { return {bytes_.data() + i * row_bytes_, std::size_t(row_bytes_)}; }
  std::span<std::uint8_t> bytes() noexcept { return bytes_; }
  std::span<const std::uint8_t> bytes() const noexcept { return bytes_; }

  void pack_row(Index i, std::span<const std::uint8_t> codes) noexcept { pack_codes(codes, bits_, row(i)); }
  void unpack_row(Index i, std::span<std::uint8_t> codes) const noexcept { unpack_codes(row(i), bits_, codes); }

 private:
  static int checked(int bits) {
    if (bits < 1 || bits > 8) raise(ErrorCode::invalid_argument, message("PackedCodes: bits is ", bits, ", must be 1 to 8"));
    return bits;
  }

  Index rows_ = 0;
  Index cols_ = 0;
  int bits_ = 8;
  Index row_bytes_ = 0;
  Buffer<std::uint8_t> bytes_;
};

}  // namespace cafeq
