#include "cafeq/trellis/row_product.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "support/allocations.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"
#include "trellis/chunk.hpp"

using namespace cafeq;
using kernel::TrellisActivations;
using kernel::TrellisDecoder;
using test::PlainTrellisOps, test::PortableTrellisOps, test::TrellisChunk;

namespace {

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

TEMPLATE_TEST_CASE("rows of a trellis chunk times activations equal the sums in double",
                   "[kernel][trellis_row_product]", std::int16_t, std::int8_t) {
  for (const int window : {14, 12, 10})
    for (const int s : {32, 34, 39, 48, 53, 64, 80})
      for (const Index cols : {1, 7, 16, 17, 48, 64, 129, 172, 256, 1000}) {
        const TrellisChunk chunk(11 * cols, s, window);
        check_trellis_product<TestType>(chunk, 0, 11, test::gaussian<float>(1, cols, 5));
        check_trellis_product<TestType>(chunk, 3 * cols, 8, test::gaussian<float>(3, cols, 6));
      }
}

TEMPLATE_TEST_CASE("rows that begin anywhere", "[kernel][trellis_row_product]", std::int16_t,
                   std::int8_t) {
  const TrellisChunk chunk(700, 37, 12);
  for (const Index cols : {1, 15, 64, 100})
    for (Index first = 0; first <= 40; ++first)
      check_trellis_product<TestType>(chunk, first, 3, test::gaussian<float>(2, cols, 8), 1);
}

TEMPLATE_TEST_CASE("the largest levels and activations overflow no sum",
                   "[kernel][trellis_row_product]", std::int16_t, std::int8_t) {
  const Index cols = 70000;
  for (const float sign : {1.0f, -1.0f})
    for (const int s : test::sweep({32, 48, 64}, {48}))
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

TEMPLATE_TEST_CASE("vectors are multiplied as if each were alone", "[kernel][trellis_row_product]",
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

TEST_CASE("int16 products are the same in plain loops", "[kernel][trellis_row_product]") {
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
                   "[kernel][trellis_row_product]", std::int16_t, std::int8_t) {
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

TEST_CASE("products of trellis rows allocate nothing", "[kernel][trellis_row_product]") {
  const TrellisChunk chunk(1024, 36, 12);
  const TrellisDecoder<> decoder(chunk.code, chunk.rate);
  const Matrix<float> X = test::gaussian<float>(3, 256, 4);
  const TrellisActivations<std::int16_t> x(X.view());
  const std::vector<float> scales{1, 2, 3, 4};
  Matrix<float> Y(3, 4);
  const auto before = test::allocation_count();
  kernel::multiply_trellis_rows(decoder, chunk.bytes.data(), 0, scales, x, Y.view());
  REQUIRE(test::allocation_count() == before);
}
