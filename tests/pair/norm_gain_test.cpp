#include "cafeq/pair/norm_gain.hpp"

#include "attention.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using namespace cafeq::test;

TEST_CASE("the gain and bias of a norm fold into its readers", "[norm_gain]") {
  for (const float offset : {0.0f, 1.0f})
    for (const bool layer_norm : {false, true}) {
      auto A = gaussian<double>(5, 9, 1), B = gaussian<double>(7, 9, 2);
      auto g = gaussian<double>(9, 1, 3), beta = gaussian<double>(9, 1, 4),
           a = gaussian<double>(5, 1, 5), b = gaussian<double>(7, 1, 6);
      const auto x = gaussian<double>(9, 1, 7);
      const auto column = [](Matrix<double>& m) {
        return VectorView<double>{m.data(), m.rows(), 1};
      };
      const auto output = [&](const Matrix<double>& W, const Matrix<double>& bias) {
        Matrix<double> y = bias;
        for (Index i = 0; i < W.rows(); ++i)
          for (Index j = 0; j < 9; ++j)
            y(i, 0) +=
                W(i, j) * ((double(offset) + g(j, 0)) * x(j, 0) + (layer_norm ? beta(j, 0) : 0.0));
        return y;
      };
      const auto before_a = output(A, a), before_b = output(B, b);
      NormGain<double> norm{.gain = column(g), .offset = offset};
      if (layer_norm) norm.bias = column(beta);
      fold_norm_gain<double>(norm, {{A.view(), column(a)}, {B.view(), column(b)}});
      CHECK(distance(before_a, output(A, a)) < 1e-14);
      CHECK(distance(before_b, output(B, b)) < 1e-14);
      for (Index j = 0; j < 9; ++j) {
        CHECK(g(j, 0) == 1.0 - double(offset));
        if (layer_norm) CHECK(beta(j, 0) == 0.0);
      }
    }
}

TEST_CASE("norms that cannot fold", "[norm_gain]") {
  auto W = gaussian(5, 4, 1);
  const auto before = W;
  std::vector<float> gain(4, 2.0f), beta(4, 1.0f), zero(4, 0.0f), wrong(3, 1.0f);
  const NormGain<float> norm{.gain = vec(gain), .bias = vec(beta)};
  CHECK(raises(ErrorCode::unsupported, "reader 0: has no bias",
               [&] { fold_norm_gain<float>(norm, {{W.view(), {}}}); }));
  CHECK(raises(ErrorCode::invalid_shape, "reader 0: 4 columns, but the gain has 3",
               [&] { fold_norm_gain<float>({.gain = vec(wrong)}, {{W.view(), {}}}); }));
  CHECK(raises(ErrorCode::invalid_shape, "norm bias: 3", [&] {
    fold_norm_gain<float>({.gain = vec(gain), .bias = vec(wrong)}, {{W.view(), {}}});
  }));
  CHECK(raises(ErrorCode::invalid_shape, "reader 0 bias: 3",
               [&] { fold_norm_gain<float>(norm, {{W.view(), vec(wrong)}}); }));
  CHECK(relative_error<float, float>(before.view(), W.view()) == 0.0);
  fold_norm_gain<float>({.gain = vec(gain), .bias = vec(zero)}, {{W.view(), {}}});
  CHECK(W(2, 3) == 2.0f * before(2, 3));
  CHECK(gain[0] == 1.0f);
}
