// Counts what the program asks of operator new, to prove that a piece of code does not allocate, or
// how much. Link support/allocations.cpp.
#pragma once

#include <cstddef>

namespace cafeq::test {

/// Calls of operator new, in any of its forms and on any thread, since the program started.
long allocation_count() noexcept;

/// The allocations that f makes.
template <class F>
long allocations_of(F&& f) {
  const long before = allocation_count();
  f();
  return allocation_count() - before;
}

/// Bytes that the program holds of operator new, and the most since reset_peak_bytes().
std::ptrdiff_t held_bytes() noexcept;
std::ptrdiff_t peak_bytes() noexcept;
void reset_peak_bytes() noexcept;

/// The most that f holds beside what its result keeps, in bytes.
template <class F>
std::ptrdiff_t scratch_of(F&& f) {
  const std::ptrdiff_t before = held_bytes();
  reset_peak_bytes();
  const auto result = f();
  const std::ptrdiff_t kept = held_bytes() - before;
  return peak_bytes() - before - kept;
}

}  // namespace cafeq::test
