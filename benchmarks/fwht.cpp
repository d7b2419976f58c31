// Walsh–Hadamard transforms: one vector beside FFTW and a plain loop, rows and columns of a matrix
// beside the memory, orders that are no power of two.
#include "cafeq/kernel/fwht.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <memory>
#include <stdexcept>
#include <string>

#include "cafeq/kernel/fwht_columns.hpp"
#include "cafeq/transform/hadamard.hpp"
#include "support/bench.hpp"

#if CAFEQ_BENCH_HAS_FFTW
#include <fftw3.h>
#endif

namespace {

using cafeq::Index;

float orthonormal(Index n) { return float(1 / std::sqrt(double(n))); }

// What one writes first.
void plain_loop(float* x, Index n, float scale) {
  for (Index h = 1; h < n; h *= 2)
    for (Index i = 0; i < n; i += 2 * h)
      for (Index j = i; j < i + h; ++j) {
        const float a = x[j];
        const float b = x[j + h];
        x[j] = a + b;
        x[j + h] = a - b;
      }
  for (Index i = 0; i < n; ++i) x[i] *= scale;
}

#if CAFEQ_BENCH_HAS_FFTW
// A discrete Hartley transform of 2 × 2 × … × 2 is the Walsh–Hadamard transform in Sylvester's
// order, not normalized: the scale is not asked of FFTW.
class FftwHadamard {
 public:
  explicit FftwHadamard(Index n) : x_(bench::weights(n)), rank_(std::countr_zero(std::size_t(n))) {
    const std::vector<int> sizes(std::size_t(rank_), 2);
    const std::vector<fftwf_r2r_kind> kinds(std::size_t(rank_), FFTW_DHT);
    plan_ = fftwf_plan_r2r(rank_, sizes.data(), x_.data(), x_.data(), kinds.data(), FFTW_MEASURE);
    auto expected = bench::weights(n);
    std::copy(expected.begin(), expected.end(), x_.begin());  // planning overwrites
    cafeq::kernel::fwht(expected.data(), n);
    fftwf_execute(plan_);
    for (std::size_t i = 0; i < x_.size(); ++i)
      if (std::abs(x_[i] - expected[i]) > 1e-4f * std::sqrt(float(n)))
        throw std::runtime_error("FFTW computes something else");
    std::fill(
        x_.begin(), x_.end(),
        0.0f);  // applied again and again it would overflow; the time does not depend on the values
  }
  FftwHadamard(const FftwHadamard&) = delete;
  FftwHadamard& operator=(const FftwHadamard&) = delete;
  ~FftwHadamard() { fftwf_destroy_plan(plan_); }
  void operator()() const { fftwf_execute(plan_); }

 private:
  bench::Floats x_;
  int rank_;
  fftwf_plan plan_ = nullptr;
};
#endif

void vectors() {
  for (const Index n : {64, 128, 256, 512, 1024, 4096, 8192, 65536})
    bench::add("fwht", std::to_string(n), [n](bench::Contest& c) {
      auto x = bench::weights(n);
      auto y = bench::weights(n);
      c.ours(bench::Unit::gigaflops, double(n) * std::log2(double(n)),
             [&] { cafeq::kernel::fwht(x.data(), n, orthonormal(n)); });
      c.limit(bench::add_limit());
      c.peer("plain loop", [&] { plain_loop(y.data(), n, orthonormal(n)); });
#if CAFEQ_BENCH_HAS_FFTW
      const FftwHadamard fftw(n);
      c.peer("FFTW", [&] { fftw(); });
#endif
      c.run();
    });
}

void matrices() {
  constexpr Index n = 4096;
  constexpr double bytes = 2.0 * n * n * sizeof(float);
  const auto matrix = [](bench::Floats& x) { return cafeq::View<float>{x.data(), n, n, n, 1}; };
  for (const Index block : {64, 256, 4096}) {
    bench::add("fwht of rows", "4096 x 4096, block " + std::to_string(block),
               [=](bench::Contest& c) {
                 auto x = bench::weights(n * n);
                 c.ours(bench::Unit::gigabytes, bytes,
                        [&] { cafeq::kernel::fwht_rows(matrix(x), block, orthonormal(block)); });
                 c.limit(bench::in_place_limit(Index(bytes) / 2));
                 c.run();
               });
    bench::add("fwht of columns", "4096 x 4096, block " + std::to_string(block),
               [=](bench::Contest& c) {
                 auto x = bench::weights(n * n);
                 c.ours(bench::Unit::gigabytes, bytes,
                        [&] { cafeq::kernel::fwht_columns(matrix(x), block, orthonormal(block)); });
                 c.limit(bench::in_place_limit(Index(bytes) / 2));
                 c.run();
               });
  }
}

// Signs included, forward and back.
void transforms() {
  for (const Index dim : {4096, 2304, 5120, 11008, 14336}) {
    const Index rows = (Index(1) << 24) / dim;
    const double bytes = 2.0 * double(rows * dim) * sizeof(float);
    const auto transform = std::make_shared<cafeq::Hadamard>(cafeq::Signs(dim, 1));
    const std::string order = std::to_string(transform->runs()[0].order) + " x " +
                              std::to_string(dim / transform->runs()[0].order);
    bench::add("randomized Hadamard", "rows of " + std::to_string(dim) + " = " + order,
               [=](bench::Contest& c) {
                 auto x = bench::weights(rows * dim);
                 c.ours(bench::Unit::gigabytes, bytes, [&, rows] {
                   transform->apply(cafeq::View<float>{x.data(), rows, dim, dim, 1});
                 });
                 c.limit(bench::in_place_limit(Index(bytes) / 2));
                 c.run();
               });
    bench::add("randomized Hadamard", "columns of " + std::to_string(dim) + " = " + order,
               [=](bench::Contest& c) {
                 auto x = bench::weights(rows * dim);
                 c.ours(bench::Unit::gigabytes, bytes, [&, rows] {
                   transform->apply(cafeq::View<float>{x.data(), rows, dim, 1, rows});
                 });
                 c.limit(bench::in_place_limit(Index(bytes) / 2));
                 c.run();
               });
  }
}

}  // namespace

void register_benchmarks() {
  vectors();
  matrices();
  transforms();
}
