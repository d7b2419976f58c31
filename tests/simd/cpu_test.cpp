#include "cafeq/simd/cpu.hpp"

#include <cstdlib>
#include <string>

#include "support/catch.hpp"
#include "support/error_of.hpp"

using namespace cafeq;
using cpu::Architecture;

TEST_CASE("names go both ways", "[simd][cpu]") {
  for (const Architecture architecture : cpu::architectures)
    CHECK(cpu::from_name(cpu::name(architecture)) == architecture);
  CHECK(cpu::name(Architecture::avx2) == "avx2");
  CHECK(!cpu::from_name("AVX2"));
  CHECK(!cpu::from_name(""));
}

TEST_CASE("what this program is compiled for is there", "[simd][cpu]") {
  CHECK(cpu::supports(Architecture::generic));
#if defined(__AVX512BW__) && defined(__AVX512VL__)
  CHECK(cpu::supports(Architecture::avx512));
#endif
#if defined(__AVX2__) && defined(__FMA__)
  CHECK(cpu::supports(Architecture::avx2));
#endif
#if defined(__aarch64__)
  CHECK(cpu::supports(Architecture::neon));
#else
  CHECK(!cpu::supports(Architecture::neon));
#endif
  if (cpu::supports(Architecture::avx512)) CHECK(cpu::supports(Architecture::avx2));
}

TEST_CASE("require() goes before CAFEQ_ARCH", "[simd][cpu]") {
  const char* outside = std::getenv("CAFEQ_ARCH");
  const std::string before = outside == nullptr ? "" : outside;

  setenv("CAFEQ_ARCH", "avx2", 1);
  CHECK(cpu::requested().value() == Architecture::avx2);
  cpu::require(Architecture::generic);
  CHECK(cpu::requested().value() == Architecture::generic);
  cpu::require(std::nullopt);
  CHECK(cpu::requested().value() == Architecture::avx2);
  setenv("CAFEQ_ARCH", "", 1);
  CHECK(cpu::requested().value() == std::nullopt);
  unsetenv("CAFEQ_ARCH");
  CHECK(cpu::requested().value() == std::nullopt);
  setenv("CAFEQ_ARCH", "sse9", 1);
  REQUIRE(!cpu::requested());
  CHECK(cpu::requested().error().code() == ErrorCode::invalid_argument);
  CHECK(cpu::requested().error().message() ==
        "CAFEQ_ARCH: sse9 is none of generic, neon, avx2, avx512");

  const Architecture missing =
      cpu::supports(Architecture::neon) ? Architecture::avx2 : Architecture::neon;
  const Error error = test::error_of([&] { cpu::require(missing); });
  CHECK(error.code() == ErrorCode::unsupported);
  CHECK(error.message() ==
        "cpu::require: this processor has no " + std::string(cpu::name(missing)));
  CHECK(!cpu::requested());  // nothing was required

  if (before.empty()) unsetenv("CAFEQ_ARCH");
  else setenv("CAFEQ_ARCH", before.c_str(), 1);
}
