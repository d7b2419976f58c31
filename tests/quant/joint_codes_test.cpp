#include "cafeq/quant/joint_codes.hpp"

#include <algorithm>
#include <vector>

#include "cafeq/quant/joint_encoding.hpp"
#include "cafeq/trellis/trellis.hpp"
#include "pipeline/toy_joint.hpp"
#include "support/catch.hpp"
#include "support/error_of.hpp"
#include "support/random.hpp"

using namespace cafeq;
using Catch::Matchers::Contains;
using test::Rings;

static_assert(StoredCodes<Codes<Rings>>);

namespace {

template <class Q>
Codes<Q> joint_codes_of(const Matrix<float>& X, const Q& quantizer) {
  Encoding<Q> encoding(quantizer, X.rows(), X.cols());
  encoding.encode(X.view());
  return encoding.pack();
}

template <class Q>
void check_stored(const Q& quantizer) {
  const auto X = test::gaussian<float>(23, 37, 1);
  const Codes<Q> codes = joint_codes_of(X, quantizer);
  const std::vector<std::uint8_t> stored = codes.stored_chunks();
  CHECK(codes.storage_bits() ==
        8 * Index(stored.size()) +
            LineScales::storage_bits(quantizer.scale_bits, codes.chunks().lines()) +
            (quantizer.sequence == Sequence::scaled_column
                 ? LineScales::storage_bits(quantizer.scale_bits, 23)
                 : 0));
  CHECK(codes.storage_bits() == Codes<Q>::storage_bits(quantizer, 23, 37));

  const Codes<Q> again(quantizer, 23, 37, stored, codes.scales(), codes.row_scales());
  CHECK(again.stored_chunks() == stored);
  Matrix<float> a(23, 37), b(23, 37);
  codes.decode_rows(0, a.view());
  again.decode_rows(0, b.view());
  CHECK(std::equal(a.data(), a.data() + a.size(), b.data()));
}

}  // namespace

TEST_CASE("Chunks come back from what is stored of them") {
  for (const Sequence sequence :
       {Sequence::rows, Sequence::row, Sequence::column, Sequence::scaled_column}) {
    check_stored(Rings{.sequence = sequence});
    check_stored(Trellis{.rate = {37}, .scale_bits = 6, .window = 10, .sequence = sequence});
  }
}

TEST_CASE("Lines and rows of joint codes are the same weights, from anywhere") {
  const auto X = test::gaussian<float>(13, 30, 2);
  for (const Sequence sequence :
       {Sequence::rows, Sequence::row, Sequence::column, Sequence::scaled_column}) {
    const Codes<Rings> codes = joint_codes_of(X, Rings{.sequence = sequence});
    Matrix<float> all(13, 30);
    codes.decode_rows(0, all.view());
    const bool columns = along_columns(sequence);
    for (const Index first : {0, 1, 6}) {
      std::vector<float> line(4);
      codes.decode_line(5, first, line);
      for (Index k = 0; k < 4; ++k)
        REQUIRE(line[std::size_t(k)] == (columns ? all(first + k, 5) : all(5, first + k)));
    }
    for (const Index begin : {0, 4, 12}) {
      Matrix<float> part(13 - begin, 30), transposed(30, 13 - begin);
      codes.decode_rows(begin, part.view());
      codes.decode_rows(begin, transposed.view().transposed());
      for (Index i = begin; i < 13; ++i)
        for (Index j = 0; j < 30; ++j) {
          REQUIRE(part(i - begin, j) == all(i, j));
          REQUIRE(transposed(j, i - begin) == all(i, j));
        }
    }
  }
}

TEST_CASE("Joint codes whose parts contradict each other are refused") {
  const auto X = test::gaussian<float>(6, 20, 3);
  const Codes<Rings> codes = joint_codes_of(X, Rings{});
  auto stored = codes.stored_chunks();
  stored.pop_back();
  const Error short_chunks =
      test::error_of([&] { Codes<Rings>(Rings{}, 6, 20, stored, codes.scales()); });
  CHECK(short_chunks.code() == ErrorCode::corrupt);
  CHECK_THAT(short_chunks.message(), Contains("29 bytes of chunks, expected 30"));

  const LineScales few(8, std::vector<float>(5, 1.0f));
  const Error scales =
      test::error_of([&] { Codes<Rings>(Rings{}, 6, 20, codes.stored_chunks(), few); });
  CHECK(scales.code() == ErrorCode::corrupt);
  CHECK_THAT(scales.message(), Contains("5 scales for 6 sequences"));
  CHECK_THAT(test::error_of([] { Codes<Trellis>({.rate = {15}}, 6, 20); }).message(),
             Contains("rate is 15"));
}
