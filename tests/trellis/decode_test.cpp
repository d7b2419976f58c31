#include "cafeq/trellis/decode.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "cafeq/trellis/row_product.hpp"
#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/golden.hpp"
#include "support/random.hpp"

using namespace cafeq;
using kernel::TrellisActivations;
using kernel::TrellisDecoder;

namespace {

/// n weights of one code, at random or all of one state, in a buffer of no byte too many, so that a
/// sanitizer sees loads past its end.
struct TrellisChunk {
  TrellisChunk(Index weights, int sixteenths, int window, std::uint64_t seed = 1)
      : n(weights),
        rate{sixteenths},
        code(trellis_code(rate, window)),
        bits(trellis_bits(n, rate, window)),
        bytes(std::size_t(trellis_chunk_bytes(bits, window))) {
    const CounterRng rng(seed, 7);
    fill([&](Index b) { return rng.bits(std::uint64_t(b)) & 1; });
  }
  template <class F>
  void fill(F&& bit) {
    std::fill(bytes.begin(), bytes.end(),
              std::uint8_t(0xa5));  // what the slack holds must not matter
    for (Index b = 0; b < bits + code.window - 1; ++b) {
      const std::uint8_t mask = std::uint8_t(0x80 >> (b & 7));
      std::uint8_t& byte = bytes[std::size_t(b >> 3)];
      byte = std::uint8_t(bit(b % bits) ? byte | mask : byte & ~mask);
    }
  }
  int level(Index t) const {
    return code.level(trellis_state(bytes.data(), rate.begin(t), code.window));
  }

  Index n;
  TrellisRate rate;
  const TrellisCode& code;
  Index bits;
  std::vector<std::uint8_t> bytes;
};

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

/// The shuffles of the fast kernel in plain loops, which by themselves decode one by one.
using PlainTrellisOps = simd::PortableByteOps<DefaultArch>;
struct PortableTrellisOps : PlainTrellisOps {
  static constexpr bool fast = true;
};

template <class T, class Decoder>
Matrix<float> trellis_product_of(const Decoder& decoder, const TrellisChunk& chunk, Index first,
                                 std::span<const float> scales, const TrellisActivations<T>& x) {
  Matrix<float> Y(x.count(), Index(scales.size()));
  kernel::multiply_trellis_rows(decoder, chunk.bytes.data(), first, scales, x, Y.view());
  return Y;
}

/// Within the bounds of the header, both from the rounded activations and from the exact ones.
template <class T>
void check_trellis_product(const TrellisChunk& chunk, Index first, Index rows,
                           const Matrix<float>& X, Index starts = 0) {
  const TrellisDecoder<> decoder(chunk.code, chunk.rate);
  const TrellisActivations<T> x(X.view(), starts);
  std::vector<float> scales;
  for (Index i = 0; i < rows; ++i) scales.push_back(0.25f + float(i % 5));
  const Matrix<float> Y = trellis_product_of(decoder, chunk, first, scales, x);
  for (Index n = 0; n < X.rows(); ++n)
    for (Index i = 0; i < rows; ++i) {
      const double factor = double(decoder.factor(scales[std::size_t(i)]));
      double rounded = 0, exact = 0, magnitude = 0, rounding = 0;
      const Index begin = first + i * X.cols(), shift = begin % 16;
      for (Index j = 0; j < X.cols(); ++j) {
        const double weight = factor * chunk.level(begin + j), value = double(x.value(n, j, shift));
        rounded += weight * value;
        exact += weight * double(X(n, j));
        magnitude += std::abs(weight * value);
        rounding += std::abs(weight) * double(x.step(n, j, shift)) * (x.is_wide ? 0.506 : 0.5001);
      }
      const double summing =
          x.is_wide ? 0x1p-23 * magnitude : (double(X.cols()) / 32 + 8) * 0x1p-24 * magnitude;
      INFO("cols " << X.cols() << " row " << i << " vector " << n << " sixteenths "
                   << chunk.rate.sixteenths);
      if (!(std::abs(double(Y(n, i)) - rounded) <= summing))
        REQUIRE(double(Y(n, i)) == Approx(rounded).margin(summing));
      if (!(std::abs(double(Y(n, i)) - exact) <= summing + rounding))
        REQUIRE(double(Y(n, i)) == Approx(exact).margin(summing + rounding));
    }
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
    for (int s = TrellisRate::least; s <= TrellisRate::most; ++s) {
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
  for (std::size_t c = 0; c < trellis_codes.size(); ++c) {
    const TrellisCode& code = trellis_codes[c];
    TrellisChunk chunk(20, 32 + 16 * int(c % 3), code.window);
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

TEMPLATE_TEST_CASE("rows of a trellis chunk times activations equal the sums in double",
                   "[kernel][trellis_decode]", std::int16_t, std::int8_t) {
  for (const int window : {14, 12, 10})
    for (const int s : {32, 34, 39, 48, 53, 64, 80})
      for (const Index cols : {1, 7, 16, 17, 48, 64, 129, 172, 256, 1000}) {
        const TrellisChunk chunk(11 * cols, s, window);
        check_trellis_product<TestType>(chunk, 0, 11, test::gaussian<float>(1, cols, 5));
        check_trellis_product<TestType>(chunk, 3 * cols, 8, test::gaussian<float>(3, cols, 6));
      }
}

TEMPLATE_TEST_CASE("rows that begin anywhere", "[kernel][trellis_decode]", std::int16_t,
                   std::int8_t) {
  const TrellisChunk chunk(700, 37, 12);
  for (const Index cols : {1, 15, 64, 100})
    for (Index first = 0; first <= 40; ++first)
      check_trellis_product<TestType>(chunk, first, 3, test::gaussian<float>(2, cols, 8), 1);
}

TEMPLATE_TEST_CASE("the largest levels and activations overflow no sum", "[kernel][trellis_decode]",
                   std::int16_t, std::int8_t) {
  const Index cols = 70000;
  for (const float sign : {1.0f, -1.0f})
    for (const int s : {32, 48, 64})
      for (const int window : {14, 12, 10}) {
        // A stream of zeros has one state, whose h is 0: the lowest level. No stream repeats the
        // highest one, so x changes its sign instead.
        TrellisChunk chunk(cols, s, window);
        chunk.fill([](Index) { return 0; });
        REQUIRE(chunk.level(cols / 2) == -127);
        Matrix<float> X(1, cols);
        std::fill_n(X.data(), X.size(), sign * 3.0f);
        check_trellis_product<TestType>(chunk, 0, 1, X);
        const TrellisDecoder<> decoder(chunk.code, chunk.rate);
        const float one = 1;
        const double expected =
            -127.0 * double(decoder.factor(1)) * double(sign) * 3.0 * double(cols);
        const float y = trellis_product_of(decoder, chunk, 0, {&one, 1},
                                           TrellisActivations<TestType>(X.view()))(0, 0);
        REQUIRE(double(y) == Approx(expected).epsilon(1e-4));
      }
}

TEMPLATE_TEST_CASE("vectors are multiplied as if each were alone", "[kernel][trellis_decode]",
                   std::int16_t, std::int8_t) {
  for (const Index cols : {33, 128, 1000})
    for (const int s : {35, 50}) {
      const TrellisChunk chunk(5 * cols, s, 12);
      const TrellisDecoder<> decoder(chunk.code, chunk.rate);
      const std::vector<float> scales{1, 2, 0.5f, 3, 0.1f};
      for (Index count = 1; count <= 17; ++count) {
        const Matrix<float> X = test::gaussian<float>(count, cols, 9);
        const Matrix<float> together =
            trellis_product_of(decoder, chunk, 0, scales, TrellisActivations<TestType>(X.view()));
        bool same = true;
        for (Index n = 0; n < count; ++n) {
          const Matrix<float> alone = trellis_product_of(
              decoder, chunk, 0, scales, TrellisActivations<TestType>(X.view().row_block(n, 1)));
          for (Index i = 0; i < 5; ++i) same = same && together(n, i) == alone(0, i);
        }
        // A row by itself, too.
        const Matrix<float> third =
            trellis_product_of(decoder, chunk, 2 * cols, std::span(scales).subspan(2, 1),
                               TrellisActivations<TestType>(X.view()));
        for (Index n = 0; n < count; ++n) same = same && third(n, 0) == together(n, 2);
        REQUIRE(same);
      }
    }
}

TEST_CASE("int16 products are the same in plain loops", "[kernel][trellis_decode]") {
  for (const Index cols : {40, 300})
    for (const int s : {33, 60}) {
      const TrellisChunk chunk(6 * cols, s, 10);
      const std::vector<float> scales{1, 2, 0.5f, 3, 0.1f, 7};
      const Matrix<float> X = test::gaussian<float>(3, cols, 9);
      const TrellisActivations<std::int16_t> x(X.view());
      const Matrix<float> fast =
          trellis_product_of(TrellisDecoder<>(chunk.code, chunk.rate), chunk, 0, scales, x);
      const Matrix<float> vectors = trellis_product_of(
          TrellisDecoder<DefaultArch, PortableTrellisOps>(chunk.code, chunk.rate), chunk, 0, scales,
          x);
      const Matrix<float> plain =
          trellis_product_of(TrellisDecoder<DefaultArch, PlainTrellisOps>(chunk.code, chunk.rate),
                             chunk, 0, scales, x);
      REQUIRE(std::equal(fast.data(), fast.data() + fast.size(), vectors.data()));
      REQUIRE(std::equal(fast.data(), fast.data() + fast.size(), plain.data()));
    }
}

TEMPLATE_TEST_CASE("trellis activations: strides, zeros, and what is not finite",
                   "[kernel][trellis_decode]", std::int16_t, std::int8_t) {
  const TrellisChunk chunk(300, 36, 12);
  const TrellisDecoder<> decoder(chunk.code, chunk.rate);
  const std::vector<float> scales{1, 2, 3};
  const Matrix<float> X = test::gaussian<float>(100, 2, 4);
  Matrix<float> transposed(2, 100);
  for (Index n = 0; n < 2; ++n)
    for (Index j = 0; j < 100; ++j) transposed(n, j) = X(j, n);
  const Matrix<float> a = trellis_product_of(decoder, chunk, 0, scales,
                                             TrellisActivations<TestType>(X.view().transposed()));
  const Matrix<float> b = trellis_product_of(decoder, chunk, 0, scales,
                                             TrellisActivations<TestType>(transposed.view()));
  REQUIRE(std::equal(a.data(), a.data() + a.size(), b.data()));

  Matrix<float> zero(1, 100);
  std::fill_n(zero.data(), 100, 0.0f);
  const Matrix<float> none =
      trellis_product_of(decoder, chunk, 0, scales, TrellisActivations<TestType>(zero.view()));
  REQUIRE(std::all_of(none.data(), none.data() + 3, [](float y) { return y == 0; }));
  for (const float bad : {INFINITY, NAN}) {
    zero(0, 70) = bad;
    const Matrix<float> y =
        trellis_product_of(decoder, chunk, 0, scales, TrellisActivations<TestType>(zero.view()));
    REQUIRE(std::all_of(y.data(), y.data() + 3, [](float v) { return std::isnan(v); }));
  }
}

TEST_CASE("trellis kernels allocate nothing", "[kernel][trellis_decode]") {
  const TrellisChunk chunk(1024, 36, 12);
  const TrellisDecoder<> decoder(chunk.code, chunk.rate);
  const Matrix<float> X = test::gaussian<float>(3, 256, 4);
  const TrellisActivations<std::int16_t> x(X.view());
  const std::vector<float> scales{1, 2, 3, 4};
  Matrix<float> Y(3, 4);
  std::vector<float> weights(1024);
  std::vector<std::int8_t> levels(1024);
  const auto before = test::allocation_count();
  decoder.levels(chunk.bytes.data(), 0, levels);
  decoder.decode(chunk.bytes.data(), 0, 1.0f, std::span(weights));
  kernel::multiply_trellis_rows(decoder, chunk.bytes.data(), 0, scales, x, Y.view());
  REQUIRE(test::allocation_count() == before);
}
