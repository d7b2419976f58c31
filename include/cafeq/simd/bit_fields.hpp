/// Codes of 1 to 7 bits, dense or one a byte: 32 bytes joined, eight fields separated.
///
/// Dense codes lie as in core/packed.hpp, little endian: code j takes bits [j · bits, (j + 1) ·
/// bits). Both classes are made once for a number of bits, which they turn into the shuffles it
/// takes. `fast` says whether the architecture has those; elsewhere the words of core/packed.hpp do
/// it.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "cafeq/core/packed.hpp"
#include "cafeq/simd/arch.hpp"

namespace cafeq::simd {

static_assert(std::endian::native == std::endian::little,
              "cafeq: words of packed codes are read as they lie in memory");

/// 32 codes below 2^bits, one a byte, become 4 · bits bytes.
template <class Arch>
class JoinCodes {
 public:
  static constexpr bool fast = false;
  explicit JoinCodes(int bits) noexcept : bits_(bits) {}

  /// Bytes from the first that store() writes on, at least 4 · bits: what comes after those is
  /// undefined.
  Index writes() const noexcept { return 4 * bits_; }
  void store(const std::uint8_t* codes, std::uint8_t* packed) const noexcept {
    for (int i = 0; i < 4; ++i) {
      std::uint64_t eight;
      std::memcpy(&eight, codes + 8 * i, 8);
      eight = cafeq::detail::join_codes(eight, bits_);
      std::memcpy(packed + i * bits_, &eight, std::size_t(bits_));
    }
  }

 private:
  int bits_;
};

/// Eight dense codes become eight floats, which are scaled and shifted: code · scale + start.
template <class Arch>
class SplitCodes {
 public:
  static constexpr bool fast = false;
  explicit SplitCodes(int bits) noexcept : bits_(bits) {}
  void set_scale(float scale, float start) noexcept {
    scale_ = scale;
    start_ = start;
  }
  /// Reads 8 bytes.
  void store(const std::uint8_t* packed, float* out) const noexcept {
    std::uint64_t eight;
    std::memcpy(&eight, packed, 8);
    eight = cafeq::detail::split_codes(eight, bits_);
    for (int i = 0; i < 8; ++i) out[i] = float(eight >> (8 * i) & 0xff) * scale_ + start_;
  }

 private:
  int bits_;
  float scale_ = 1, start_ = 0;
};

#if defined(__AVX2__)
template <class Arch>
  requires(is_avx2<Arch> || is_avx512<Arch>)
class JoinCodes<Arch> {
 public:
  static constexpr bool fast = true;
  explicit JoinCodes(int bits) noexcept : bits_(bits) {
    alignas(32) std::int8_t order[32];
    for (int i = 0; i < 32; ++i) {
      const int byte = i % 16;
      order[i] = std::int8_t(byte < bits ? byte : byte < 2 * bits ? 8 + byte - bits : -1);
    }
    compress_ = _mm256_load_si256(reinterpret_cast<const __m256i*>(order));
  }

  Index writes() const noexcept { return 2 * bits_ + 16; }
  void store(const std::uint8_t* codes, std::uint8_t* packed) const noexcept {
    const __m256i c = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
    // Neighbours join: two codes in 16 bits, four in 32, eight in 64.
    const __m256i twos = _mm256_maddubs_epi16(_mm256_set1_epi16(short(1 | (1 << bits_ << 8))), c);
    const __m256i fours = _mm256_madd_epi16(twos, _mm256_set1_epi32(1 | (1 << 2 * bits_ << 16)));
    const __m256i low = _mm256_and_si256(fours, _mm256_set1_epi64x(0xffffffff));
    const __m256i eights =
        _mm256_or_si256(low, _mm256_slli_epi64(_mm256_srli_epi64(fours, 32), 4 * bits_));
    const __m256i dense = _mm256_shuffle_epi8(eights, compress_);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(packed), _mm256_castsi256_si128(dense));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(packed + 2 * bits_),
                     _mm256_extracti128_si256(dense, 1));
  }

 private:
  int bits_;
  __m256i compress_;
};

template <class Arch>
  requires(is_avx2<Arch> || is_avx512<Arch>)
class SplitCodes<Arch> {
 public:
  static constexpr bool fast = true;
  explicit SplitCodes(int bits) noexcept : mask_(_mm256_set1_epi32((1 << bits) - 1)) {
    alignas(32) std::int8_t bytes[32];
    alignas(32) std::int32_t shifts[8];
    for (int k = 0; k < 8; ++k) {  // the two bytes that code k lies in
      bytes[4 * k] = std::int8_t(k * bits / 8);
      bytes[4 * k + 1] = std::int8_t(k * bits / 8 + 1);
      bytes[4 * k + 2] = bytes[4 * k + 3] = -1;
      shifts[k] = k * bits % 8;
    }
    spread_ = _mm256_load_si256(reinterpret_cast<const __m256i*>(bytes));
    shift_ = _mm256_load_si256(reinterpret_cast<const __m256i*>(shifts));
  }
  void set_scale(float scale, float start) noexcept {
    scale_ = _mm256_set1_ps(scale);
    start_ = _mm256_set1_ps(start);
  }
  void store(const std::uint8_t* packed, float* out) const noexcept {
    const __m256i eight =
        _mm256_broadcastq_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(packed)));
    const __m256i codes =
        _mm256_and_si256(_mm256_srlv_epi32(_mm256_shuffle_epi8(eight, spread_), shift_), mask_);
    _mm256_storeu_ps(out, _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(codes), scale_), start_));
  }

 private:
  __m256i mask_, spread_, shift_;
  __m256 scale_{}, start_{};
};
#endif

}  // namespace cafeq::simd
