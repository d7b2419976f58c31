/// The door to xsimd and to intrinsics: every other header reaches batches and registers through
/// this one, and only those of this folder name an instruction.
#pragma once

#include <type_traits>
#include <xsimd/xsimd.hpp>

#if defined(__AVX__)  // what comes before it, xsimd includes
#include <immintrin.h>
#endif
#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace cafeq {

/// The architecture that a kernel is compiled for where the caller names none: the best that the
/// compiler flags allow.
using DefaultArch = xsimd::default_arch;

template <class T, class Arch = DefaultArch>
using Batch = xsimd::batch<T, Arch>;

}  // namespace cafeq

namespace cafeq::simd {

/// Whether Arch is this one or has all of it. A branch by intrinsics stands inside `#if
/// defined(__AVX2__)` (or __AVX512F__, __aarch64__ …) and asks these besides, since a program may
/// use a narrower architecture than its flags allow.
template <class Arch>
inline constexpr bool is_sse2 = std::is_base_of_v<xsimd::sse2, Arch>;
template <class Arch>
inline constexpr bool is_avx2 = std::is_base_of_v<xsimd::avx2, Arch>;
template <class Arch>
inline constexpr bool is_avx512 = std::is_base_of_v<xsimd::avx512f, Arch>;
template <class Arch>
inline constexpr bool is_neon64 = std::is_base_of_v<xsimd::neon64, Arch>;

/// Whether comparisons of integers are cheaper than those of floats: with AVX2 the float units take
/// one minimum and one maximum a cycle, the integer units four of either.
template <class Arch>
inline constexpr bool prefers_integers = is_avx2<Arch> || is_avx512<Arch>;

}  // namespace cafeq::simd
