#include "cafeq/kernel/pack_codes.hpp"

#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

namespace {

std::vector<std::uint8_t> random_codes(Index n, int bits) {
  const CounterRng rng(std::uint64_t(bits) + 5);
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < codes.size(); ++i)
    codes[i] = std::uint8_t(rng.bits(i) & ((1u << bits) - 1));
  return codes;
}

}  // namespace

TEST_CASE("vectors pack as single codes do, at every width and length", "[kernel][pack]") {
  for (int bits = 1; bits <= 8; ++bits)
    for (const Index n : {0, 1, 7, 8, 17, 31, 32, 33, 64, 96, 129, 1000}) {
      CAPTURE(bits, n);
      const auto codes = random_codes(n, bits);
      std::vector<std::uint8_t> packed(std::size_t(ceil_div(n * bits, 8)) + 1, 0xa5),
          expected(packed.size() - 1);
      // Bit by bit: the meaning of the layout.
      for (Index b = 0; b < n * bits; ++b)
        expected[std::size_t(b / 8)] =
            std::uint8_t(expected[std::size_t(b / 8)] |
                         ((codes[std::size_t(b / bits)] >> (b % bits)) & 1) << (b % 8));
      kernel::pack(codes, bits, std::span(packed).first(expected.size()));
      CHECK(std::equal(expected.begin(), expected.end(), packed.begin()));
      CHECK(packed.back() == 0xa5);  // nothing is written past the end
      std::vector<std::uint8_t> by_core(expected.size());
      pack_codes(codes, bits, by_core);
      CHECK(by_core == expected);

      for (const Index width : {8, 24, 64, 1000}) {
        std::vector<float> values(codes.size() + 1, 7.0f), scale(126), start(126);
        for (std::size_t g = 0; g < scale.size(); ++g) {
          scale[g] = 0.25f * float(g + 1);
          start[g] = -3 + float(g);
        }
        kernel::decode_packed(expected, bits, width, scale.data(), start.data(),
                              std::span(values).first(codes.size()));
        bool agree = values.back() == 7;
        for (std::size_t i = 0; i < codes.size(); ++i)
          agree &= values[i] ==
                   scale[i / std::size_t(width)] * float(codes[i]) + start[i / std::size_t(width)];
        CHECK(agree);
      }
    }
}
