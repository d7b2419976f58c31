// What a call reports.
#pragma once
#include "cafeq/core/error.hpp"
#include "support/catch.hpp"

namespace cafeq::test {

/// The Error that f raises; fails the test where it raises none.
template <class F>
Error error_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error;
  }
  FAIL("no error was raised");
  return Error(ErrorCode::io, "");  // not reached
}

}  // namespace cafeq::test
