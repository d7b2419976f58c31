#include "cafeq/core/rng.hpp"

#include <set>

#include "support/catch.hpp"

using namespace cafeq;

namespace {

/// The four words of a Philox4x32-10 block for the counter c0..c3 and the key k0, k1.
std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                    std::array<std::uint32_t, 2> key) {
  const auto wide = [](std::uint32_t low, std::uint32_t high) {
    return std::uint64_t(high) << 32 | low;
  };
  return CounterRng(wide(key[0], key[1]), wide(counter[2], counter[3]))
      .block(wide(counter[0], counter[1]));
}

}  // namespace

// Known answers published with Random123 by the authors of the generator.
TEST_CASE("Philox4x32-10 gives the published answers", "[core][rng]") {
  using Words = std::array<std::uint32_t, 4>;
  CHECK(philox({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}) ==
        Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("seed, stream and position each change the numbers, and nothing else does",
          "[core][rng]") {
  std::set<std::uint64_t> seen;
  for (std::uint64_t seed = 0; seed < 4; ++seed)
    for (std::uint64_t stream = 0; stream < 4; ++stream)
      for (std::uint64_t position = 0; position < 4; ++position)
        seen.insert(CounterRng(seed, stream).bits(position));
  CHECK(seen.size() == 64);
  const CounterRng rng(5, 6);
  const auto later = rng.bits(1000);
  (void)rng.bits(3);
  CHECK(rng.bits(1000) == later);
  CHECK(CounterRng(5, 6).bits(1000) == later);
}

TEST_CASE("uniform numbers have the moments of the uniform distribution", "[core][rng]") {
  const CounterRng rng(1);
  constexpr int n = 1 << 18;
  double mean = 0, square = 0, product = 0, before = 0.5;
  for (int i = 0; i < n; ++i) {
    const double u = rng.uniform(std::uint64_t(i));
    REQUIRE((u > 0 && u < 1));
    mean += u;
    square += (u - 0.5) * (u - 0.5);
    product += (u - 0.5) * (before - 0.5);
    before = u;
  }
  // Bounds of five standard deviations.
  const double root_n = std::sqrt(double(n));
  CHECK(std::abs(mean / n - 0.5) < 5 * std::sqrt(1.0 / 12) / root_n);
  CHECK(std::abs(square / n - 1.0 / 12) < 5 * std::sqrt(1.0 / 180) / root_n);
  CHECK(std::abs(product / n) < 5 * (1.0 / 12) / root_n);
}

TEST_CASE("normal numbers have the moments and the tails of the normal distribution",
          "[core][rng]") {
  const CounterRng rng(2);
  constexpr int n = 1 << 18;
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0;
  int beyond_two = 0;
  for (int i = 0; i < n; ++i) {
    const double z = rng.normal(std::uint64_t(i));
    m1 += z;
    m2 += z * z;
    m3 += z * z * z;
    m4 += z * z * z * z;
    beyond_two += std::abs(z) > 2;
  }
  const double root_n = std::sqrt(double(n));
  CHECK(std::abs(m1 / n) < 5 * 1.0 / root_n);
  CHECK(std::abs(m2 / n - 1) < 5 * std::sqrt(2.0) / root_n);
  CHECK(std::abs(m3 / n) < 5 * std::sqrt(15.0) / root_n);
  CHECK(std::abs(m4 / n - 3) < 5 * std::sqrt(96.0) / root_n);
  const double p = 0.04550026389635842;  // P(|z| > 2)
  CHECK(std::abs(double(beyond_two) / n - p) < 5 * std::sqrt(p * (1 - p)) / root_n);
}

TEST_CASE("a normal number comes from the two uniforms of its block", "[core][rng]") {
  const CounterRng rng(2);
  for (std::uint64_t position = 0; position < 100; ++position) {
    const auto b = rng.block(position);
    const double angle = 2 * std::numbers::pi * (double(b[3]) + double(b[2]) * 0x1p-32) * 0x1p-32;
    CHECK(rng.normal(position) ==
          Approx(std::sqrt(-2 * std::log(rng.uniform(position))) * std::cos(angle)).margin(1e-9));
  }
}

TEST_CASE("below covers its range evenly and never reaches its end", "[core][rng]") {
  const CounterRng rng(3);
  std::array<int, 7> counts{};
  constexpr int n = 70000;
  for (int i = 0; i < n; ++i) {
    const std::uint64_t k = rng.below(std::uint64_t(i), 7);
    REQUIRE(k < 7);
    ++counts[std::size_t(k)];
  }
  for (const int count : counts) CHECK(std::abs(count - n / 7) < 5 * std::sqrt(n / 7.0 * 6 / 7));
  CHECK(rng.below(0, 1) == 0);
}

TEST_CASE("signs are fair, and each is a bit of a block", "[core][rng]") {
  const CounterRng rng(4);
  constexpr int n = 1 << 16;
  int sum = 0;
  for (int i = 0; i < n; ++i) {
    const float s = rng.sign(std::uint64_t(i));
    REQUIRE((s == 1.0f || s == -1.0f));
    sum += int(s);
  }
  CHECK(std::abs(sum) < 5 * 256);
  const auto block = rng.block(1);
  for (int i = 0; i < 128; ++i)
    CHECK((rng.sign(std::uint64_t(128 + i)) < 0) ==
          (((block[std::size_t(i / 32)] >> (i % 32)) & 1u) == 1u));
}

TEST_CASE("stream_of is 64-bit FNV-1a", "[core][rng]") {
  static_assert(stream_of("") == 0xcbf29ce484222325u);
  static_assert(stream_of("a") == 0xaf63dc4c8601ec8cu);
  static_assert(stream_of("foobar") == 0x85944171f73967e8u);
  CHECK(stream_of("model.layers.0.wq") != stream_of("model.layers.1.wq"));
}
