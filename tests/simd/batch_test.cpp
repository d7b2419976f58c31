// Every branch against plain loops: the default architecture and, where it is another, the
// narrowest one.
#include "cafeq/simd/batch.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "support/architectures.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using test::NarrowArch;

namespace {

template <class Arch>
constexpr std::size_t width = Batch<float, Arch>::size;

template <class Arch>
std::array<float, width<Arch>> lanes(Batch<float, Arch> v) {
  std::array<float, width<Arch>> out;
  v.store_unaligned(out.data());
  return out;
}

/// Every half-precision number, and what lies between two of them, on both sides of the tie.
std::vector<float> around_halves() {
  std::vector<float> values;
  for (std::uint32_t h = 0; h < 0x10000; h += 7) {
    const float x = float(fp16::from_bits(std::uint16_t(h)));
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
    for (const std::uint32_t step : {0u, 1u, 0xfffu, 0x1000u, 0x1001u, 0x7fffu, 0x8000u, 0x8001u})
      values.push_back(std::bit_cast<float>(bits + step));
  }
  for (const float x : {0.0f, -0.0f, 65519.0f, 65520.0f, 1e30f, -1e30f, 3.4e38f, 0x1p-24f, 0x1p-25f,
                        0x1.8p-25f, 0x1p-149f})
    values.push_back(x);
  values.push_back(std::numeric_limits<float>::infinity());
  values.push_back(std::numeric_limits<float>::quiet_NaN());
  while (values.size() % 16 != 0) values.push_back(1.0f);
  return values;
}

bool same(float a, float b) {
  return std::isnan(a) ? std::isnan(b)
                       : std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
}

}  // namespace

#if defined(__FMA__) || defined(__aarch64__)
TEST_CASE("fma, fms and fnma round once", "[simd][batch]") {
  STATIC_REQUIRE(simd::has_fma<DefaultArch>);
  const auto check = [](auto zero,
                        auto eps) {  // a² = 1 + 2 eps + eps², whose last term one rounding keeps
    using T = decltype(zero);
    using V = Batch<T>;
    const V a(T(1) + eps), square(T(1) + 2 * eps);
    std::array<T, V::size> fma, fms, fnma;
    simd::fma(a, a, -square).store_unaligned(fma.data());
    simd::fms(a, a, square).store_unaligned(fms.data());
    simd::fnma(a, a, square).store_unaligned(fnma.data());
    for (std::size_t l = 0; l < V::size; ++l) {
      CHECK(fma[l] == eps * eps);
      CHECK(fms[l] == eps * eps);
      CHECK(fnma[l] == -eps * eps);
    }
  };
  check(0.0f, 0x1p-12f);
  check(0.0, 0x1p-27);
}
#endif

TEMPLATE_TEST_CASE("reductions", "[simd][batch]", DefaultArch, NarrowArch) {
  constexpr std::size_t w = width<TestType>;
  using V = Batch<float, TestType>;
  std::array<float, w> x;
  for (std::size_t shift = 0; shift < w; ++shift) {
    for (std::size_t l = 0; l < w; ++l)
      x[(l + shift) % w] =
          std::ldexp(1.0f + 0.37f * float(l), int(3 * l)) * (l % 2 == 0 ? 1.0f : -1.0f);
    const V v = V::load_unaligned(x.data());
    std::array<float, w> tree = x;
    for (std::size_t half = w / 2; half > 0; half /= 2)
      for (std::size_t l = 0; l < half; ++l) tree[l] += tree[l + half];
    CHECK(simd::reduce_add(v) == tree[0]);
    CHECK(simd::reduce_min(v) == *std::min_element(x.begin(), x.end()));
    CHECK(simd::reduce_max(v) == *std::max_element(x.begin(), x.end()));
  }
  const Batch<double, TestType> two(1.5);
  CHECK(simd::reduce_add(two) == 1.5 * double(Batch<double, TestType>::size));
  CHECK(simd::reduce_max(two) == 1.5);
}

TEMPLATE_TEST_CASE("transpose", "[simd][batch]", DefaultArch, NarrowArch) {
  constexpr std::size_t w = width<TestType>;
  Batch<float, TestType> rows[w];
  std::array<float, w> line;
  for (std::size_t i = 0; i < w; ++i) {
    for (std::size_t j = 0; j < w; ++j) line[j] = float(100 * i + j);
    rows[i] = Batch<float, TestType>::load_unaligned(line.data());
  }
  simd::transpose<TestType>(rows);
  for (std::size_t i = 0; i < w; ++i) {
    line = lanes<TestType>(rows[i]);
    for (std::size_t j = 0; j < w; ++j) CHECK(line[j] == float(100 * j + i));
  }
}

TEMPLATE_TEST_CASE("bytes widen", "[simd][batch]", DefaultArch, NarrowArch) {
  constexpr std::size_t w = width<TestType>;
  std::array<std::uint8_t, 256> bytes;
  std::array<std::int8_t, 256> numbers;
  for (std::size_t i = 0; i < 256; ++i) numbers[i] = std::int8_t(bytes[i] = std::uint8_t(i * 37));
  for (std::size_t i = 0; i + w <= 256; ++i) {
    std::array<std::int32_t, w> wide;
    simd::load_int32<TestType>(bytes.data() + i).store_unaligned(wide.data());
    const auto unsigned_floats = lanes<TestType>(simd::load_float<TestType>(bytes.data() + i));
    bool right = true;
    for (std::size_t l = 0; l < w; ++l)
      right = right && wide[l] == bytes[i + l] && unsigned_floats[l] == float(bytes[i + l]);
    simd::load_int32<TestType>(numbers.data() + i).store_unaligned(wide.data());
    const auto signed_floats = lanes<TestType>(simd::load_float<TestType>(numbers.data() + i));
    for (std::size_t l = 0; l < w; ++l)
      right = right && wide[l] == numbers[i + l] && signed_floats[l] == float(numbers[i + l]);
    CHECK(right);
  }
}

TEMPLATE_TEST_CASE("half and brain floats", "[simd][batch]", DefaultArch, NarrowArch) {
  constexpr std::size_t w = width<TestType>;
  const std::vector<float> values = around_halves();
  const auto check = [&](auto zero) {
    using T = decltype(zero);
    std::size_t wrong = 0;
    std::array<T, w + 1> stored;  // one off, so that nothing is aligned
    for (std::size_t i = 0; i < values.size(); i += w) {
      simd::store_float<TestType>(stored.data() + 1,
                                  Batch<float, TestType>::load_unaligned(values.data() + i));
      const auto loaded = lanes<TestType>(simd::load_float<TestType>(stored.data() + 1));
      for (std::size_t l = 0; l < w; ++l) {
        const T expected(values[i + l]);
        wrong += !same(float(stored[l + 1]), float(expected)) || !same(loaded[l], float(expected));
      }
    }
    CHECK(wrong == 0);
  };
  check(fp16());
  check(bf16());
  check(0.0f);
  check(0.0);
}

namespace {

template <class Arch>
void check_rows_and_bits() {
  using V = Batch<float, Arch>;
  constexpr std::size_t size = width<Arch>;
  const std::array<float, 8> numbers{1.5f, -2.25f, 0.0f, -0.0f, 7e30f, -3e-20f, 2.5f, -1e9f};
  V row[size];
  float value[size][size];
  for (std::size_t i = 0; i < size; ++i) {
    for (std::size_t l = 0; l < size; ++l)
      value[i][l] = float((i * 31 + l * l * 17) % 23) * 0.37f - 3;
    row[i] = V::load_unaligned(value[i]);
  }
  const auto sums =
      lanes<Arch>(simd::reduce_rows<Arch>(row, [](const V& a, const V& b) { return a + b; }));
  const auto least = lanes<Arch>(
      simd::reduce_rows<Arch>(row, [](const V& a, const V& b) { return simd::min(a, b); }));
  for (std::size_t i = 0; i < size; ++i) {
    CHECK(sums[i] == simd::reduce_add(row[i]));
    CHECK(least[i] == *std::min_element(value[i], value[i] + size));
  }
  for (const float a : numbers)
    for (const float b : numbers) {
      const auto signed_bits = [](float v) { return std::bit_cast<std::int32_t>(v); };
      const auto unsigned_bits = [](float v) { return std::bit_cast<std::uint32_t>(v); };
      const auto first = [](V v) { return lanes<Arch>(v)[size - 1]; };
      CHECK(signed_bits(first(simd::max_signed_bits(V(a), V(b)))) ==
            std::max(signed_bits(a), signed_bits(b)));
      CHECK(signed_bits(first(simd::min_signed_bits(V(a), V(b)))) ==
            std::min(signed_bits(a), signed_bits(b)));
      CHECK(unsigned_bits(first(simd::max_unsigned_bits(V(a), V(b)))) ==
            std::max(unsigned_bits(a), unsigned_bits(b)));
      CHECK(first(simd::in_register(V(a))) == a);
    }
  for (const float v : {0.5f, 1.5f, -0.5f, -2.5f, 7.3f, -1e6f, 123456.5f}) {
    std::int32_t whole[size];
    simd::nearest_int32(V(v)).store_unaligned(whole);
    CHECK(whole[size - 1] == std::int32_t(std::nearbyint(v)));
  }
}

}  // namespace

TEST_CASE("rows reduced together, the order of bits, nearest integers") {
  check_rows_and_bits<DefaultArch>();
  check_rows_and_bits<NarrowArch>();
}

TEMPLATE_TEST_CASE("differences of products that cancel", "[simd][batch]", DefaultArch,
                   NarrowArch) {
  using V = Batch<float, TestType>;
  for (int i = 0; i < 1000; ++i) {
    const float x = 5.0f + 0.01f * float(i), y = 7.3f + 0.003f * float(i),
                z = x * y * (1 + float(i % 3) * 0x1p-22f);
    const float exact = std::fma(x, y, -z);
    for (const float lane : lanes<TestType>(simd::compensated_fms(V(x), V(y), V(z))))
      CHECK(std::abs(lane - exact) <= 0x1p-45f * x * y);
  }
}

namespace {

template <std::size_t H, class T, class Arch>
void check_exchange() {
  if constexpr (H < Batch<T, Arch>::size) {
    constexpr std::size_t size = Batch<T, Arch>::size;
    T from[size], to[size];
    for (std::size_t l = 0; l < size; ++l) from[l] = T(l + 1);
    simd::exchange_lanes<H>(Batch<T, Arch>::load_unaligned(from)).store_unaligned(to);
    for (std::size_t l = 0; l < size; ++l) CHECK(to[l] == from[l ^ H]);
    check_exchange<2 * H, T, Arch>();
  }
}

}  // namespace

TEMPLATE_TEST_CASE("lanes that change places", "[simd][batch]", DefaultArch, NarrowArch) {
  check_exchange<1, float, TestType>();
  check_exchange<1, double, TestType>();
}

TEMPLATE_TEST_CASE("pairs joined and separated", "[simd][batch]", DefaultArch, NarrowArch) {
  using V = Batch<float, TestType>;
  constexpr std::size_t size = V::size;
  float even[size], odd[size], pairs[2 * size];
  for (std::size_t l = 0; l < size; ++l) {
    even[l] = float(2 * l);
    odd[l] = float(2 * l + 1);
  }
  const auto [a, b] = simd::zip(V::load_unaligned(even), V::load_unaligned(odd));
  a.store_unaligned(pairs);
  b.store_unaligned(pairs + size);
  for (std::size_t i = 0; i < 2 * size; ++i) CHECK(pairs[i] == float(i));
  const auto [c, d] = simd::unzip(a, b);
  CHECK(lanes<TestType>(c) == lanes<TestType>(V::load_unaligned(even)));
  CHECK(lanes<TestType>(d) == lanes<TestType>(V::load_unaligned(odd)));
}

TEST_CASE("whole numbers as bytes, floats as doubles") {
  using V = Batch<float>;
  using D = Batch<double>;
  constexpr Index w = Index(V::size), half = Index(D::size);
  for (int first = 0; first + int(w) <= 256; first += int(w)) {
    float value[w];
    for (Index l = 0; l < w; ++l) value[l] = float(first + int(l));
    std::uint8_t byte[w + 1];
    byte[w] = 77;
    simd::store_uint8(byte, V::load_unaligned(value));
    for (Index l = 0; l < w; ++l) REQUIRE(int(byte[l]) == first + int(l));
    REQUIRE(int(byte[w]) == 77);
    for (float& v : value) v = v * 0.1f - 3;
    const auto wide = simd::widen(V::load_unaligned(value));
    double out[w];
    wide.low.store_unaligned(out);
    wide.high.store_unaligned(out + half);
    for (Index l = 0; l < w; ++l) REQUIRE(out[l] == double(value[l]));
  }
}

TEMPLATE_TEST_CASE("integers of 24 bits, and tables", "[simd][batch]", DefaultArch, NarrowArch) {
  constexpr std::size_t w = width<TestType>;
  std::array<std::uint8_t, 3 * w> bytes;
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = std::uint8_t(i * 71 + 200);
  std::array<std::int32_t, w> words;
  simd::load_uint24<TestType>(bytes.data()).store_unaligned(words.data());
  for (std::size_t l = 0; l < w; ++l)
    CHECK(words[l] == (bytes[3 * l] | bytes[3 * l + 1] << 8 | bytes[3 * l + 2] << 16));

  alignas(64) std::array<float, 16> table, twice;
  for (std::size_t i = 0; i < 16; ++i) {
    table[i] = float(i) * 0.5f;
    twice[i] = float(i % 8);
  }
  using I = Batch<std::int32_t, TestType>;
  const I index = I::load_unaligned(words.data());
  const auto entries = lanes<TestType>(simd::look_up<4>(table.data(), index));
  const auto low_bits = lanes<TestType>(simd::look_up<3>(twice.data(), index));
  for (std::size_t l = 0; l < w; ++l) {
    CHECK(entries[l] == table[std::size_t(words[l] & 15)]);
    CHECK(low_bits[l] == twice[std::size_t(words[l] & 7)]);
  }
}
