// A host's own assertion, set ahead of the first include.
namespace {
int failed_assertions = 0;
}
#define CAFEQ_ASSERT(condition) ((condition) ? void() : void(++failed_assertions))

#include "cafeq/config/config.hpp"

#include "support/catch.hpp"

TEST_CASE("A host replaces the assertion of the kernels") {
  failed_assertions = 0;
  CAFEQ_ASSERT(1 + 1 == 2);
  CHECK(failed_assertions == 0);
  CAFEQ_ASSERT(1 + 1 == 3);
  CHECK(failed_assertions == 1);
}

TEST_CASE("Errors are thrown where the language can") {
#if defined(__cpp_exceptions)
  CHECK(CAFEQ_EXCEPTIONS == 1);
#else
  CHECK(CAFEQ_EXCEPTIONS == 0);
#endif
}

TEST_CASE("The unrolling hint stands in front of any loop") {
  int sum = 0;
  CAFEQ_UNROLL
  for (int i = 0; i < 4; ++i) sum += i;
  CHECK(sum == 6);
}

TEST_CASE("The version comes with the configuration") { CHECK(CAFEQ_VERSION[0] != '\0'); }
