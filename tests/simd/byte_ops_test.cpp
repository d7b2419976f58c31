// The operations of the default architecture are those of plain loops.
#include "cafeq/simd/byte_ops.hpp"

#include <array>
#include <cmath>

#include "support/catch.hpp"

using namespace cafeq;

namespace {

using Ops = simd::ByteOps<DefaultArch>;
using Plain = simd::PortableByteOps<DefaultArch>;
using Bytes = std::array<std::uint8_t, 32>;

/// f(operations, load) for both; load makes a vector of bytes.
template <class F>
void check_same(const F& f) {
  const auto run = [&](auto ops) {
    using O = decltype(ops);
    Bytes out;
    O::store(out.data(), f(ops, [](const Bytes& bytes) { return O::load(bytes.data()); }));
    return out;
  };
  CHECK(run(Ops{}) == run(Plain{}));
}

Bytes scattered(unsigned seed, int mask = 0xff, int low = 0) {
  Bytes bytes;
  for (std::uint8_t& byte : bytes) {
    seed = seed * 1664525u + 1013904223u;
    byte = std::uint8_t((int(seed >> 24) & mask) + low);
  }
  return bytes;
}

}  // namespace

TEST_CASE("operations on 32 bytes") {
  for (unsigned seed = 1; seed < 30; ++seed) {
    const Bytes a = scattered(seed), b = scattered(seed + 100), sum = scattered(seed + 200);
    const Bytes seven = scattered(seed + 300, 0x7f), signs = scattered(seed + 400, 0x7f, -63);
    Bytes counts{};  // one below 32 for each lane of 32 bits
    for (std::size_t i = 0; i < 32; i += 4) counts[i] = std::uint8_t(a[i] & 31);
    Bytes small{};  // lanes of 16 bits that hold a signed byte
    for (std::size_t i = 0; i < 32; i += 2) {
      small[i] = a[i];
      small[i + 1] = a[i] & 0x80 ? 0xff : 0;
    }

    check_same([&](auto o, auto) { return o.load_half(a.data()); });
    check_same([&](auto o, auto in) { return o.add8(in(a), o.set8(int(seed))); });
    check_same([&](auto o, auto in) { return o.add8(in(a), o.set16(int(seed) * 999)); });
    check_same([&](auto o, auto in) { return o.add8(in(a), o.zero()); });
    check_same([&](auto o, auto in) { return o.shuffle(in(a), in(b)); });
    check_same([&](auto o, auto in) { return o.shift_left32(in(a), in(counts)); });
    check_same([&](auto o, auto in) { return o.shift_right32(in(a), in(counts)); });
    check_same([&](auto o, auto in) { return o.template shift_right16<5>(in(a)); });
    check_same([&](auto o, auto in) { return o.merge16(in(a), in(b)); });
    check_same([&](auto o, auto in) { return o.merge8(in(a), in(b)); });
    check_same([&](auto o, auto in) { return o.bit_and(in(a), in(b)); });
    check_same([&](auto o, auto in) { return o.bit_or(in(a), in(b)); });
    check_same([&](auto o, auto in) { return o.bit_xor(in(a), in(b)); });
    check_same([&](auto o, auto in) { return o.sub8(in(a), in(b)); });
    check_same([&](auto o, auto in) { return o.min8(in(a), in(b)); });
    check_same([&](auto o, auto in) { return o.sign8(in(signs), in(b)); });
    check_same([&](auto o, auto in) { return o.even8(in(a)); });
    check_same([&](auto o, auto in) { return o.odd8(in(a)); });
    check_same([&](auto o, auto in) { return o.narrow16(in(small), in(small)); });
    check_same([&](auto o, auto in) { return o.multiply16(in(a), in(b)); });
    check_same([&](auto o, auto in) { return o.add_products16(in(sum), in(small), in(small)); });
    check_same([&](auto o, auto in) { return o.add_products8(in(sum), in(seven), in(signs)); });
    CHECK(Ops::sum32(Ops::load(a.data())) == Plain::sum32(Plain::load(a.data())));

    const auto floats = [&](auto o) {
      return o.sum_floats(o.add_scaled32(o.zero_floats(), o.load(small.data()), 0.25f));
    };
    CHECK(floats(Ops{}) == Approx(floats(Plain{})));
  }
}
