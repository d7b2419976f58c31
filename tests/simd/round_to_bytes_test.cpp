#include "cafeq/simd/round_to_bytes.hpp"

#include <array>
#include <limits>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

namespace {

/// The default architecture's bytes are those of plain loops, which are those of the definition.
template <bool Shifted, bool Down>
void check_bytes(int raise, int top, float origin, float factor) {
  CAPTURE(Shifted, Down, raise, top, origin, factor);
  auto data = test::gaussian<float>(1, 65, 11, double(top) / 2);
  float* x = data.data() + 1;
  // (Times zero, infinity would be no number.)
  const float most = factor == 0 ? 3e38f : std::numeric_limits<float>::infinity();
  const std::vector<float> special{0.0f,  -0.0f,  0.5f,    1.5f,    -0.5f, 1e9f, -1e9f,
                                   1e30f, -1e30f, 0x1p30f, 0x1p31f, most,  -most};
  std::copy(special.begin(), special.end(), x + 20);

  simd::RoundToBytes<DefaultArch, Shifted, Down> fast(raise, top);
  simd::PortableRoundToBytes<DefaultArch, Shifted, Down> plain(raise, top);
  fast.measure(origin, factor);
  plain.measure(origin, factor);
  std::array<std::uint8_t, 33> bytes, expected;
  bytes[32] = expected[32] = 77;
  for (const int at : {0, 32}) {
    fast.store(x + at, bytes.data());
    plain.store(x + at, expected.data());
    CHECK(bytes == expected);
    for (int i = 0; i < 32; ++i) {
      const float v = x[at + i];
      const double u = double((Shifted ? v - origin : v) * factor);
      const double whole = (Down ? std::floor(u) : std::nearbyint(u)) + (Shifted ? 0 : raise);
      CHECK(double(expected[std::size_t(i)]) == std::min(std::max(whole, 0.0), double(top)));
    }
  }
  if (top > 15) return;
  fast.store_nibbles(x, bytes.data());
  plain.store_nibbles(x, expected.data());
  CHECK(bytes == expected);
  std::array<std::uint8_t, 64> separate;
  plain.store(x, separate.data());
  plain.store(x + 32, separate.data() + 32);
  for (std::size_t i = 0; i < 32; ++i)
    CHECK(int(expected[i]) == separate[2 * i] + 16 * separate[2 * i + 1]);
}

}  // namespace

TEST_CASE("floats rounded to bytes") {
  for (const int top : {1, 3, 15, 255})
    for (const float factor : {1.0f, 0.37f, 0.0f, -1.5f}) {
      check_bytes<true, false>(0, top, -0.75f, factor);
      check_bytes<false, false>(top / 2 + 1, top, 0, factor);
      check_bytes<false, true>(top / 2 + 1, top, 0, factor);
    }
}

TEST_CASE("what is no number becomes some byte in range") {
  const std::vector<float> x(32, std::numeric_limits<float>::quiet_NaN());
  std::array<std::uint8_t, 32> bytes;
  simd::RoundToBytes<DefaultArch, true, false> round(0, 5);
  round.measure(0.5f, 2.0f);
  round.store(x.data(), bytes.data());
  for (const int byte : bytes) CHECK(byte <= 5);
}
