/// Packed codes as words, the way products read them.
///
/// A word is 32 bits of a row (24 bits at 3 bits) that hold `word_fields` consecutive codes. A
/// block is one word a lane: lane l of a vector holds word l of the block.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cafeq/core/packed.hpp"
#include "cafeq/simd/batch.hpp"

namespace cafeq::kernel {

/// Codes as core/packed.hpp lays them out. `group` consecutive weights of a row share a scale and
/// an offset.
struct PackedRows {
  const std::uint8_t* data = nullptr;
  Index rows = 0;
  Index cols = 0;
  Index row_bytes = 0;
  int bits = 8;
  Index group = 1;

  Index groups() const noexcept { return ceil_div(cols, group); }
};

namespace detail {

static_assert(std::endian::native == std::endian::little,
              "cafeq: words of packed codes are read as they lie in memory");

/// Bits of the kernel that takes codes of `bits` bits.
constexpr int kernel_bits(int bits) noexcept {
  return bits == 2 || bits == 3 || bits == 4 ? bits : 8;
}
/// Codes of one word.
constexpr Index word_fields(int bits) noexcept { return bits == 3 ? 8 : 32 / bits; }

/// f(std::integral_constant<int, bits>) for the bits of a kernel.
template <class F>
void with_kernel_bits(int bits, F&& f) {
  switch (kernel_bits(bits)) {
    case 2: return f(std::integral_constant<int, 2>{});
    case 3: return f(std::integral_constant<int, 3>{});
    case 4: return f(std::integral_constant<int, 4>{});
    default: return f(std::integral_constant<int, 8>{});
  }
}

/// One word a lane.
template <int Bits, class Arch>
inline Batch<std::int32_t, Arch> load_words(const std::uint8_t* p) noexcept {
  using I = Batch<std::int32_t, Arch>;
  if constexpr (Bits == 3) return simd::load_uint24<Arch>(p);
  else return I::load_unaligned(reinterpret_cast<const std::int32_t*>(p));
}

/// The codes of a row plus `base`, one a byte.
template <class Arch>
inline void unpack_row(const std::uint8_t* packed, int bits, Index cols, std::uint8_t base,
                       std::uint8_t* codes) noexcept {
  const auto eight = [&](Index at, std::size_t size) {  // codes, as they lie
    std::uint64_t word = 0;
    std::memcpy(&word, packed + at, size);
    return cafeq::detail::split_codes(word, bits) + base * 0x0101010101010101u;
  };
  const Index bytes = ceil_div(cols * bits, 8);
  Index j = 0, at = 0;
  for (; at + 8 <= bytes && j + 8 <= cols; j += 8, at += bits) {
    const std::uint64_t spread = eight(at, 8);
    std::memcpy(codes + j, &spread, 8);
  }
  for (; j < cols; j += 8, at += bits) {
    const std::uint64_t spread = eight(at, std::size_t(std::min<Index>(bytes - at, 8)));
    std::memcpy(codes + j, &spread, std::size_t(std::min<Index>(cols - j, 8)));
  }
}

/// Lengths of arrays that vectors of any architecture run through.
inline constexpr Index padded(Index n) noexcept { return ceil_div(n, 16) * 16; }

}  // namespace detail

}  // namespace cafeq::kernel
