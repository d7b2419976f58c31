#include "cafeq/quant/chunks.hpp"

#include <algorithm>
#include <cmath>

#include "cafeq/trellis/trellis.hpp"
#include "pipeline/toy_joint.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using test::Rings;

namespace {

/// Of shape [rows, cols], the bits of n weights as given.
template <class Q, class BitsOf>
void check_chunks(const Q& quantizer, Index rows, Index cols, BitsOf&& bits_of) {
  INFO(Q::name << ", " << rows << " x " << cols);
  const Chunks chunks(quantizer, rows, cols);
  REQUIRE(chunks.count() >= 1);
  REQUIRE(chunks.count() <= rows);
  CHECK(std::abs(double(chunks.count()) -
                 std::clamp(double(rows * cols) / 8192, 1.0, double(rows))) <= 0.5);
  Index covered = 0, bits = 0;
  for (Index c = 0; c < chunks.count(); ++c) {
    CHECK(chunks.first_line(c) == covered);
    CHECK(std::abs(double(chunks.lines_of(c)) - double(rows) / double(chunks.count())) < 1);
    CHECK(chunks.weights_of(c) == chunks.lines_of(c) * cols);
    for (Index i = covered; i < covered + chunks.lines_of(c); ++i) REQUIRE(chunks.chunk_of(i) == c);
    covered += chunks.lines_of(c);
    const Index bytes = ceil_div(bits_of(chunks.lines_of(c) * cols), Index(8));
    CHECK(chunks.stored_bytes(c) == bytes);
    CHECK(chunks.bytes(c) >= bytes);
    bits += 8 * bytes;
  }
  CHECK(covered == rows);
  CHECK(chunks.storage_bits() == bits);
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
    // 6 weights are the least of a window of 12 bits.
    check_chunks(Trellis{.rate = {35}}, rows, cols,
                 [](Index n) { return std::max<Index>(n * 35 / 16, 13); });
    check_chunks(Rings{}, rows, cols, [](Index n) { return 4 * ceil_div(n, Index(2)); });
  }
}

TEST_CASE("Where each line is a sequence there is a chunk a line") {
  const Chunks rows(Rings{.sequence = Sequence::row}, 40, 300);
  CHECK(rows.count() == 40);
  CHECK(rows.lines() == 40);
  CHECK(rows.length() == 300);
  const Chunks columns(Rings{.sequence = Sequence::column}, 40, 300);
  CHECK(columns.count() == 300);
  CHECK(columns.lines() == 300);
  CHECK(columns.length() == 40);
  for (Index j = 0; j < 300; ++j) {
    REQUIRE(columns.chunk_of(j) == j);
    REQUIRE(columns.lines_of(j) == 1);
  }
  CHECK(rows.storage_bits() == 40 * 2 * 300);
}

TEST_CASE("A matrix without rows has no chunks") {
  for (const Sequence sequence : {Sequence::rows, Sequence::row}) {
    const Chunks chunks(Rings{.sequence = sequence}, 0, 5);
    CHECK(chunks.count() == 0);
    CHECK(chunks.storage_bits() == 0);
  }
}
