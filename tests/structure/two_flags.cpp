// Runs both, and compares what they compute. Where the CPU has no AVX2 it is enough that the
// program links (and all of it may be code for AVX2: the linker chooses).
#include "two_flags.hpp"

#include <cmath>
#include <cstdio>

int main() {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 77;
  const std::vector<float> baseline = work_baseline();
  const std::vector<float> v3 = work_v3();
  if (baseline.empty() || baseline.size() != v3.size()) return 1;
  for (std::size_t i = 0; i < v3.size(); ++i)
    if (!(std::abs(baseline[i] - v3[i]) <= 1e-4f * (1.0f + std::abs(v3[i])))) {
      std::printf("value %zu: %g for x86-64, %g for x86-64-v3\n", i, double(baseline[i]),
                  double(v3[i]));
      return 2;
    }
  return 0;
}
