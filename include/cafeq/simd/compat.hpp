/// What xsimd 8.1 lacks or does slowly: fused multiply-adds on every architecture that has them,
/// reductions, transposes, loads that widen.
///
/// Each function has a branch by native registers and a generic one; both give the same bits (NaN
/// payloads aside). `Arch` is an architecture of xsimd; a batch of it has `Batch<float,
/// Arch>::size` lanes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cafeq/simd/bits.hpp"
#include "cafeq/simd/convert.hpp"
#include "cafeq/simd/fma.hpp"
#include "cafeq/simd/lanes.hpp"
#include "cafeq/simd/shuffle.hpp"

namespace cafeq::simd {

/// Asks for the cache line `ahead` bytes after p, which may lie past the end of its buffer.
inline void prefetch([[maybe_unused]] const void* p,
                     [[maybe_unused]] std::ptrdiff_t ahead) noexcept {
#if defined(__GNUC__)
  __builtin_prefetch(
      reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(p) + std::uintptr_t(ahead)));
#endif
}

}  // namespace cafeq::simd
