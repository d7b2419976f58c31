#include "cafeq/trellis/decode.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "support/allocations.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/golden.hpp"
#include "trellis/chunk.hpp"

using namespace cafeq;
using kernel::TrellisDecoder;
using test::PlainTrellisOps, test::PortableTrellisOps, test::TrellisChunk;

namespace {

/// Levels [first, first + n), each compared with the meaning of the code. Neither neighbour of
/// `out` may be touched.
template <class Decoder>
bool trellis_levels_agree(const Decoder& decoder, const TrellisChunk& chunk, Index first, Index n) {
  std::vector<std::int8_t> out(std::size_t(n) + 2, std::int8_t(-128));
  decoder.levels(chunk.bytes.data(), first, std::span(out).subspan(1, std::size_t(n)));
  bool same = out.front() == -128 && out.back() == -128;
  for (Index i = 0; i < n; ++i) same = same && out[std::size_t(i + 1)] == chunk.level(first + i);
  return same;
}

}  // namespace

TEST_CASE("golden streams decode to their levels", "[kernel][trellis_decode]") {
  const auto cases = test::golden("trellis.json").at("decode");
  REQUIRE(cases.size() == 9);
  for (const auto& c : cases) {
    const std::string hex = c.at("bits_hex");
    const auto expected = c.at("weights").get<std::vector<int>>();
    const int sixteenths = c.at("R")[0].get<int>() * 16 / c.at("R")[1].get<int>();
    TrellisChunk chunk(Index(expected.size()), sixteenths, 12);
    REQUIRE(ceil_div(chunk.bits, 8) * 2 == Index(hex.size()));
    chunk.fill([&](Index b) {
      return std::stoi(hex.substr(std::size_t(b / 4), 1), nullptr, 16) >> (3 - b % 4) & 1;
    });
    std::vector<std::int8_t> out(expected.size());
    TrellisDecoder<>(chunk.code, chunk.rate).levels(chunk.bytes.data(), 0, out);
    REQUIRE(std::equal(out.begin(), out.end(), expected.begin(), expected.end()));
  }
}

TEMPLATE_TEST_CASE("levels are those of the states, at every rate, from anywhere",
                   "[kernel][trellis_decode]", simd::ByteOps<DefaultArch>, PortableTrellisOps,
                   PlainTrellisOps) {
  for (const int window : {14, 12, 10})
    for (int s = TrellisRate::least; s <= TrellisRate::most; s += test::sanitized ? 5 : 1) {
      const TrellisChunk chunk(389, s, window, std::uint64_t(s));
      const TrellisDecoder<DefaultArch, TestType> decoder(chunk.code, chunk.rate);
      INFO("window " << window << " sixteenths " << s);
      REQUIRE(trellis_levels_agree(decoder, chunk, 0, chunk.n));
      for (Index first = 0; first <= 40; ++first)
        for (const Index n :
             {Index(0), Index(1), Index(7), Index(17), Index(33), Index(129), chunk.n - first})
          if (!trellis_levels_agree(decoder, chunk, first, n)) REQUIRE(first == n);
    }
}

TEST_CASE("every state of every code", "[kernel][trellis_decode]") {
  for (std::size_t c = 0; c < cafeq::detail::trellis_codes.size(); ++c) {
    const TrellisCode& code = cafeq::detail::trellis_codes[c];
    TrellisChunk chunk(20, 16 + 16 * int(c % 4), code.window);
    const Index begin = chunk.rate.begin(3);
    bool same = true;
    for (std::uint32_t state = 0; state < code.states(); ++state) {
      chunk.fill([&](Index b) {
        return b >= begin && b < begin + code.window
                   ? state >> (code.window - 1 - int(b - begin)) & 1
                   : 0;
      });
      std::int8_t level = 0;
      TrellisDecoder<>(code, chunk.rate).levels(chunk.bytes.data(), 3, {&level, 1});
      same = same && level == code.level(state);
    }
    REQUIRE(same);
  }
}

TEST_CASE("chunks shorter than a window", "[kernel][trellis_decode]") {
  for (const int window : {14, 12, 10})
    for (const int s : {32, 41, 80})
      for (Index n = 1; n <= 20; ++n) {
        const TrellisChunk chunk(n, s, window, std::uint64_t(n));
        for (Index first = 0; first < n; ++first)
          REQUIRE(trellis_levels_agree(TrellisDecoder<>(chunk.code, chunk.rate), chunk, first,
                                       n - first));
      }
}

TEMPLATE_TEST_CASE("weights are levels times unit and scale, rounded to their type",
                   "[kernel][trellis_decode]", float, fp16, bf16, double) {
  for (const int s : {32, 37, 51, 80}) {
    const TrellisChunk chunk(1500, s, 12);
    const TrellisDecoder<> decoder(chunk.code, chunk.rate);
    const float scale = 0.0371f, factor = chunk.code.unit * scale;
    REQUIRE(decoder.factor(scale) == factor);
    for (const Index first : {0, 1, 15, 16, 500})
      for (const Index n : {Index(0), Index(1), Index(7), Index(64), Index(172), Index(1000)}) {
        std::vector<TestType> out(static_cast<std::size_t>(n));
        decoder.decode(chunk.bytes.data(), first, scale, std::span(out));
        bool same = true;
        for (Index i = 0; i < n; ++i)
          same = same && float(out[std::size_t(i)]) ==
                             float(TestType(factor * float(chunk.level(first + i))));
        REQUIRE(same);
      }
  }
}

TEST_CASE("decoding a trellis allocates nothing", "[kernel][trellis_decode]") {
  const TrellisChunk chunk(1024, 36, 12);
  const TrellisDecoder<> decoder(chunk.code, chunk.rate);
  std::vector<float> weights(1024);
  std::vector<std::int8_t> levels(1024);
  const auto before = test::allocation_count();
  decoder.levels(chunk.bytes.data(), 0, levels);
  decoder.decode(chunk.bytes.data(), 0, 1.0f, std::span(weights));
  REQUIRE(test::allocation_count() == before);
}
