// What kind of build this is, for cases that would take minutes without optimization or under a
// sanitizer.
#pragma once

#include <initializer_list>
#include <vector>

namespace cafeq::test {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool sanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer)
inline constexpr bool sanitized = true;
#else
inline constexpr bool sanitized = false;
#endif
#else
inline constexpr bool sanitized = false;
#endif

/// What a sweep goes through: all of it, but `few` under a sanitizer, which looks for accesses
/// rather than values: those that have every branch, every tail, and no size for its own sake.
template <class T>
std::vector<T> sweep(std::initializer_list<T> all, std::initializer_list<T> few) {
  return sanitized ? few : all;
}

#if defined(__OPTIMIZE__)
inline constexpr bool optimized = !sanitized;
#else
inline constexpr bool optimized = false;
#endif

}  // namespace cafeq::test
