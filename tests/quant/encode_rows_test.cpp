#include "cafeq/quant/encode_rows.hpp"

#include <algorithm>
#include <vector>

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/quant/affine.hpp"
#include "cafeq/quant/codebook.hpp"
#include "pipeline/toy_joint.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/toy_quantizer.hpp"

using namespace cafeq;
using test::Rings;

namespace {

/// detail::encode_rows() against an Encoding of the whole matrix, weight by weight.
template <class Q>
void check_encoded_rows(const Q& quantizer, Index rows, Index cols) {
  const auto X = test::gaussian<float>(rows, cols, 5, 100);
  Encoding<Q> encoding(quantizer, rows, cols);
  encoding.fit(X.view());
  encoding.encode(X.view());
  Matrix<float> expected(rows, cols), found(rows, cols);
  encoding.decode(expected.view());
  const auto read = [&](Index first, View<float> panel) {
    copy(X.view().row_block(first, panel.rows), panel);
  };
  for (const Index threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    const Codes<Q> codes = detail::encode_rows(quantizer, rows, cols, read, pool);
    REQUIRE(codes.rows() == rows);
    REQUIRE(codes.cols() == cols);
    REQUIRE(codes.storage_bits() == Codes<Q>::storage_bits(quantizer, rows, cols));
    codes.decode_rows(0, found.view());
    REQUIRE(std::equal(found.data(), found.data() + found.size(), expected.data()));
  }
}

}  // namespace

TEST_CASE("Rows that are read a few at a time are coded as those of a whole matrix") {
  for (const Index rows : {1, 7, 129})
    for (const Index cols : {1, 17, 33, 129}) {
      INFO(rows << " x " << cols);
      check_encoded_rows(Affine<3>{.group = 16}, rows, cols);
      check_encoded_rows(Affine<5>{.group = per_row}, rows, cols);
      check_encoded_rows(nf4(8), rows, cols);
      check_encoded_rows(test::ToyMidrise{.bits = 4}, rows, cols);
      check_encoded_rows(Rings{.sequence = Sequence::rows}, rows, cols);
      check_encoded_rows(Rings{.sequence = Sequence::row}, rows, cols);
    }
}

TEST_CASE("Panels cover the rows once") {
  for (const Index rows : {1, 5, 64, 1000})
    for (const Index cols : {1, 100, 100000}) {
      const Index step = detail::panel_rows(rows, cols);
      REQUIRE(step >= std::min<Index>(rows, 4));
      REQUIRE(step <= std::min<Index>(rows, 64));
      if (rows * cols > 1000000) continue;
      std::vector<int> read(static_cast<std::size_t>(rows)), handed(read);
      ThreadPool pool(3);
      detail::for_each_panel(
          rows, cols,
          [&](Index first, View<float> X) {
            for (Index i = 0; i < X.rows; ++i) {
              ++read[std::size_t(first + i)];
              X(i, 0) = float(first + i);
            }
          },
          pool,
          [&](Index first, View<float> X) {
            for (Index i = 0; i < X.rows; ++i)
              if (X(i, 0) == float(first + i)) ++handed[std::size_t(first + i)];
          });
      CHECK(std::all_of(read.begin(), read.end(), [](int n) { return n == 1; }));
      CHECK(std::all_of(handed.begin(), handed.end(), [](int n) { return n == 1; }));
    }
}
