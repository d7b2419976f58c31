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
  detail::ChunkEncoder encoder(quantizer);
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

TEST_CASE("A Gaussian is coded as well as the design says") {
  if (test::sanitized) {
    WARN("left out: takes minutes under a sanitizer");
    return;
  }
  const auto X = test::gaussian<float>(64, 512, 11);
  double before = 1;
  for (const auto& [sixteenths, most] : {std::pair{16, .2750},
                                         {20, .1980},
                                         {24, .1420},
                                         {31, .0790},
                                         {32, .0700},
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
  detail::ChunkEncoder encoder(Trellis{});
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
  detail::ChunkEncoder encoder(quantizer);
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
  CHECK_THAT(fault_of(Trellis{.rate = {15}}, 8, 8)->message(), Contains("rate is 15 sixteenths"));
  CHECK_THAT(fault_of(Trellis{.rate = {81}}, 8, 8)->message(), Contains("rate is 81"));
  CHECK_THAT(fault_of(Trellis{.scale_bits = 9}, 8, 8)->message(), Contains("scale_bits is 9"));
  CHECK_THAT(fault_of(Trellis{.window = 11}, 8, 8)->message(), Contains("window is 11"));
  CHECK_FALSE(fault_of(Trellis{}, 8, 8));
}
