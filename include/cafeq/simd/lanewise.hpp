/// Operations on each lane: what kernels use of xsimd, under short names of this library.
///
/// Where a lane is NaN, min() and max() give what the second argument has there.
#pragma once

#include <cstdint>

#include "cafeq/simd/arch.hpp"

namespace cafeq::simd {

template <class T, class Arch>
inline Batch<T, Arch> abs(const Batch<T, Arch>& v) noexcept {
  return xsimd::abs(v);
}
template <class T, class Arch>
inline Batch<T, Arch> min(const Batch<T, Arch>& a, const Batch<T, Arch>& b) noexcept {
  return xsimd::min(a, b);
}
template <class T, class Arch>
inline Batch<T, Arch> max(const Batch<T, Arch>& a, const Batch<T, Arch>& b) noexcept {
  return xsimd::max(a, b);
}
template <class T, class Arch>
inline Batch<T, Arch> floor(const Batch<T, Arch>& v) noexcept {
  return xsimd::floor(v);
}
/// The nearest whole numbers, ties to even.
template <class T, class Arch>
inline Batch<T, Arch> nearbyint(const Batch<T, Arch>& v) noexcept {
  return xsimd::nearbyint(v);
}
/// Sums and differences of integers, kept within what the type holds.
template <class T, class Arch>
inline Batch<T, Arch> sadd(const Batch<T, Arch>& a, const Batch<T, Arch>& b) noexcept {
  return xsimd::sadd(a, b);
}
template <class T, class Arch>
inline Batch<T, Arch> ssub(const Batch<T, Arch>& a, const Batch<T, Arch>& b) noexcept {
  return xsimd::ssub(a, b);
}

/// One truth a lane, as comparisons of batches give it.
template <class T, class Arch>
using Mask = xsimd::batch_bool<T, Arch>;

/// Lanes of a where the mask holds, of b elsewhere.
template <class T, class Arch>
inline Batch<T, Arch> select(const Mask<T, Arch>& mask, const Batch<T, Arch>& a,
                             const Batch<T, Arch>& b) noexcept {
  return xsimd::select(mask, a, b);
}
template <class T, class Arch>
inline bool all(const Mask<T, Arch>& mask) noexcept {
  return xsimd::all(mask);
}
template <class T, class Arch>
inline bool any(const Mask<T, Arch>& mask) noexcept {
  return xsimd::any(mask);
}

/// The sign bit of each lane, all others zero: v ^ bitofsign(v) is |v|.
template <class T, class Arch>
inline Batch<T, Arch> bitofsign(const Batch<T, Arch>& v) noexcept {
  return xsimd::bitofsign(v);
}
/// The same bits as lanes of another type of the same size.
template <class To, class T, class Arch>
inline To bitwise_cast(const Batch<T, Arch>& v) noexcept {
  return xsimd::bitwise_cast<To>(v);
}
template <class Arch>
inline Batch<float, Arch> to_float(const Batch<std::int32_t, Arch>& v) noexcept {
  return xsimd::to_float(v);
}
/// Towards zero.
template <class Arch>
inline Batch<std::int32_t, Arch> to_int(const Batch<float, Arch>& v) noexcept {
  return xsimd::to_int(v);
}

/// The nearest integers, ties to even; of what no int32 holds, some integer.
template <class Arch>
inline Batch<std::int32_t, Arch> nearest_int32(Batch<float, Arch> v) noexcept {
#if defined(__AVX2__)
  if constexpr (is_avx2<Arch> && Batch<float, Arch>::size == 8) return _mm256_cvtps_epi32(v);
#endif
#if defined(__AVX512F__)
  if constexpr (is_avx512<Arch>) return _mm512_cvtps_epi32(v);
#endif
#if defined(__SSE2__)
  if constexpr (is_sse2<Arch> && Batch<float, Arch>::size == 4) return _mm_cvtps_epi32(v);
#endif
#if defined(__aarch64__)
  if constexpr (is_neon64<Arch>) return vcvtnq_s32_f32(v);
#endif
  return xsimd::to_int(xsimd::nearbyint(v));
}

}  // namespace cafeq::simd
