// Every branch against plain loops: the default architecture and those within it whose vectors are
// narrower.
#include "cafeq/simd/words16.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "support/catch.hpp"

using namespace cafeq;

namespace {

template <class T, class Arch>
std::array<T, Batch<T, Arch>::size> words_of(Batch<T, Arch> v) {
  std::array<T, Batch<T, Arch>::size> out;
  v.store_unaligned(out.data());
  return out;
}

/// Words of all sizes, equal ones among them.
std::vector<std::uint16_t> some_words(std::size_t count) {
  std::vector<std::uint16_t> words;
  for (std::size_t i = 0; i < count; ++i)
    words.push_back(std::uint16_t(i % 5 == 0 ? 0xffff - i % 3 : i % 7 == 0 ? 3 : i * 40503u));
  return words;
}

template <int Shift, class Arch>
void check_repeated(const std::vector<std::uint16_t>& words) {
  for (std::size_t at = 0; at < 9; ++at) {
    const auto lanes =
        words_of<std::uint16_t, Arch>(simd::load_repeated<Shift, Arch>(words.data() + at));
    for (std::size_t l = 0; l < lanes.size(); ++l) REQUIRE(lanes[l] == words[at + (l >> Shift)]);
  }
}

template <class Arch>
void check_words() {
  constexpr std::size_t size = simd::Words<Arch>::size;
  const auto words = some_words(1200);
  check_repeated<1, Arch>(words);
  check_repeated<2, Arch>(words);
  check_repeated<3, Arch>(words);
  check_repeated<4, Arch>(words);
  check_repeated<5, Arch>(words);
  // Reads no word beyond those: the last words of a vector of its own, which the address sanitizer
  // watches.
  const std::vector<std::uint16_t> last(
      words.begin(), words.begin() + std::ptrdiff_t(std::max<std::size_t>(1, size / 4)));
  CHECK(words_of<std::uint16_t, Arch>(simd::load_repeated<2, Arch>(last.data()))[size - 1] ==
        last.back());

  for (std::size_t at = 0; at + 2 * size < words.size(); at += 3) {
    const auto a = simd::Words<Arch>::load_unaligned(words.data() + at),
               b = simd::Words<Arch>::load_unaligned(words.data() + at + size);
    const auto smaller = words_of<std::uint16_t, Arch>(simd::min_words<Arch>(a, b));
    std::array<std::int16_t, size> signed_words;
    for (std::size_t l = 0; l < size; ++l) signed_words[l] = std::int16_t(words[at + l]);
    const auto squares = words_of<std::uint16_t, Arch>(
        simd::square_high<Arch>(simd::SignedWords<Arch>::load_unaligned(signed_words.data())));
    for (std::size_t l = 0; l < size; ++l) {
      REQUIRE(smaller[l] == std::min(words[at + l], words[at + size + l]));
      REQUIRE(int(squares[l]) == signed_words[l] * signed_words[l] >> 16);
    }
    const auto first = words.begin() + std::ptrdiff_t(at);
    const auto least = std::min_element(first, first + std::ptrdiff_t(size));
    CHECK(simd::smallest_word<Arch>(a) == *least);
    const auto [value, lane] = simd::smallest_lane<Arch>(a);
    CHECK(value == *least);
    CHECK(lane == std::uint32_t(least - first));
  }
  for (const std::ptrdiff_t stride : {1, 2, 16, 33}) {
    const auto lanes =
        words_of<std::uint16_t, Arch>(simd::load_strided<Arch>(words.data() + 1, stride));
    for (std::size_t l = 0; l < size; ++l) REQUIRE(lanes[l] == words[1 + l * std::size_t(stride)]);
  }
}

}  // namespace

TEST_CASE("batches of 16-bit words", "[simd][words16]") {
  check_words<DefaultArch>();
  check_words<simd::few_words<DefaultArch, 8>>();
  check_words<simd::few_words<DefaultArch, 16>>();
#if defined(__SSE2__)
  check_words<xsimd::sse2>();
#endif
}
