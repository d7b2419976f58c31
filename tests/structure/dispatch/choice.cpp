// The tables that a program is linked with, and how it chooses one of them.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

// [include]
#include "cafeq/kernel/dispatch.hpp"
// [include end]

using namespace cafeq;
using cpu::Architecture;

namespace {

int failures = 0;

void check(bool right, const std::string& what) {
  if (right) return;
  ++failures;
  std::printf("wrong: %s\n", what.c_str());
}

void rotate(float* x, Index n) {
  // [use]
  static const cafeq::kernel::Table& kernels =
      cafeq::kernel::table();  // once: it looks at the processor and the environment
  kernels.fwht(x, n, 1.0f / std::sqrt(float(n)));
  // [use end]
}

}  // namespace

int main() {
  unsetenv("CAFEQ_ARCH");
  Architecture best = Architecture::generic;
  for (const auto& variant : kernel::compiled_tables()) {
    const std::string name(cpu::name(variant.architecture));
    check(variant.table->architecture == variant.architecture,
          name + ": a table of another architecture");
    if (cpu::supports(variant.architecture)) best = std::max(best, variant.architecture);

    setenv("CAFEQ_ARCH", name.c_str(), 1);
    const auto table = kernel::try_table();
    check(table.has_value() == cpu::supports(variant.architecture),
          name + ": to be had exactly where the processor runs it");
    check(!table || table.value() == variant.table, name + ": asked for and not given");
    unsetenv("CAFEQ_ARCH");
  }
  check(kernel::table().architecture == best, "without a wish the best");

  // [require]
  cafeq::cpu::require(cafeq::cpu::Architecture::generic);  // goes before CAFEQ_ARCH; an error where
                                                           // the processor lacks it
  const auto table = cafeq::kernel::try_table();           // a Result; table() raises the error
  std::string log;
  if (!table) log = table.error().message();
  // [require end]
  const bool has_generic = kernel::compiled_tables()[0].architecture == Architecture::generic;
  check(table.has_value() == has_generic, "required: " + log);
  check(has_generic ||
            log == "architecture generic: this program was built without it; available: neon",
        log);
  cpu::require(std::nullopt);

  std::vector<float> x{1, 0, 0, 0};
  rotate(x.data(), 4);
  check(x == std::vector<float>(4, 0.5f), "a kernel is called");
  return failures == 0 ? 0 : 1;
}
