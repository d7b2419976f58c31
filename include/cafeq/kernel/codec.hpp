/// Levels of a grid, codes of weights and weights of codes.
///
/// A grid is given by its levels in units of the scale: a function object that takes u = (x −
/// offset)/scale, a float or a vector, to the nearest level. The value of a weight is x̂ = scale ·
/// level + offset. u is computed as (x − offset) · (1/scale), which no FMA can contract, so a
/// compiler has no say in which code a weight gets.
#pragma once

#include <cstdint>

#include "cafeq/kernel/stats.hpp"

namespace cafeq::kernel {

/// x̂ = scale · level + offset.
struct ScaleOffset {
  float scale = 0;
  float offset = 0;
  bool operator==(const ScaleOffset&) const = default;
};

/// 1/scale, and 0 for scale 0: then every weight is encoded as zero is.
inline float inverse_scale(float scale) noexcept { return scale != 0 ? 1.0f / scale : 0.0f; }

namespace detail {

inline float round_even(float u) noexcept { return std::nearbyint(u); }
inline float round_down(float u) noexcept { return std::floor(u); }
inline float clamp_level(float u, float low, float high) noexcept {
  const float raised = u > low ? u : low;  // NaN becomes low
  return raised < high ? raised : high;
}
template <class A>
Batch<float, A> round_even(const Batch<float, A>& u) noexcept {
  return xsimd::nearbyint(u);
}
template <class A>
Batch<float, A> round_down(const Batch<float, A>& u) noexcept {
  return xsimd::floor(u);
}
inline float magnitude(float x) noexcept { return std::abs(x); }
inline float at_most(float u, float top) noexcept { return u < top ? u : top; }
inline float clamp_code(float u, float top) noexcept { return clamp_level(u, 0.0f, top); }
template <class A>
Batch<float, A> magnitude(const Batch<float, A>& x) noexcept {
  return xsimd::abs(x);
}
template <class A>
Batch<float, A> at_most(const Batch<float, A>& u, float top) noexcept {
  if constexpr (simd::is_avx2<A> || simd::is_avx512<A>)
    return simd::min_signed_bits(u, Batch<float, A>(top));
  else return xsimd::min(u, Batch<float, A>(top));
}
/// Between 0 and top. (Where the bits of floats are compared as integers, the units that round and
/// add have the less to do.)
template <class A>
Batch<float, A> clamp_code(const Batch<float, A>& u, float top) noexcept {
  using V = Batch<float, A>;
  if constexpr (simd::is_avx2<A> || simd::is_avx512<A>)
    return simd::min_signed_bits(simd::max_signed_bits(u, V(0.0f)), V(top));
  else return xsimd::min(xsimd::max(u, V(0.0f)), V(top));
}
template <class A>
Batch<float, A> clamp_level(const Batch<float, A>& u, float low, float high) noexcept {
  using V = Batch<float, A>;
  return xsimd::min(xsimd::max(u, V(low)), V(high));
}

}  // namespace detail

/// Consecutive integers low … high, ties to even; with Half, low + ½ … high + ½, where level k + ½
/// holds k <= u < k + 1.
template <bool Offset, bool Half>
struct UniformLevels {
  static constexpr bool has_offset = Offset;
  float low;
  float high;

  template <class V>
  V operator()(const V& u) const noexcept {
    if constexpr (Half) return detail::clamp_level(detail::round_down(u), low, high) + V(0.5f);
    else return detail::clamp_level(detail::round_even(u), low, high);
  }
  /// Half levels are symmetric about zero: of a weight's magnitude, fold(x)/s − ½ rounded is the
  /// step above the lowest positive level. Others are counted from the lowest: u − low rounded,
  /// between 0 and the last.
  static constexpr bool is_folded = Half;
  template <class V>
  V fold(const V& x) const noexcept {
    if constexpr (Half) return detail::magnitude(x);
    else return x;
  }
  template <class V>
  V nearest(const V& shifted) const noexcept {
    if constexpr (Half) return detail::at_most(detail::round_even(shifted), high);
    else return detail::clamp_code(detail::round_even(shifted), high - low);
  }
  /// What takes a count back to a level.
  float bias() const noexcept { return Half ? 0.5f : low; }

  /// The level of a largest weight that is not clipped: the end with the shorter reach.
  float reach() const noexcept { return Half ? high + 0.5f : high; }
  /// The lowest level.
  float base() const noexcept { return Half ? low + 0.5f : low; }
  std::uint8_t code(float u) const noexcept { return std::uint8_t((*this)(u)-base()); }
  float level(std::uint8_t code) const noexcept { return base() + float(code); }
};

namespace detail {

template <class Levels, class V>
V above_offset(const V& x, const V& offset) noexcept {
  if constexpr (Levels::has_offset) return x - offset;
  else return x;
}

}  // namespace detail

namespace detail {

#if defined(__AVX2__)
/// 32 codes, in the order 0–3, 8–11, 16–19, 24–27, 4–7, 12–15, 20–23, 28–31. NaN gets some code.
template <class Arch, class Levels>
inline __m256i shuffled_codes(const float* x, const Levels& levels, __m256 inverse,
                              __m256 offset) noexcept {
  __m256i level[4];
  CAFEQ_UNROLL
  for (int i = 0; i < 4; ++i) {
    __m256 u = _mm256_loadu_ps(x + 8 * i);
    if constexpr (Levels::has_offset) u = _mm256_sub_ps(u, offset);
    // Beyond 2^30, which may be more than an integer holds, every u has the last level. The bits of
    // floats are in the order of the floats.
    u = _mm256_castsi256_ps(_mm256_min_epi32(_mm256_castps_si256(_mm256_mul_ps(u, inverse)),
                                             _mm256_castps_si256(_mm256_set1_ps(0x1p30f))));
    if constexpr (Levels::is_folded) u = _mm256_floor_ps(u);
    level[i] = _mm256_cvtps_epi32(u);
  }
  const __m256i lowest = _mm256_set1_epi16(short(-levels.low)),
                top = _mm256_set1_epi8(char(int(levels.high - levels.low)));
  __m256i first = _mm256_packs_epi32(level[0], level[1]),
          second = _mm256_packs_epi32(level[2], level[3]);
  if constexpr (!Levels::has_offset) {
    first = _mm256_adds_epi16(first, lowest);
    second = _mm256_adds_epi16(second, lowest);
  }
  return _mm256_min_epu8(_mm256_packus_epi16(first, second), top);
}

template <class Arch, class Levels>
inline void encode_32(const float* x, const Levels& levels, __m256 inverse, __m256 offset,
                      std::uint8_t* codes) noexcept {
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(
      reinterpret_cast<__m256i*>(codes),
      _mm256_permutevar8x32_epi32(shuffled_codes<Arch>(x, levels, inverse, offset), order));
}

/// 64 codes of 4 bits, two a byte.
template <class Arch, class Levels>
inline void encode_64_nibbles(const float* x, const Levels& levels, __m256 inverse, __m256 offset,
                              std::uint8_t* packed) noexcept {
  const __m256i pairs = _mm256_set1_epi16(0x1001);  // code 2j + 16 · code 2j + 1
  const __m256i a = _mm256_maddubs_epi16(shuffled_codes<Arch>(x, levels, inverse, offset), pairs);
  const __m256i b =
      _mm256_maddubs_epi16(shuffled_codes<Arch>(x + 32, levels, inverse, offset), pairs);
  // Counted in fours of codes, which are two bytes now: the even ones of a and of b, then the odd
  // ones of both.
  const __m256i bytes = _mm256_packus_epi16(a, b);
  const __m128i even = _mm256_castsi256_si128(bytes), odd = _mm256_extracti128_si256(bytes, 1);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(packed), _mm_unpacklo_epi16(even, odd));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(packed + 16), _mm_unpackhi_epi16(even, odd));
}
#endif

}  // namespace detail

/// codes[i] = the number, from the lowest level up, of the level nearest to (x[i] − offset)/scale.
template <class Arch = DefaultArch, bool Offset, bool Half>
void encode(std::span<const float> x, const UniformLevels<Offset, Half>& levels, ScaleOffset at,
            std::span<std::uint8_t> codes) noexcept {
  CAFEQ_ASSERT(codes.size() == x.size() && (!Offset || levels.low == 0));
  using V = Batch<float, Arch>;
  using Levels = UniformLevels<Offset, Half>;
  const float per_unit = inverse_scale(at.scale);
#if defined(__AVX2__)
  if constexpr (simd::is_avx2<Arch> || simd::is_avx512<Arch>) {
    const __m256 inverse = _mm256_set1_ps(per_unit), offset = _mm256_set1_ps(at.offset);
    std::size_t done = 0;
    for (; done + 32 <= x.size(); done += 32)
      detail::encode_32<Arch>(x.data() + done, levels, inverse, offset, codes.data() + done);
    x = x.subspan(done);
    codes = codes.subspan(done);
  }
#endif
  if (x.empty()) return;
  const V inverse(per_unit), offset(at.offset), base(levels.base());
  alignas(64) std::int32_t wide[detail::lanes];
  std::uint8_t* out = codes.data();
  Index left = Index(codes.size());
  detail::for_each_vector<Arch>(x, [&](Index p, const V& v, auto) {
    const V level = levels(detail::above_offset<Levels>(v, offset) * inverse);
    xsimd::to_int(level - base).store_aligned(wide + p * Index(V::size));
    if (p + 1 < detail::lane_parts<Arch>) return;
    const Index now = std::min(left, detail::lanes);
    for (Index l = 0; l < now; ++l) out[l] = std::uint8_t(wide[l]);
    out += detail::lanes;
    left -= detail::lanes;
  });
}

template <bool Offset, bool Half>
void encode_reference(std::span<const float> x, const UniformLevels<Offset, Half>& levels,
                      ScaleOffset at, std::span<std::uint8_t> codes) noexcept {
  for (std::size_t i = 0; i < x.size(); ++i)
    codes[i] = levels.code(detail::above_offset<UniformLevels<Offset, Half>>(x[i], at.offset) *
                           inverse_scale(at.scale));
}

}  // namespace cafeq::kernel
