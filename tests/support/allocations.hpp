// Counts what the program asks of operator new, to prove that a piece of code does not allocate. Link support/allocations.cpp.
#pragma once

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

}  // namespace cafeq::test
