// Ranges and moments of groups against the speed of reading: 512 KiB lie in the second-level cache,
// 64 MiB in no cache.
#include <vector>

#include "cafeq/kernel/extremes.hpp"
#include "cafeq/kernel/moments.hpp"
#include "support/bench.hpp"

using cafeq::Index;

namespace {

constexpr Index near_floats = Index(1) << 17, far_floats = Index(1) << 24;

std::string label(Index width, Index n) {
  return "g" + std::to_string(width) + (n == near_floats ? " L2" : " DRAM");
}

void ranges(bench::Contest& c, Index width, Index n) {
  const auto x = bench::weights(n);
  std::vector<float> low(std::size_t(n / width)), high(low.size());
  c.ours(bench::Unit::gigabytes, 4.0 * double(n), [&] {
    cafeq::kernel::group_ranges(x, width, low, high);
    bench::keep(low[0]);
  });
  c.limit(bench::read_limit(4 * n));
  c.peer("plain loop", [&] {
    for (std::size_t g = 0; g < low.size(); ++g) {
      const float* p = x.data() + g * std::size_t(width);
      float least = p[0], greatest = p[0];
      for (Index i = 1; i < width; ++i) {
        least = p[i] < least ? p[i] : least;
        greatest = p[i] > greatest ? p[i] : greatest;
      }
      low[g] = least;
      high[g] = greatest;
    }
    bench::keep(low[0]);
  });
  c.run();
}

void moments(bench::Contest& c, Index width, Index n) {
  const auto x = bench::weights(n);
  std::vector<cafeq::kernel::Moments> found(std::size_t(n / width));
  c.ours(bench::Unit::gigabytes, 4.0 * double(n), [&] {
    cafeq::kernel::group_moments(x, width, found);
    bench::keep(found[0]);
  });
  c.limit(bench::read_limit(4 * n));
  c.peer("plain loop", [&] {
    for (std::size_t g = 0; g < found.size(); ++g) {
      double sum = 0, squares = 0;
      for (Index i = 0; i < width; ++i) {
        const double v = double(x[g * std::size_t(width) + std::size_t(i)]);
        sum += v;
        squares += v * v;
      }
      found[g] = {sum, squares};
    }
    bench::keep(found[0]);
  });
  c.run();
}

}  // namespace

void register_benchmarks() {
  for (const Index n : {near_floats, far_floats}) {
    for (const Index width : {32, 64, 128, 4096})
      bench::add("group_ranges", label(width, n), [=](bench::Contest& c) { ranges(c, width, n); });
    for (const Index width : {64, 4096})
      bench::add("group_moments", label(width, n),
                 [=](bench::Contest& c) { moments(c, width, n); });
  }
}
