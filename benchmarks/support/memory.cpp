// Replaces operator new and delete of the program that links it.
#include "support/memory.hpp"

#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>

namespace {

std::atomic<std::ptrdiff_t> held{0};
std::atomic<std::ptrdiff_t> peak{0};

void* counted(void* p) {
  if (p == nullptr) throw std::bad_alloc();
  const auto now = held.fetch_add(std::ptrdiff_t(malloc_usable_size(p))) + std::ptrdiff_t(malloc_usable_size(p));
  for (auto seen = peak.load(); now > seen && !peak.compare_exchange_weak(seen, now);) {
  }
  return p;
}

void release(void* p) noexcept {
  if (p != nullptr) held.fetch_sub(std::ptrdiff_t(malloc_usable_size(p)));
  std::free(p);
}

void* aligned(std::size_t size, std::align_val_t alignment) {
  const auto a = static_cast<std::size_t>(alignment);
  return std::aligned_alloc(a, (size + a - 1) / a * a);
}

}  // namespace

std::ptrdiff_t bench::allocated_bytes() noexcept { return held.load(); }
std::ptrdiff_t bench::peak_bytes() noexcept { return peak.load(); }
void bench::reset_peak() noexcept { peak.store(held.load()); }

void* operator new(std::size_t size) { return counted(std::malloc(size > 0 ? size : 1)); }
void* operator new[](std::size_t size) { return counted(std::malloc(size > 0 ? size : 1)); }
void* operator new(std::size_t size, std::align_val_t alignment) { return counted(aligned(size, alignment)); }
void* operator new[](std::size_t size, std::align_val_t alignment) { return counted(aligned(size, alignment)); }
void operator delete(void* p) noexcept { release(p); }
void operator delete[](void* p) noexcept { release(p); }
void operator delete(void* p, std::size_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t) noexcept { release(p); }
void operator delete(void* p, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { release(p); }
