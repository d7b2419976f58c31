#include "cafeq/simd/bit_fields.hpp"

#include <array>
#include <vector>

#include "support/architectures.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using test::NarrowArch;

namespace {

std::vector<std::uint8_t> codes_of(int bits) {
  std::vector<std::uint8_t> codes(32);
  for (std::size_t i = 0; i < codes.size(); ++i)
    codes[i] = std::uint8_t((i * 37 + 11) & ((1u << bits) - 1));
  return codes;
}

}  // namespace

TEMPLATE_TEST_CASE("32 codes joined", "[simd]", DefaultArch, NarrowArch) {
  for (int bits = 1; bits < 8; ++bits) {
    CAPTURE(bits);
    const auto codes = codes_of(bits);
    std::vector<std::uint8_t> expected(std::size_t(4 * bits));
    pack_codes(codes, bits, expected);
    const simd::JoinCodes<TestType> join(bits);
    REQUIRE(join.writes() >= 4 * bits);
    std::vector<std::uint8_t> packed(std::size_t(join.writes()) + 1, 77);
    join.store(codes.data(), packed.data());
    CHECK(packed.back() == 77);
    packed.resize(expected.size());
    CHECK(packed == expected);
  }
}

TEMPLATE_TEST_CASE("eight codes separated and scaled", "[simd]", DefaultArch, NarrowArch) {
  for (int bits = 1; bits < 8; ++bits) {
    CAPTURE(bits);
    const auto codes = codes_of(bits);
    std::vector<std::uint8_t> packed(std::size_t(4 * bits + 8), 0xff);
    pack_codes(codes, bits, std::span(packed).first(std::size_t(4 * bits)));
    simd::SplitCodes<TestType> split(bits);
    split.set_scale(0.5f, -3.0f);
    for (int i = 0; i < 4; ++i) {
      std::array<float, 9> out;
      out[8] = 77;
      split.store(packed.data() + i * bits, out.data());
      CHECK(out[8] == 77);
      for (int k = 0; k < 8; ++k)
        CHECK(out[std::size_t(k)] == 0.5f * float(codes[std::size_t(8 * i + k)]) - 3.0f);
    }
  }
}
