#include "cafeq/quant/joint_encoding.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "cafeq/core/thread_pool.hpp"
#include "pipeline/toy_joint.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;
using test::Rings;

TEST_CASE(
    "A chunk's codes are searched for lines of unit size, and each scale is the best for them") {
  const auto X = test::gaussian<float>(5, 24, 1, 30);
  detail::ChunkEncoder<Rings> encoder(Rings{});
  std::vector<std::uint8_t> chunk(30);
  std::vector<float> scales(5);
  encoder.encode(X.view(), chunk, scales);
  for (Index i = 0; i < 5; ++i) {
    std::vector<float> levels(24);
    Rings::Decoder::levels(chunk.data(), i * 24, levels);
    const auto error = [&](double scale) {
      double sum = 0;
      for (Index j = 0; j < 24; ++j)
        sum += std::pow(double(X(i, j)) - scale * double(levels[std::size_t(j)]), 2);
      return sum;
    };
    const double best = double(scales[std::size_t(i)]);
    CHECK(best > 0);
    CHECK(error(best) <= error(best * 1.01));
    CHECK(error(best) <= error(best * 0.99));
  }
}

TEST_CASE("A joint encoding does not depend on threads or strides") {
  const auto X = test::gaussian<float>(70, 301, 2);  // some chunks
  const auto transposed = to_matrix<float>(X.view().transposed());
  for (const Sequence sequence :
       {Sequence::rows, Sequence::row, Sequence::column, Sequence::scaled_column}) {
    Encoding<Rings> expected({.sequence = sequence}, 70, 301);
    expected.encode(X.view());
    for (const Index threads : {1, 3}) {
      ThreadPool pool(threads);
      Encoding<Rings> other({.sequence = sequence}, 70, 301);
      other.encode(transposed.view().transposed(), pool);
      CHECK(other.codes().stored_chunks() == expected.codes().stored_chunks());
      Matrix<float> a(70, 301), b(70, 301);
      expected.decode(a.view());
      other.decode(b.view(), pool);
      CHECK(std::equal(a.data(), a.data() + a.size(), b.data()));
    }
  }
}

TEST_CASE("Lines that are sequences are encoded one by one as they are decoded") {
  const auto X = test::gaussian<float>(12, 40, 3);
  for (const Sequence sequence : {Sequence::row, Sequence::column, Sequence::scaled_column}) {
    Encoding<Rings> encoding({.sequence = sequence}, 12, 40);
    encoding.fit(X.view());
    const auto lines = to_matrix<float>(along_columns(sequence) ? X.view().transposed()
                                                                : View<const float>(X.view()));
    detail::ChunkEncoder<Rings> encoder(encoding.quantizer());
    std::vector<float> decoded(static_cast<std::size_t>(lines.cols())), again(decoded);
    double error = 0, norm = 0;
    for (Index l = 0; l < lines.rows(); ++l) {
      encoding.encode_line(l, lines.row(l), decoded, encoder);
      encoding.codes().decode_line(l, 0, again);
      REQUIRE(decoded == again);
      for (Index j = 0; j < lines.cols(); ++j) {
        error += std::pow(double(lines(l, j)) - double(decoded[std::size_t(j)]), 2);
        norm += double(lines(l, j)) * double(lines(l, j));
      }
    }
    CHECK(error < 0.2 * norm);
  }
}
