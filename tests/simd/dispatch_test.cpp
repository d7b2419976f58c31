#include "cafeq/simd/dispatch.hpp"

#include <cstdlib>

#include "support/catch.hpp"
#include "support/error_of.hpp"

using namespace cafeq;
using cpu::Architecture;

namespace {

struct Names {
  const char* name;
};

constexpr Names generic{"generic"}, avx2{"avx2"}, avx512{"avx512"}, neon{"neon"};
constexpr simd::Variant<Names> variants[] = {{Architecture::avx512, &avx512},
                                             {Architecture::generic, &generic},
                                             {Architecture::neon, &neon},
                                             {Architecture::avx2, &avx2}};

std::span<const simd::Variant<Names>> all() { return variants; }

/// CAFEQ_ARCH for the length of a test.
struct Variable {
  explicit Variable(const char* value) {
    if (const char* outside = std::getenv("CAFEQ_ARCH")) before = outside;
    set(value);
  }
  ~Variable() { set(before.c_str()); }
  static void set(const char* value) { setenv("CAFEQ_ARCH", value, 1); }
  std::string before;
};

const Names& chosen_of(std::span<const simd::Variant<Names>> among) {
  return *simd::try_best_variant(among).value();
}

struct Functions {
  int (*twice)(int);
};

}  // namespace

template <>
constinit const Functions cafeq::Dispatched<Functions>::table{.twice = [](int n) { return 2 * n; }};

TEST_CASE("a table that is compiled once, for the flags of the program", "[simd][dispatch]") {
  const Variable none("");
  REQUIRE(simd::dispatched_variants<Functions>().size() == 1);
  CHECK(simd::dispatched_variants<Functions>()[0].architecture == cpu::compiled_for);
  CHECK(dispatched<Functions>().twice(4) == 8);
  CHECK(&dispatched<Functions>() == &Dispatched<Functions>::table);
  Variable::set(cpu::compiled_for == Architecture::avx2 ? "generic" : "avx2");
  CHECK(try_dispatched<Functions>().error().code() == ErrorCode::unsupported);
}

TEST_CASE("without a wish the best that runs here", "[simd][dispatch]") {
  const Variable none("");
  Architecture best = Architecture::generic;
  for (const Architecture architecture : cpu::architectures)
    if (cpu::supports(architecture)) best = architecture;
  CHECK(chosen_of(all()).name == cpu::name(best));
  CHECK(chosen_of(all().subspan(1, 1)).name == std::string("generic"));
}

TEST_CASE("what is asked for, or an error that tells what there is", "[simd][dispatch]") {
  const Variable wish("generic");
  CHECK(chosen_of(all()).name == std::string("generic"));
  for (const auto& variant : variants) {
    Variable::set(variant.table->name);
    const auto chosen = simd::try_best_variant(all());
    REQUIRE(chosen.has_value() == cpu::supports(variant.architecture));
    if (chosen) {
      CHECK(chosen.value() == variant.table);
      continue;
    }
    CHECK(chosen.error().code() == ErrorCode::unsupported);
    CHECK(chosen.error().message().find(std::string("architecture ") + variant.table->name +
                                        ": this processor cannot run it; available:") == 0);
    CHECK(chosen.error().message().find(" generic") != std::string::npos);
  }
  Variable::set("avx2");
  CHECK(test::error_of([] { chosen_of(all().subspan(1, 1)); }).message() ==
        "architecture avx2: this program was built without it; available: generic");
  Variable::set("sse9");
  CHECK(simd::try_best_variant(all()).error().message() ==
        "CAFEQ_ARCH: sse9 is none of generic, neon, avx2, avx512");
}

TEST_CASE("nothing that runs here", "[simd][dispatch]") {
  const Variable none("");
  const auto chosen = simd::try_best_variant(all().first(0));
  REQUIRE(!chosen);
  CHECK(chosen.error().message() ==
        "no architecture that this program was built for runs on this processor");
}
