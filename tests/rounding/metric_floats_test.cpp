#include "cafeq/rounding/metric_floats.hpp"

#include <cmath>
#include <vector>

#include "cafeq/kernel/gram.hpp"
#include "cafeq/linalg/dense.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

TEST_CASE("A metric in floats: blocks, their LDLᵀ, weights, and nothing for the identity") {
  std::vector<Matrix<double>> blocks;
  for (const Index n : {10, 14}) {
    const auto A = test::gaussian<float>(n + 8, n, std::uint64_t(n));
    blocks.push_back(kernel::gram<float>(A.view()));
  }
  const Metric block_diagonal = Metric::block_diagonal(blocks);
  const rounding::MetricFloats dense(block_diagonal);
  REQUIRE(dense.blocks.size() == 2);
  CHECK(dense.blocks[1].offset == 10);
  CHECK(dense.blocks[1].size == 14);
  CHECK(dense.blocks[1].weights.empty());
  // Up to one power of two for the whole metric.
  const double common = blocks[0](0, 0) / (double(dense.blocks[0].H(0, 0)) * dense.blocks[0].scale);
  int exponent = 0;
  std::frexp(common * (1 + 1e-6), &exponent);
  CHECK(common == Approx(std::ldexp(0.5, exponent)).epsilon(1e-6));
  for (std::size_t b = 0; b < 2; ++b) {
    CHECK(dense.blocks[b].is_dense);
    const auto L = dense.blocks[b].L;
    const auto factor = linalg::factor_ldl(blocks[b].view());
    for (Index i = 0; i < L.rows; ++i) {
      CHECK(L(i, i) == 1);
      for (Index j = 0; j < L.cols; ++j) {
        CHECK(double(dense.blocks[b].H(i, j)) * dense.blocks[b].scale * std::ldexp(0.5, exponent) ==
              double(float(blocks[b](i, j))));
        double sum = 0;
        for (Index k = 0; k <= std::min(i, j); ++k)
          sum += double(L(i, k)) * factor->D[std::size_t(k)] * double(L(j, k));
        CHECK(sum == Approx(blocks[b](i, j)).margin(1e-4));
      }
    }
  }
  const Metric weighted = Metric::diagonal({1.0, 0.5});
  const rounding::MetricFloats diagonal(weighted);
  CHECK((diagonal.blocks.at(0).H.empty() && !diagonal.blocks[0].is_dense));
  CHECK(diagonal.blocks[0].weights.at(0) == 2 * diagonal.blocks[0].weights.at(1));
  const Metric plain = Metric::identity(3);
  const rounding::MetricFloats identity(plain);
  CHECK((identity.blocks.at(0).H.empty() && identity.blocks[0].L.empty() &&
         identity.blocks[0].weights.empty()));
  CHECK(dense.widest() == 14);
  CHECK(identity.widest() == 3);
}

TEST_CASE("Error feedback alone is not given H") {
  const Metric metric = Metric::dense(identity_matrix<double>(5));
  const rounding::MetricFloats floats(metric, false);
  CHECK(floats.blocks.at(0).H.empty());
  CHECK(floats.blocks[0].L.rows == 5);
}
