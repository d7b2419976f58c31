/// Codes of 1 to 8 bits to and from the dense rows of core/packed.hpp, a vector at a time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "cafeq/core/packed.hpp"
#include "cafeq/kernel/codec.hpp"
#include "cafeq/simd/bit_fields.hpp"

namespace cafeq::kernel {

/// pack_codes(), in registers where the architecture joins codes faster than words do.
template <class Arch = DefaultArch>
void pack(std::span<const std::uint8_t> codes, int bits, std::span<std::uint8_t> packed) noexcept {
  if (bits == 8) {
    std::copy(codes.begin(), codes.end(), packed.begin());
    return;
  }

  std::size_t done = 0;
  if constexpr (simd::JoinCodes<Arch>::fast) {
    const simd::JoinCodes<Arch> join(bits);
    std::uint8_t* out = packed.data();
    const std::uint8_t* end = out + packed.size();
    for (; done + 32 <= codes.size() && end - out >= join.writes(); done += 32, out += 4 * bits)
      join.store(codes.data() + done, out);
  }
  pack_codes(codes.subspan(done), bits, packed.subspan(done / 8 * std::size_t(bits)));
}

namespace detail {

/// encode_packed() for 4 bits and a width and a length that are multiples of 64.
template <class Arch, class Levels>
void encode_nibbles(std::span<const float> x, Index width, const Levels& levels, const float* scale,
                    const float* offset, std::uint8_t* packed) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index w = Index(V::size);
  const Index n = Index(x.size());
  const Index groups = ceil_div(n, width);
  auto round = codes_of<Arch>(levels);
  alignas(64) float per_unit[w];
  for (Index g = 0; g < groups; ++g) {
    // One division serves as many groups as a vector has lanes.
    if (g % w == 0) {
      if (g + w <= groups) inverse_scale(V::load_unaligned(scale + g)).store_aligned(per_unit);
      else
        for (Index l = 0; g + l < groups; ++l) per_unit[l] = inverse_scale(scale[g + l]);
    }

    round.measure(offset[g], per_unit[g % w]);
    const Index end = std::min((g + 1) * width, n);
    for (Index j = g * width; j < end; j += 64) round.store_nibbles(x.data() + j, packed + j / 2);
  }
}

}  // namespace detail

/// The codes of consecutive groups of `width` weights at their scales and offsets, packed, the last
/// group perhaps shorter; width a multiple of 8. Codes of 4 bits and groups of a multiple of 64
/// never meet memory on their way where the architecture rounds to bytes.
template <class Arch = DefaultArch, class Levels>
void encode_packed(std::span<const float> x, Index width, const Levels& levels, const float* scale,
                   const float* offset, int bits, std::span<std::uint8_t> packed) noexcept {
  CAFEQ_ASSERT(width % 8 == 0 || width >= Index(x.size()));
  const Index n = Index(x.size());
  if constexpr (detail::CodesOf<Arch, Levels>::fast)
    if (bits == 4 && width % 64 == 0 && n % 64 == 0)
      return detail::encode_nibbles<Arch>(x, width, levels, scale, offset, packed.data());

  // Elsewhere a few codes at a time wait on the stack.
  constexpr Index at_once = 1024;
  std::uint8_t codes[at_once];
  Index g = 0, next_group = width;
  for (Index begin = 0; begin < n; begin += at_once) {
    const Index end = std::min(begin + at_once, n);
    for (Index j = begin; j < end;) {
      if (j == next_group) ++g, next_group += width;
      const Index stop = std::min(end, next_group);
      encode<Arch>(x.subspan(std::size_t(j), std::size_t(stop - j)), levels,
                   ScaleOffset{scale[g], offset[g]},
                   std::span(codes).subspan(std::size_t(j - begin), std::size_t(stop - j)));
      j = stop;
    }
    pack<Arch>(std::span<const std::uint8_t>(codes).first(std::size_t(end - begin)), bits,
               packed.subspan(std::size_t(begin / 8 * bits)));
  }
}

/// out[i] = scale[g] · code i + start[g] of consecutive groups of `width` weights, unpacked and
/// decoded at once; width a multiple of 8. (The product of a half and a code is exact, so that no
/// contraction can change the sum.)
template <class Arch = DefaultArch>
void decode_packed(std::span<const std::uint8_t> packed, int bits, Index width, const float* scale,
                   const float* start, std::span<float> out) noexcept {
  const Index n = Index(out.size());
  CAFEQ_ASSERT((width % 8 == 0 || width >= n) && Index(packed.size()) >= ceil_div(n * bits, 8));
  Index done = 0;
  if constexpr (simd::SplitCodes<Arch>::fast) {
    simd::SplitCodes<Arch> split(bits);
    // Eight bytes are read for eight codes.
    const Index readable = Index(packed.size()) < 8 ? 0 : (Index(packed.size()) - 8) / bits + 1;
    const Index eights = std::min(n / 8, readable);
    for (Index g = 0; done < 8 * eights; ++g) {
      split.set_scale(scale[g], start[g]);
      const Index end = std::min(done + width, 8 * eights);
      const std::uint8_t* p = packed.data() + done / 8 * bits;
      for (; done < end; done += 8, p += bits) split.store(p, out.data() + done);
    }
  }

  std::uint8_t codes[64];
  for (; done < n;) {
    const Index count = std::min<Index>(n - done, 64);
    unpack_codes(packed.subspan(std::size_t(done / 8 * bits)), bits,
                 std::span(codes).first(std::size_t(count)));
    for (Index i = 0; i < count; ++i) {
      const Index g = (done + i) / width;
      out[std::size_t(done + i)] = float(codes[i]) * scale[g] + start[g];
    }
    done += count;
  }
}

}  // namespace cafeq::kernel
