// Replaces operator new and delete of the whole program. All forms, since sanitizers bring their
// own for those that are left.
#include "support/allocations.hpp"

#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>

namespace {

std::atomic<long> count{0};
std::atomic<std::ptrdiff_t> held{0};
std::atomic<std::ptrdiff_t> peak{0};

void* counted(void* p) noexcept {
  count.fetch_add(1, std::memory_order_relaxed);
  if (p == nullptr) return p;
  const auto size = std::ptrdiff_t(malloc_usable_size(p));
  const auto now = held.fetch_add(size) + size;
  for (auto seen = peak.load(); now > seen && !peak.compare_exchange_weak(seen, now);) {
  }
  return p;
}

void release(void* p) noexcept {
  if (p != nullptr) held.fetch_sub(std::ptrdiff_t(malloc_usable_size(p)));
  std::free(p);
}

void* allocate(std::size_t size) noexcept { return counted(std::malloc(size > 0 ? size : 1)); }

void* allocate(std::size_t size, std::align_val_t alignment) noexcept {
  const auto a = static_cast<std::size_t>(alignment);
  return counted(std::aligned_alloc(a, size > 0 ? (size + a - 1) / a * a : a));
}

void* checked(void* p) {
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

}  // namespace

long cafeq::test::allocation_count() noexcept { return count.load(std::memory_order_relaxed); }
std::ptrdiff_t cafeq::test::held_bytes() noexcept { return held.load(); }
std::ptrdiff_t cafeq::test::peak_bytes() noexcept { return peak.load(); }
void cafeq::test::reset_peak_bytes() noexcept { peak.store(held.load()); }

void* operator new(std::size_t size) { return checked(allocate(size)); }
void* operator new[](std::size_t size) { return checked(allocate(size)); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return allocate(size); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return allocate(size); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return checked(allocate(size, alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
  return checked(allocate(size, alignment));
}

void operator delete(void* p) noexcept { release(p); }
void operator delete[](void* p) noexcept { release(p); }
void operator delete(void* p, std::size_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t) noexcept { release(p); }
void operator delete(void* p, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { release(p); }
