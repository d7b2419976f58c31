// How a program chooses among the architectures that its own functions are compiled for, and what
// these share with it.
#include "choice.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

using namespace cafeq;
using cpu::Architecture;

namespace {

int failures = 0;

void check(bool right, const std::string& what) {
  if (right) return;
  ++failures;
  std::printf("wrong: %s\n", what.c_str());
}

void choice() {
  unsetenv("CAFEQ_ARCH");
  Architecture best = Architecture::generic;
  for (const auto& variant : simd::dispatched_variants<Unit>()) {
    const std::string name(cpu::name(variant.architecture));
    check(variant.table->architecture == variant.architecture,
          name + ": compiled for another architecture");
    if (cpu::supports(variant.architecture)) best = std::max(best, variant.architecture);

    setenv("CAFEQ_ARCH", name.c_str(), 1);
    const auto unit = try_dispatched<Unit>();
    check(unit.has_value() == cpu::supports(variant.architecture),
          name + ": to be had exactly where the processor runs it");
    check(!unit || unit.value() == variant.table, name + ": asked for and not given");
    unsetenv("CAFEQ_ARCH");
  }
  check(dispatched<Unit>().architecture == best, "without a wish the best");
}

void wish() {
  // [require]
  cafeq::cpu::require(cafeq::cpu::Architecture::generic);  // goes before CAFEQ_ARCH; an error where
                                                           // the processor lacks it
  const auto unit = cafeq::try_dispatched<Unit>();  // a Result; dispatched() raises the error
  std::string log;
  if (!unit) log = unit.error().message();
  // [require end]
  const bool has_generic =
      simd::dispatched_variants<Unit>()[0].architecture == Architecture::generic;
  check(unit.has_value() == has_generic, "required: " + log);
  check(has_generic ||
            log == "architecture generic: this program was built without it; available: neon",
        log);
  for (const auto& variant : simd::dispatched_variants<Unit>())
    if (cpu::supports(variant.architecture))
      check(variant.table->wish() == Architecture::generic, "what is required here holds there");
  cpu::require(std::nullopt);
}

void shared() {
  const std::vector<float> x(1000, 0.5f);
  for (const auto& variant : simd::dispatched_variants<Unit>()) {
    if (!cpu::supports(variant.architecture)) continue;
    const Unit& unit = *variant.table;
    check(unit.sum(x.data(), int(x.size())) == 500.0f, "a function is called");
    const auto error = catch_error([&] { return unit.fail("a failure"), 0; });
    check(!error && error.error().code() == ErrorCode::io && error.error().message() == "a failure",
          "an error that is thrown there is caught here");
    const std::any box = unit.boxed(0.25);
    const double* value = std::any_cast<double>(&box);
    check(value != nullptr && *value == 0.25, "a type is the same there and here");
  }
}

}  // namespace

int main() {
  choice();
  wish();
  shared();
  return failures == 0 ? 0 : 1;
}
