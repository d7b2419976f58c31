#include "cafeq/product/grid_product.hpp"

#include <algorithm>
#include <cmath>

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/quant/affine.hpp"
#include "cafeq/quant/codebook.hpp"
#include "cafeq/quant/encoding.hpp"
#include "cafeq/quant/midrise.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/toy_quantizer.hpp"

using namespace cafeq;

namespace {

/// Against sums in double over the decoded weights and the activations as they were rounded.
template <class Q>
void check_grid_product(const Q& quantizer, Index rows, Index cols, ActivationFormat format) {
  const auto W = test::gaussian<float>(rows, cols, 1);
  Encoding<Q> encoding(quantizer, rows, cols);
  encoding.fit(W.view());
  encoding.encode(W.view());
  const Codes<Q> codes = encoding.pack();
  Matrix<float> hat(rows, cols);
  codes.decode_rows(0, hat.view());

  const GridProduct<Q> product(codes);
  const auto X = test::gaussian<float>(5, cols, 2);
  const Activations x = product.arrange(codes, X.view(), format);
  Matrix<float> Y(5, rows), threaded(5, rows);
  product.multiply(codes, x, format, PowerOfTwo(2), Y.view(), {});
  double error = 0, norm = 0;
  for (Index n = 0; n < 5; ++n)
    for (Index i = 0; i < rows; ++i) {
      double sum = 0, magnitudes = 0;
      for (Index j = 0; j < cols; ++j) {
        sum += double(hat(i, j)) * double(x.values()(n, j));
        magnitudes += std::abs(double(hat(i, j)) * double(x.values()(n, j)));
      }
      error += std::pow(double(Y(n, i)) / 4 - sum, 2);
      norm += magnitudes * magnitudes;
    }
  INFO(rows << " x " << cols << ", " << int(quantizer.bits) << " bits, groups of "
            << quantizer.group);
  REQUIRE(error <= 1e-11 * norm);

  ThreadPool pool(3);
  product.multiply(codes, x, format, PowerOfTwo(2), threaded.view(), pool);
  REQUIRE(std::equal(Y.data(), Y.data() + Y.size(), threaded.data()));
}

}  // namespace

TEST_CASE("A grid is multiplied from packed codes, from a table, or from decoded rows") {
  for (const ActivationFormat format :
       {ActivationFormat{}, ActivationFormat{ActivationPrecision::int8, 32}})
    for (const Index rows : {1, 13, 40})
      for (const Index cols : {1, 33, 64, 129}) {
        check_grid_product(Midrise<4>{.group = 32}, rows, cols, format);
        check_grid_product(Affine<3>{.group = 16}, rows, cols, format);
        check_grid_product(Affine<5>{.group = 7}, rows, cols, format);
        check_grid_product(Affine<2>{.group = per_tensor}, rows, cols, format);
        check_grid_product(nf4(32), rows, cols, format);
        check_grid_product(test::ToyMidrise{.bits = 8, .group = per_row}, rows, cols, format);
      }
}
