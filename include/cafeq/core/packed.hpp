/// Dense storage of codes of 1 to 8 bits.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>

#include "cafeq/core/matrix.hpp"

namespace cafeq {

namespace detail {

/// Eight codes, one a byte with the first lowest, as 8 · bits consecutive bits: neighbours join in
/// pairs, pairs in fours, fours in eights.
inline std::uint64_t join_codes(std::uint64_t codes, int bits) noexcept {
  const std::uint64_t pairs =
      (codes & 0x00ff00ff00ff00ffu) | (codes & 0xff00ff00ff00ff00u) >> (8 - bits);
  const std::uint64_t fours =
      (pairs & 0x0000ffff0000ffffu) | (pairs & 0xffff0000ffff0000u) >> (16 - 2 * bits);
  return (fours & 0x00000000ffffffffu) | (fours & 0xffffffff00000000u) >> (32 - 4 * bits);
}

/// The inverse of join_codes; bits past the first 8 · bits are ignored.
inline std::uint64_t split_codes(std::uint64_t joined, int bits) noexcept {
  const auto low = [](int count, std::uint64_t every) {
    return ((std::uint64_t(1) << count) - 1) * every;
  };
  const std::uint64_t fours =
      (joined & low(4 * bits, 1)) | (joined << (32 - 4 * bits) & low(4 * bits, 1) << 32);
  const std::uint64_t pairs = (fours & low(2 * bits, 0x0000000100000001u)) |
                              (fours << (16 - 2 * bits) & low(2 * bits, 0x0000000100000001u) << 16);
  return (pairs & low(bits, 0x0001000100010001u)) |
         (pairs << (8 - bits) & low(bits, 0x0001000100010001u) << 8);
}

}  // namespace detail

/// Packs codes little-endian: code j of a row takes bits [j * bits, (j + 1) * bits) of the row's
/// bytes, least significant first.
/// `packed` has ceil(codes.size() * bits / 8) bytes; unused bits at its end are zero. Every code
/// must be below 2^bits.
inline void pack_codes(std::span<const std::uint8_t> codes, int bits,
                       std::span<std::uint8_t> packed) noexcept {
  CAFEQ_ASSERT(Index(packed.size()) >= ceil_div(Index(codes.size()) * bits, 8));
  std::size_t done = 0;
  std::uint8_t* out = packed.data();
  if constexpr (std::endian::native == std::endian::little) {
    for (; done + 8 <= codes.size(); done += 8, out += bits) {
      std::uint64_t eight;
      std::memcpy(&eight, codes.data() + done, 8);
      eight = detail::join_codes(eight, bits);
      std::memcpy(out, &eight, std::size_t(bits));
    }
  }
  std::uint32_t pending = 0;
  int held = 0;
  for (; done < codes.size(); ++done) {
    CAFEQ_ASSERT(codes[done] < (1u << bits));
    pending |= std::uint32_t(codes[done]) << held;
    held += bits;
    while (held >= 8) {
      *out++ = std::uint8_t(pending);
      pending >>= 8;
      held -= 8;
    }
  }
  if (held > 0) *out = std::uint8_t(pending);
}

/// The inverse of pack_codes.
inline void unpack_codes(std::span<const std::uint8_t> packed, int bits,
                         std::span<std::uint8_t> codes) noexcept {
  CAFEQ_ASSERT(Index(packed.size()) >= ceil_div(Index(codes.size()) * bits, 8));
  std::size_t done = 0;
  const std::uint8_t* in = packed.data();
  if constexpr (std::endian::native == std::endian::little) {
    for (; done + 8 <= codes.size(); done += 8, in += bits) {
      std::uint64_t eight = 0;
      std::memcpy(&eight, in, std::size_t(bits));
      eight = detail::split_codes(eight, bits);
      std::memcpy(codes.data() + done, &eight, 8);
    }
  }
  const auto mask = (1u << bits) - 1u;
  std::uint32_t pending = 0;
  int held = 0;
  for (; done < codes.size(); ++done) {
    if (held < bits) {
      pending |= std::uint32_t(*in++) << held;
      held += 8;
    }
    codes[done] = std::uint8_t(pending & mask);
    pending >>= bits;
    held -= bits;
  }
}

/// rows × cols codes of `bits` bits, each row starting at a byte.
class PackedCodes {
 public:
  PackedCodes() = default;
  PackedCodes(Index rows, Index cols, int bits)
      : rows_(rows),
        cols_(cols),
        bits_(checked(bits)),
        row_bytes_(ceil_div(cols * bits, 8)),
        bytes_(std::size_t(rows * row_bytes_)) {}

  Index rows() const noexcept { return rows_; }
  Index cols() const noexcept { return cols_; }
  int bits() const noexcept { return bits_; }
  Index row_bytes() const noexcept { return row_bytes_; }

  std::span<std::uint8_t> row(Index i) noexcept {
    return {bytes_.data() + i * row_bytes_, std::size_t(row_bytes_)};
  }
  std::span<const std::uint8_t> row(Index i) const noexcept {
    return {bytes_.data() + i * row_bytes_, std::size_t(row_bytes_)};
  }
  std::span<std::uint8_t> bytes() noexcept { return bytes_; }
  std::span<const std::uint8_t> bytes() const noexcept { return bytes_; }

  void pack_row(Index i, std::span<const std::uint8_t> codes) noexcept {
    pack_codes(codes, bits_, row(i));
  }
  void unpack_row(Index i, std::span<std::uint8_t> codes) const noexcept {
    unpack_codes(row(i), bits_, codes);
  }

 private:
  static int checked(int bits) {
    if (bits < 1 || bits > 8)
      raise(ErrorCode::invalid_argument,
            message("PackedCodes: bits is ", bits, ", must be 1 to 8"));
    return bits;
  }

  Index rows_ = 0;
  Index cols_ = 0;
  int bits_ = 8;
  Index row_bytes_ = 0;
  Buffer<std::uint8_t> bytes_;
};

}  // namespace cafeq
