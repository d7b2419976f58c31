/// Asking for memory before it is read.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cafeq::simd {

/// The cache that a line is asked into.
enum class Cache { first_level, second_level };

/// Asks for the cache line at p, which may lie past the end of its buffer.
template <Cache cache = Cache::first_level>
inline void prefetch([[maybe_unused]] const void* p) noexcept {
#if defined(__GNUC__)
  __builtin_prefetch(p, 0, cache == Cache::first_level ? 3 : 2);
#endif
}
/// The same for what lies `ahead` bytes after p.
inline void prefetch(const void* p, std::ptrdiff_t ahead) noexcept {
  prefetch(
      reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(p) + std::uintptr_t(ahead)));
}

}  // namespace cafeq::simd
