#include "engine/kernels.hpp"

#include <cmath>

#include "cafeq/cafeq.hpp"
#include "engine/product.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using cafeq::test::gaussian;
using engine::Index;
using engine::kernels;
using engine::Matrix;
using engine::test::product;

TEST_CASE("products of floats, of awkward sizes, the same bits on any number of threads") {
  for (const auto& [n, out, in] : {std::tuple<Index, Index, Index>{1, 1, 1},
                                   {1, 300, 17},
                                   {3, 129, 300},
                                   {50, 261, 33},
                                   {7, 16, 64}}) {
    CAPTURE(n, out, in);
    const auto W = gaussian<float>(out, in, 1), X = gaussian<float>(n, in, 2);
    const auto multiply = kernels().dense(kernels().pack(W.view()));
    const auto Y = product(multiply, X, out);
    for (Index i = 0; i < n; ++i)
      for (Index j = 0; j < out; ++j) {
        double sum = 0;
        for (Index k = 0; k < in; ++k) sum += double(X(i, k)) * double(W(j, k));
        REQUIRE(double(Y(i, j)) == Approx(sum).margin(1e-4));
      }
    cafeq::ThreadPool threads(3);
    const auto again = product(multiply, X, out, threads);
    CHECK(std::equal(Y.data(), Y.data() + Y.size(), again.data()));
  }
}

TEST_CASE("log_sum_exp and divergence against sums in double") {
  for (const Index n : {1, 2, 7, 16, 33, 1000, 5003}) {
    CAPTURE(n);
    const auto p = gaussian<float>(1, n, 5, 3), q = gaussian<float>(1, n, 6, 3);
    double p_sum = 0, q_sum = 0, kl = 0;
    for (Index i = 0; i < n; ++i)
      p_sum += std::exp(double(p(0, i))), q_sum += std::exp(double(q(0, i)));
    for (Index i = 0; i < n; ++i)
      kl += std::exp(double(p(0, i))) / p_sum *
            (double(p(0, i)) - std::log(p_sum) - double(q(0, i)) + std::log(q_sum));
    const double p_log = kernels().log_sum_exp(p.row(0)), q_log = kernels().log_sum_exp(q.row(0));
    CHECK(p_log == Approx(std::log(p_sum)).margin(1e-6));
    CHECK(q_log == Approx(std::log(q_sum)).margin(1e-6));
    CHECK(kernels().divergence(p.row(0), p_log, q.row(0), q_log) == Approx(kl).margin(2e-6));
    CHECK(kernels().divergence(p.row(0), p_log, p.row(0), p_log) == Approx(0).margin(1e-9));
  }
  // Far from 0, where exp alone would not do.
  const std::vector<float> high(9, 1000), low(9, -1000);
  CHECK(kernels().log_sum_exp(high) == Approx(1000 + std::log(9)));
  CHECK(kernels().log_sum_exp(low) == Approx(-1000 + std::log(9)));
}
