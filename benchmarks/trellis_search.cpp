// The Viterbi search of trellis codes, a chunk of 8,192 weights at a time, in millions of weights a
// second (1,000 / rate is ns a weight).
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "cafeq/trellis/code_tables.hpp"
#include "cafeq/trellis/search.hpp"
#include "cafeq/trellis/search_reference.hpp"
#include "support/bench.hpp"

namespace {

using namespace cafeq;

void search(bench::Contest& c, TrellisRate rate, int window) {
  const std::size_t n = bench::smoke() ? 64 : 8192;
  auto x = bench::weights(Index(n));
  double power = 0;
  for (const float value : x) power += double(value) * double(value) / double(n);
  for (float& value : x) value /= float(std::sqrt(power));

  const TrellisCode& code = trellis_code(rate, window);
  kernel::TrellisSearch<> ours(code, rate);
  std::vector<std::uint16_t> states(n);
  c.ours(bench::Unit::megaweights, double(n), [&] {
    ours.tail_biting(x, states);
    bench::keep(states[0]);
  });
  // Every cost in double, and a byte for every predecessor.
  const std::vector<double> targets(x.begin(), x.end());
  std::vector<std::uint16_t> plain(n);
  c.peer("plain loops in double",
         [&] { bench::keep(kernel::trellis_search_reference(code, rate, targets, 0, plain)); });
  c.run();
}

}  // namespace

void register_benchmarks() {
  for (const int window : {12, 10})
    for (const int sixteenths : {32, 35, 48, 51, 64, 67}) {
      const TrellisRate rate{sixteenths};
      std::string bits = std::to_string(rate.bits());
      bits.erase(bits.find_last_not_of('0') + 1);
      if (bits.back() == '.') bits.pop_back();
      bench::add("trellis_search", "window " + std::to_string(window) + ", " + bits + " bits",
                 [=](bench::Contest& c) { search(c, rate, window); });
    }
}
