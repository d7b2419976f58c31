// The kernels of every architecture that this program was built for and that runs here: how long
// they take. CAFEQ_ARCH=avx2 leaves the choice to the environment.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "cafeq/core/rng.hpp"
#include "kernel_table/kernels.hpp"

namespace {

using namespace example;

/// Seconds of one call, the best of many.
template <class F>
double seconds(F&& call) {
  using Clock = std::chrono::steady_clock;
  double best = 1;
  for (int i = 0; i < 200; ++i) {
    const auto start = Clock::now();
    call();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

void measure(const Kernels& kernels) {
  constexpr Index n = 4096, k = 128;
  std::vector<float> x(n);
  const CounterRng rng(1);
  for (Index i = 0; i < n; ++i) x[std::size_t(i)] = float(rng.normal(std::uint64_t(i)));
  cafeq::Matrix<float> A(k, k), C(k, k);
  std::copy_n(x.begin(), n, A.data());

  const double fwht = seconds([&] { kernels.fwht(x.data(), n, 1.0f / 64); });
  const double range = seconds([&] { kernels.range(x); });
  const double product =
      seconds([&] { kernels.multiply(A.view(), A.view(), C.view(), kernel::Store::overwrite); });
  std::printf("%-8s fwht of %td: %.2f µs   range of %td: %.2f µs   product of %td: %.1f Gflop/s\n",
              std::string(cpu::name(kernels.architecture)).c_str(), n, 1e6 * fwht, n, 1e6 * range,
              k, 2e-9 * double(k * k * k) / product);
}

}  // namespace

int main() {
  for (const cpu::Architecture architecture : cpu::architectures) {
    if (!cpu::supports(architecture)) continue;
    cpu::require(architecture);
    if (const auto kernels = try_dispatched<Kernels>()) measure(*kernels.value());
  }
  cpu::require(std::nullopt);
  const std::string chosen(cpu::name(dispatched<Kernels>().architecture));
  std::printf("without a wish: %s\n", chosen.c_str());
}
