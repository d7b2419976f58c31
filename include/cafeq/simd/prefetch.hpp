/// Asking for memory before it is read.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cafeq::simd {

/// The cache that a line is asked into.
enum class Cache { first_level, second_level };

/// Asks for the cache line `ahead` bytes after p, which may lie past the end of its buffer.
template <Cache cache = Cache::first_level>
inline void prefetch([[maybe_unused]] const void* p,
                     [[maybe_unused]] std::ptrdiff_t ahead = 0) noexcept {
#if defined(__GNUC__)
  __builtin_prefetch(
      reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(p) + std::uintptr_t(ahead)), 0,
      cache == Cache::first_level ? 3 : 2);
#endif
}

}  // namespace cafeq::simd
