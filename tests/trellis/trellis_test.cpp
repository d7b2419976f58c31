#include "cafeq/trellis/trellis.hpp"

#include <cmath>
#include <numeric>

#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;
using Catch::Matchers::Contains;

namespace {

/// ‖X − X̂‖² / ‖X‖² of the whole way: chunks, least-squares scales, their codes.
double coded_error(const Matrix<float>& X, const Trellis& quantizer) {
  Codes<Trellis> codes(quantizer, X.rows(), X.cols());
  ChunkEncoder encoder(quantizer);
  std::vector<float> scales(static_cast<std::size_t>(X.rows()));
  for (Index c = 0; c < codes.chunks().count(); ++c) {
    const Index first = codes.chunks().first_line(c), n = codes.chunks().lines_of(c);
    encoder.encode(X.view().row_block(first, n), codes.chunk(c),
                   std::span(scales).subspan(std::size_t(first), std::size_t(n)));
  }
  codes.scales() = LineScales(quantizer.scale_bits, scales);
  double error = 0, norm = 0;
  std::vector<float> row(static_cast<std::size_t>(X.cols()));
  for (Index i = 0; i < X.rows(); ++i) {
    codes.decode_line(i, 0, row);
    for (Index j = 0; j < X.cols(); ++j) {
      error += std::pow(double(X(i, j)) - double(row[std::size_t(j)]), 2);
      norm += double(X(i, j)) * double(X(i, j));
    }
  }
  return error / norm;
}

}  // namespace

TEST_CASE("Chunks are whole rows, even, and cover the matrix") {
  for (const auto& [rows, cols] : {std::pair<Index, Index>{1, 1},
                                   {1, 20000},
                                   {7, 3},
                                   {64, 64},
                                   {100, 1000},
                                   {512, 512},
                                   {3, 5000},
                                   {4096, 17}}) {
    INFO(rows << " x " << cols);
    const Chunks chunks(Trellis{.rate = {35}}, rows, cols);
    REQUIRE(chunks.count() >= 1);
    REQUIRE(chunks.count() <= rows);
    CHECK(std::abs(double(chunks.count()) -
                   std::clamp(double(rows * cols) / 8192, 1.0, double(rows))) <= 0.5);
    Index covered = 0, bits = 0;
    for (Index c = 0; c < chunks.count(); ++c) {
      CHECK(chunks.first_line(c) == covered);
      CHECK(std::abs(double(chunks.lines_of(c)) - double(rows) / double(chunks.count())) < 1);
      for (Index i = covered; i < covered + chunks.lines_of(c); ++i)
        REQUIRE(chunks.chunk_of(i) == c);
      covered += chunks.lines_of(c);
      bits += 8 * ceil_div(std::max<Index>(chunks.lines_of(c) * cols * 35 / 16, 13),
                           Index(8));  // 6 weights are the least
    }
    CHECK(covered == rows);
    CHECK(chunks.storage_bits() == bits);
  }
}

TEST_CASE("Logarithmic scales are near, and zero stays zero") {
  for (const int bits : {8, 6})
    for (const double range : {0.0, 0.7, 3.7, 11.9}) {
      std::vector<float> values;
      for (int i = 0; i < 60; ++i) values.push_back(3.7f * float(std::exp(-range * i / 59)));
      values.push_back(0);
      const LineScales scales(bits, values);
      const double most = range / ((1 << bits) - 2) / 2;  // half a step
      for (std::size_t i = 0; i < 60; ++i)
        CHECK(std::abs(std::log(double(scales[Index(i)]) / double(values[i]))) <=
              most * 1.01 + 4e-3);
      CHECK(scales[60] == 0);
    }
  const LineScales far(
      6, std::vector<float>{
             1, 1e-20f, 4e-6f, 6e-6f,
             1e-5f});  // what is too small for the longest range counts as the least scale, or as 0
  CHECK(far[0] == Approx(1.0));
  CHECK(far[1] == 0);
  CHECK(far[2] == 0);
  CHECK(double(far[3]) == Approx(1e-5).epsilon(.02));
  CHECK(double(far[4]) == Approx(1e-5).epsilon(.02));
  CHECK(LineScales(8, std::vector<float>{0, 0})[1] == 0);
  CHECK(LineScales::storage_bits(6, 5) == 32 + 8 * 4);
}

TEST_CASE("A Gaussian is coded as well as the design says") {
  if (test::sanitized) {
    WARN("left out: takes minutes under a sanitizer");
    return;
  }
  const auto X = test::gaussian<float>(64, 512, 11);
  double before = 1;
  for (const auto& [sixteenths, most] : {std::pair{32, .0700},
                                         {35, .0550},
                                         {36, .0506},
                                         {48, .0180},
                                         {51, .0142},
                                         {64, .00475},
                                         {67, .00375},
                                         {80, .0016}}) {
    const double error = coded_error(X, {.rate = {sixteenths}});
    INFO(sixteenths << " sixteenths: " << error);
    CHECK(error < most);
    CHECK(error < before);
    before = error;
  }
  CHECK(coded_error(X, {.rate = {35}, .window = 10}) < .0570);
  CHECK(coded_error(X, {.rate = {35}, .scale_bits = 6}) < .0555);
  for (const auto& [sixteenths, most] : {std::pair{35, .0537}, {51, .0138}, {67, .00365}})
    CHECK(coded_error(X, {.rate = {sixteenths}, .window = 14}) < most);
}

TEST_CASE("Rows of very different size: no row is worse off than if it were dropped") {
  if (test::sanitized) {
    WARN("left out: takes minutes under a sanitizer");
    return;
  }
  for (const int scale_bits : {8, 6})
    for (const float factor : {1e2f, 1e4f, 1e7f}) {
      auto X = test::gaussian<float>(256, 64, 6);
      for (Index i = 0; i < X.rows(); i += 50)
        for (float& x : X.row(i)) x *= factor;
      const Trellis quantizer{.rate = {34}, .scale_bits = scale_bits};
      INFO(scale_bits << " bits, " << factor);
      CHECK(coded_error(X, quantizer) < .064);
      Encoding<Trellis> encoding(quantizer, X.rows(), X.cols());
      encoding.encode(X.view());
      std::vector<float> row(64);
      for (Index i = 0; i < X.rows(); ++i) {
        encoding.codes().decode_line(i, 0, row);
        double error = 0, norm = 0;
        for (Index j = 0; j < 64; ++j) {
          error += std::pow(double(X(i, j)) - double(row[std::size_t(j)]), 2);
          norm += double(X(i, j)) * double(X(i, j));
        }
        CHECK(error <= norm * 1.0001);
      }
    }
}

TEST_CASE("Rows of any scale, and of zeros, in one chunk") {
  auto X = test::gaussian<float>(24, 172, 3);
  for (Index i = 0; i < X.rows(); ++i)
    for (float& x : X.row(i)) x *= i % 5 == 0 ? 0.0f : float(std::exp(-0.2 * double(i)));
  for (const int sixteenths : {33, 50, 67})
    CHECK(coded_error(X, {.rate = {sixteenths}}) < 0.085 * std::exp2(-2 * (sixteenths / 16.0 - 2)));
  ChunkEncoder encoder(Trellis{});
  Codes<Trellis> codes({}, 1, 40);
  std::vector<float> scale{7};
  const Matrix<float> zeros(1, 40);
  encoder.encode(zeros.view(), codes.chunk(0), scale);
  CHECK(scale[0] == 0);
}

TEST_CASE("Scales refitted to the codes are no worse than the root mean square") {
  const auto X = test::heavy_tailed(40, 200, 9, 0, 1000);
  const Trellis quantizer{.rate = {33}};
  Codes<Trellis> codes(quantizer, X.rows(), X.cols());
  ChunkEncoder encoder(quantizer);
  std::vector<float> scales(40);
  REQUIRE(codes.chunks().count() == 1);
  encoder.encode(X.view(), codes.chunk(0), scales);
  for (Index i = 0; i < X.rows(); ++i) {
    std::vector<std::int8_t> levels(200);
    codes.decoder().levels(codes.chunk(0).data(), i * 200, levels);
    double squares = 0;
    for (const float x : X.row(i)) squares += double(x) * double(x);
    const auto error = [&](double scale) {
      double sum = 0;
      for (Index j = 0; j < X.cols(); ++j)
        sum += std::pow(
            double(X(i, j)) - scale * double(quantizer.code().unit) * levels[std::size_t(j)], 2);
      return sum;
    };
    const double best = double(scales[std::size_t(i)]);
    CHECK(error(best) <= error(std::sqrt(squares / 200)) * 1.000001);
    CHECK(error(best) <= error(best * 1.01));
    CHECK(error(best) <= error(best * 0.99));
  }
}

TEST_CASE("A trellis says what is wrong with it") {
  CHECK_THAT(fault_of(Trellis{.rate = {31}}, 8, 8)->message(), Contains("rate is 31 sixteenths"));
  CHECK_THAT(fault_of(Trellis{.rate = {81}}, 8, 8)->message(), Contains("rate is 81"));
  CHECK_THAT(fault_of(Trellis{.scale_bits = 7}, 8, 8)->message(), Contains("scale_bits is 7"));
  CHECK_THAT(fault_of(Trellis{.window = 11}, 8, 8)->message(), Contains("window is 11"));
  CHECK_FALSE(fault_of(Trellis{}, 8, 8));
}

TEST_CASE("Codes are centred, ascending and made for weights of variance one") {
  for (const TrellisCode& code : trellis_codes) {
    double squares = 0, sum = 0;
    for (std::uint32_t s = 0; s < code.states(); ++s) {
      sum += code.level(s);
      squares += double(code.level(s)) * code.level(s);
    }
    const double variance = squares / code.states() * double(code.unit) * double(code.unit);
    CHECK(variance > 1.05);  // large levels are there, but chosen less often
    CHECK(variance < 1.3);
    CHECK(std::abs(sum) / code.states() < 2);
    CHECK(std::is_sorted(code.magnitudes.begin(), code.magnitudes.begin() + code.levels));
  }
}
