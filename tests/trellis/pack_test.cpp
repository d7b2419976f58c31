#include "cafeq/trellis/pack.hpp"

#include <vector>

#include "cafeq/core/rng.hpp"
#include "support/catch.hpp"

using namespace cafeq;

TEST_CASE("packed trellis states come back, and what follows them is zero") {
  const CounterRng rng(4, 9);
  for (const int window : {14, 12, 10})
    for (int sixteenths = TrellisRate::least; sixteenths <= TrellisRate::most; ++sixteenths)
      for (const Index wanted : {1, 7, 16, 33, 128}) {
        const TrellisRate rate{sixteenths};
        const kernel::TrellisStream cycle{rate, window};
        const Index n = cycle.padded(wanted), bits = rate.begin(n);
        INFO("window " << window << " sixteenths " << sixteenths << " n " << n);
        REQUIRE(bits == cycle.bits(wanted));
        std::vector<int> stream;
        for (Index i = 0; i < bits; ++i) stream.push_back(int(rng.below(std::uint64_t(i), 2)));
        std::vector<std::uint16_t> states;
        for (Index t = 0; t < n; ++t) {
          int state = 0;
          for (int i = 0; i < window; ++i)
            state = 2 * state + stream[std::size_t((rate.begin(t) + i) % bits)];
          states.push_back(std::uint16_t(state));
        }
        std::vector<std::uint8_t> chunk(std::size_t(cycle.bytes(wanted) + 5), std::uint8_t(0xa5));
        kernel::pack_trellis(states, cycle, chunk);
        for (Index t = 0; t < n; ++t)
          REQUIRE(cycle.state(chunk.data(), t) == states[std::size_t(t)]);
        // As a file keeps it: the stream alone, which is closed again.
        auto closed = chunk;
        for (Index i = bits; i < Index(closed.size()) * 8; ++i)
          closed[std::size_t(i / 8)] &= std::uint8_t(~(0x80 >> (i % 8)));
        cycle.close(closed, wanted);
        CHECK(closed == chunk);
        for (Index i = 0; i < Index(chunk.size()) * 8; ++i) {
          const int bit = chunk[std::size_t(i / 8)] >> (7 - i % 8) & 1;
          REQUIRE(bit == (i < bits + window - 1 ? stream[std::size_t(i % bits)] : 0));
        }
      }
}
