#include "cafeq/core/packed.hpp"

#include "support/error_of.hpp"
#include "support/random.hpp"

using namespace cafeq;
using test::error_of;

namespace {

std::vector<std::uint8_t> random_codes(Index n, int bits, std::uint64_t seed) {
  const CounterRng rng(seed);
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < codes.size(); ++i)
    codes[i] = std::uint8_t(rng.bits(i) & ((1u << bits) - 1));
  return codes;
}

}  // namespace

TEST_CASE("codes take consecutive bits, least significant first", "[core][packed]") {
  const std::vector<std::uint8_t> codes{
      1, 7, 0, 5, 2, 3};  // 3 bits each: 001 111 000 101 010 011 from the lowest up
  std::vector<std::uint8_t> packed(3, 0xff);
  pack_codes(codes, 3, packed);
  CHECK(packed == std::vector<std::uint8_t>{0b00'111'001, 0b1'010'101'0, 0b000000'01});

  std::vector<std::uint8_t> nibbles(2);
  pack_codes(std::vector<std::uint8_t>{0xA, 0x3, 0x7}, 4, nibbles);
  CHECK(nibbles == std::vector<std::uint8_t>{0x3A, 0x07});

  std::vector<std::uint8_t> signs(2);
  pack_codes(std::vector<std::uint8_t>{1, 0, 0, 0, 0, 0, 0, 1, 1}, 1, signs);
  CHECK(signs == std::vector<std::uint8_t>{0x81, 0x01});

  std::vector<std::uint8_t> bytes(2);
  pack_codes(std::vector<std::uint8_t>{0xfe, 0x01}, 8, bytes);
  CHECK(bytes == std::vector<std::uint8_t>{0xfe, 0x01});
}

TEST_CASE("unpacking undoes packing for every width and awkward sizes", "[core][packed]") {
  for (int bits = 1; bits <= 8; ++bits)
    for (const Index n : {0, 1, 2, 7, 8, 9, 17, 33, 129}) {
      CAPTURE(bits, n);
      const auto codes = random_codes(n, bits, std::uint64_t(bits));
      std::vector<std::uint8_t> packed(std::size_t(ceil_div(n * bits, 8)), 0xff);
      pack_codes(codes, bits, packed);
      if (const Index used = n * bits % 8; used != 0) CHECK(packed.back() >> used == 0);
      std::vector<std::uint8_t> unpacked(codes.size(), 0xff);
      unpack_codes(packed, bits, unpacked);
      CHECK(unpacked == codes);
    }
}

TEST_CASE("each row of packed codes starts at a byte", "[core][packed]") {
  for (int bits = 1; bits <= 8; ++bits) {
    CAPTURE(bits);
    constexpr Index rows = 5, cols = 13;
    PackedCodes packed(rows, cols, bits);
    CHECK(packed.rows() == rows);
    CHECK(packed.cols() == cols);
    CHECK(packed.bits() == bits);
    CHECK(packed.row_bytes() == ceil_div(cols * bits, 8));
    CHECK(Index(packed.bytes().size()) == rows * packed.row_bytes());
    CHECK(reinterpret_cast<std::uintptr_t>(packed.bytes().data()) % alignment == 0);
    for (const std::uint8_t byte : packed.bytes()) CHECK(byte == 0);
    for (const Index i : {4, 0, 2, 1, 3})
      packed.pack_row(i, random_codes(cols, bits, std::uint64_t(i)));
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(cols));
    for (Index i = 0; i < rows; ++i) {
      packed.unpack_row(i, codes);
      CHECK(codes == random_codes(cols, bits, std::uint64_t(i)));
      CHECK(std::as_const(packed).row(i).data() == packed.bytes().data() + i * packed.row_bytes());
    }
  }
}

TEST_CASE("packed codes may be empty", "[core][packed]") {
  CHECK(PackedCodes().bytes().empty());
  CHECK(PackedCodes(0, 5, 3).bytes().empty());
  CHECK(PackedCodes(5, 0, 3).bytes().empty());
}

TEST_CASE("packed codes have 1 to 8 bits", "[core][packed]") {
  for (const int bits : {-1, 0, 9}) {
    CAPTURE(bits);
    const Error error = error_of([&] { PackedCodes(3, 17, bits); });
    CHECK(error.code() == ErrorCode::invalid_argument);
    CHECK(error.message() == message("PackedCodes: bits is ", bits, ", must be 1 to 8"));
  }
}
