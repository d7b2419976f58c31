#include "cafeq/product/joint_product.hpp"

#include <algorithm>
#include <cmath>

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/quant/joint_encoding.hpp"
#include "pipeline/toy_joint.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;
using test::Rings;

TEST_CASE("Any joint quantizer is multiplied as plain loops over its weights are") {
  const PowerOfTwo unit(-3);
  for (const Sequence sequence :
       {Sequence::rows, Sequence::row, Sequence::column, Sequence::scaled_column})
    for (const Index rows : {1, 17, 300})
      for (const Index cols : {1, 7, 33, 129}) {
        INFO(rows << " x " << cols << ", sequence " << int(sequence));
        const auto W = test::gaussian<float>(rows, cols, 1);
        Encoding<Rings> encoding({.sequence = sequence}, rows, cols);
        encoding.encode(W.view());
        const Codes<Rings> codes = encoding.pack();
        Matrix<float> hat(rows, cols);
        codes.decode_rows(0, hat.view());

        const JointProduct<Rings> product(codes);
        const auto X = test::gaussian<float>(3, cols, 2);
        Matrix<float> Y(3, rows), threaded(3, rows), alone(1, rows);
        const Activations x = product.arrange(codes, X.view(), {});
        product.multiply(codes, x, {}, unit, Y.view(), {});
        for (Index n = 0; n < 3; ++n)
          for (Index i = 0; i < rows; ++i) {
            double sum = 0, magnitudes = 0;
            for (Index j = 0; j < cols; ++j) {
              sum += double(hat(i, j)) * double(X(n, j));
              magnitudes += std::abs(double(hat(i, j)) * double(X(n, j)));
            }
            const double bound = double(cols) * 0x1p-24 * magnitudes + 0x1p-24 * std::abs(sum);
            REQUIRE(std::abs(8 * double(Y(n, i)) - sum) <= bound);
          }

        // The same bits for any number of threads, and of vectors together.
        ThreadPool pool(3);
        product.multiply(codes, x, {}, unit, threaded.view(), pool);
        REQUIRE(std::equal(Y.data(), Y.data() + Y.size(), threaded.data()));
        const Activations second = product.arrange(codes, X.view().row_block(1, 1), {});
        product.multiply(codes, second, {}, unit, alone.view(), {});
        for (Index i = 0; i < rows; ++i) REQUIRE(alone(0, i) == Y(1, i));
      }
}
