#include "cafeq/rounding/alternating.hpp"

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/rounding/error_feedback.hpp"
#include "support/catch.hpp"
#include "support/golden.hpp"
#include "support/random.hpp"
#include "support/toy_quantizer.hpp"

using namespace cafeq;
using test::ToyMidrise;

namespace {

/// Σ_h ‖F1_hᵀF2 − F̂1_hᵀF̂2‖² / Σ_h ‖F1_hᵀF2‖² by the definition.
double product_error(View<const float> a, View<const float> b, View<const float> ah,
                     View<const float> bh, Index heads, Index kv_heads) {
  const Index d = a.rows / heads;
  double error = 0, norm = 0;
  for (Index h = 0; h < heads; ++h) {
    const Index kv = h / (heads / kv_heads);
    for (Index i = 0; i < a.cols; ++i)
      for (Index j = 0; j < b.cols; ++j) {
        double p = 0, q = 0;
        for (Index k = 0; k < d; ++k) {
          p += double(a(h * d + k, i)) * double(b(kv * d + k, j));
          q += double(ah(h * d + k, i)) * double(bh(kv * d + k, j));
        }
        error += (p - q) * (p - q);
        norm += p * p;
      }
  }
  return error / norm;
}

struct Case {
  Index heads, kv_heads;
  Side first_side;
};

}  // namespace

TEST_CASE("The target of one factor is the golden least-squares solution") {
  const auto golden = test::golden("pair.json");
  const auto X1 = test::golden_matrix<float>(golden["X1"]);  // [10, d]: F1ᵀ
  const auto X2 = test::golden_matrix<float>(golden["X2"]);  // [9, d]: F2ᵀ
  const auto Q2 = test::golden_matrix<float>(golden["Q2"]);
  const auto T = test::golden_matrix(golden["T"]);
  const auto view = detail::view_of_partner(
      detail::RoundedGrams(X2.view().transposed(), Q2.view().transposed(), 1, {}), 1, {});
  Matrix<float> target(X1.rows(), X1.cols());
  detail::least_squares_target(PairFactor{X1.view(), Side::input, 1}, view.K, target.view(), {});
  for (Index i = 0; i < T.rows(); ++i)
    for (Index j = 0; j < T.cols(); ++j)
      CHECK(double(target(i, j)) == Approx(T(i, j)).margin(1e-5));
}

TEST_CASE("Alternating lowers the error of the product, and keeps the best") {
  for (const Case c : {Case{1, 1, Side::input}, Case{4, 4, Side::input}, Case{4, 2, Side::input},
                       Case{4, 1, Side::output}, Case{2, 2, Side::output}}) {
    const Index d = 8;
    const auto first = c.first_side == Side::input ? test::gaussian<float>(40, c.heads * d, 1)
                                                   : test::gaussian<float>(c.heads * d, 40, 1);
    const auto second = test::gaussian<float>(c.kv_heads * d, 33, 2);
    const PairFactor a{first.view(), c.first_side, c.heads};
    const PairFactor b{second.view(), Side::output, c.kv_heads};
    const auto error = [&](View<const float> ah, View<const float> bh) {
      return product_error(a.inner_first(), b.inner_first(), ah, bh, c.heads, c.kv_heads);
    };
    INFO(c.heads << " heads, " << c.kv_heads << " KV heads, side " << int(c.first_side));
    double before = std::numeric_limits<double>::infinity();
    for (const int rounds : {0, 1, 4, 8}) {
      const auto pair = alternate(a, b, ToyMidrise{.bits = 3}, ErrorFeedback{}, rounds);
      CHECK(pair.error <= before);
      CHECK(int(pair.history.size()) <= rounds);
      if (rounds <= 4) CHECK(int(pair.history.size()) == rounds);
      if (rounds == 4) CHECK(pair.error < 0.85 * before);
      // The error is that of the codes which are returned.
      Matrix<float> A(first.rows(), first.cols()), B(second.rows(), second.cols());
      pair.first.decode(A.view());
      pair.second.decode(B.view());
      CHECK(pair.error ==
            Approx(error(PairFactor{A.view(), c.first_side, c.heads}.inner_first(), B.view())));
      before = rounds == 1 ? before : pair.error;
    }
  }
}

TEST_CASE("Threads change nothing in an alternation") {
  const auto first = test::gaussian<float>(24, 32, 5);
  const auto second = test::gaussian<float>(16, 40, 6);
  const PairFactor a{first.view(), Side::input, 4}, b{second.view(), Side::output, 2};
  const auto expected = alternate(a, b, ToyMidrise{}, ErrorFeedback{}, 3);
  for (const Index threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    CHECK(alternate(a, b, ToyMidrise{}, ErrorFeedback{}, 3, pool).history == expected.history);
  }
}

TEST_CASE("A head of zeros neither fails nor disturbs the others") {
  auto second = test::gaussian<float>(16, 20, 6);
  for (Index i = 0; i < 8; ++i)
    for (float& x : second.row(i)) x = 0;
  const auto first = test::gaussian<float>(24, 16, 5);
  const PairFactor a{first.view(), Side::input, 2}, b{second.view(), Side::output, 2};
  const auto pair = alternate(a, b, ToyMidrise{.bits = 4}, ErrorFeedback{}, 4);
  CHECK(pair.error < 0.02);
}
