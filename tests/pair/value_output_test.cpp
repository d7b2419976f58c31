#include "cafeq/pair/value_output.hpp"

#include "attention.hpp"
#include "cafeq/pair/balance.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace {

bool all_zero(const std::vector<float>& b) {
  for (const float x : b)
    if (x != 0.0f) return false;
  return true;
}

}  // namespace

TEST_CASE("attention does not see M between value and output", "[value_output]") {
  const auto X = gaussian<double>(6, 9, 100);
  for (const HeadLayout layout : layouts())
    for (const bool output_bias : {true, false}) {
      const Attention exact(layout, 9, 11, 1);
      Attention moved = exact;
      const HeadTransform M(layout, random_stack(layout, 5));
      if (output_bias)
        transform_value_output(moved.Wv, moved.Wo, layout, M,
                               {.value = vec(moved.bv), .output = vec(moved.bo)});
      else transform_value_output(moved.Wv, moved.Wo, layout, M, {.value = vec(moved.bv)});
      CHECK(distance(exact(X), moved(X)) < 1e-6);
      CHECK(all_zero(moved.bv) == output_bias);
      CHECK(relative_error<float, float>(exact.Wv.view(), moved.Wv.view()) > 1e-2);
      // Without the counterpart the output would move, so the equality above means something.
      moved.Wo = exact.Wo;
      CHECK(distance(exact(X), moved(X)) > 1e-2);
    }
}

TEST_CASE("a balanced pair in half of its own storage", "[value_output]") {
  const HeadLayout layout{.head_dim = 8, .heads = 4, .kv_heads = 2};
  const Attention exact(layout, 32, 32, 3, false);
  Attention moved = exact;
  const auto M = balance(exact.Wo.view().transposed(), exact.Wv.view(), layout);
  auto stored = to_matrix<float>(moved.Wo.view().transposed());  // a model that stores W_oᵀ
  transform_value_output(moved.Wv, stored.view().transposed(), layout, M);
  copy(stored.view().transposed(), moved.Wo.view());
  const auto X = gaussian<double>(5, 32, 100);
  CHECK(distance(exact(X), moved(X)) < 1e-5);
}

TEST_CASE("attention sinks keep the value bias out of the output bias", "[value_output]") {
  const HeadLayout layout{.head_dim = 4, .heads = 4, .kv_heads = 2};
  const Attention exact(layout, 9, 11, 1);
  const HeadTransform M(layout, random_stack(layout, 5));
  const auto X = gaussian<double>(6, 9, 100);
  Attention moved = exact;
  transform_value_output(moved.Wv, moved.Wo, layout, M,
                         {.value = vec(moved.bv), .output = vec(moved.bo)},
                         {.rows_sum_to_one = false});
  CHECK_FALSE(all_zero(moved.bv));
  CHECK(moved.bo == exact.bo);
  CHECK(distance(exact(X, {}, true), moved(X, {}, true)) < 1e-6);
  // Folding all the same would be wrong.
  Attention folded = exact;
  fold_value_bias(folded.Wo, layout, vec(folded.bv), vec(folded.bo));
  CHECK(distance(exact(X), folded(X)) < 1e-6);
  CHECK(distance(exact(X, {}, true), folded(X, {}, true)) > 1e-2);
  CHECK(raises(ErrorCode::unsupported, "value bias", [&] {
    fold_value_bias(folded.Wo, layout, vec(folded.bv), vec(folded.bo), {.rows_sum_to_one = false});
  }));
}

TEST_CASE("a value bias is fitted to a rounded output projection", "[value_output]") {
  for (const HeadLayout layout : {HeadLayout{.head_dim = 4, .heads = 6, .kv_heads = 2},
                                  HeadLayout{.head_dim = 4, .heads = 2}}) {
    const Attention exact(layout, 9, 40, 1);
    auto hat = exact.Wo;
    for (Index i = 0; i < hat.size(); ++i)
      hat.data()[i] = std::nearbyint(hat.data()[i] * 4.0f) / 4.0f;
    const auto constant = [&](const Matrix<float>& W, const std::vector<float>& b) {
      Matrix<double> c(W.rows(), 1);
      for (Index o = 0; o < W.rows(); ++o)
        for (Index j = 0; j < W.cols(); ++j)
          c(o, 0) += double(W(o, j)) * double(b[std::size_t(layout.kv_head(j / 4) * 4 + j % 4)]);
      return c;
    };
    auto bias = exact.bv;
    auto fitted = exact.bv;
    const double left = fit_value_bias(exact.Wo, vec(bias), hat, vec(fitted), layout);
    const auto wanted = constant(exact.Wo, exact.bv);
    const auto error = [&](const std::vector<float>& b) {
      const auto got = constant(hat, b);
      return relative_error<double, double>(wanted.view(), got.view());
    };
    CHECK(left == Approx(error(fitted)).epsilon(1e-4));
    CHECK(left < 0.95 * error(exact.bv));
    for (std::size_t i = 0; i < fitted.size(); ++i)  // a minimum in each coordinate
      for (const float step : {-0.1f, 0.1f}) {
        auto other = fitted;
        other[i] += step;
        CHECK(error(other) > 0.999 * left);
      }
    // Nothing was rounded, but the basis has changed: the fit finds M b_v.
    Attention moved = exact;
    const HeadTransform M(layout, random_stack(layout, 5));
    transform_value_output(moved.Wv, moved.Wo, layout, M, {.value = vec(moved.bv)});
    fitted = moved.bv;
    CHECK(fit_value_bias(exact.Wo, vec(bias), moved.Wo, vec(fitted), layout) < 1e-12);
    CHECK(distance(constant(exact.Wo, exact.bv), constant(moved.Wo, moved.bv)) < 1e-6);
  }
}

TEST_CASE("zero output projections leave nothing to fit", "[value_output]") {
  const HeadLayout layout{.head_dim = 3, .heads = 2};
  const Matrix<float> zero(5, 6);
  std::vector<float> bias(6, 1.0f), fitted(6, 0.0f);
  CHECK(fit_value_bias(zero, vec(bias), zero, vec(fitted), layout) == 0.0);
  CHECK(all_zero(fitted));
}

TEST_CASE("what does not commute is refused with its reason", "[value_output]") {
  const HeadLayout layout{.head_dim = 3, .heads = 2};
  const HeadTransform M(layout, random_stack(layout, 5));
  const auto refused = [&](const AttentionTraits& traits, const char* reason) {
    Attention a(layout, 4, 5, 1);
    const auto before = a.Wv;
    const bool raised = raises(ErrorCode::unsupported, reason,
                               [&] { transform_value_output(a.Wv, a.Wo, layout, M, {}, traits); });
    return raised && relative_error<float, float>(before.view(), a.Wv.view()) == 0.0;
  };
  CHECK(refused({.value_norm = true}, "normalised"));
  CHECK(refused({.gated_output = true}, "gated"));
  CHECK(refused({.output_norm = true}, "normalised"));
  CHECK(refused({.clipped = true}, "clipped"));
  Attention a(layout, 4, 5, 1);
  const auto diagonal = balance_diagonal(a.Wo.view().transposed(), a.Wv.view(), layout);
  CHECK_NOTHROW(transform_value_output(a.Wv, a.Wo, layout, diagonal, {}, {.gated_output = true}));
}

TEST_CASE("wrong shapes name the matrix", "[value_output]") {
  const HeadLayout layout{.head_dim = 3, .heads = 4, .kv_heads = 2};
  const HeadTransform M(layout);
  Attention a(layout, 4, 5, 1);
  Matrix<float> wrong(7, 7);
  std::vector<float> short_bias(2);
  CHECK(raises(ErrorCode::invalid_shape, "Wv: 7 rows, but kv_heads * head_dim is 2 * 3 = 6",
               [&] { transform_value_output(wrong, a.Wo, layout, M); }));
  CHECK(raises(ErrorCode::invalid_shape, "Wo: 7 columns, but heads * head_dim is 4 * 3 = 12",
               [&] { transform_value_output(a.Wv, wrong, layout, M); }));
  CHECK(raises(ErrorCode::invalid_shape, "value bias: 2",
               [&] { transform_value_output(a.Wv, a.Wo, layout, M, {.value = vec(short_bias)}); }));
  CHECK(raises(ErrorCode::invalid_shape, "output bias: 2", [&] {
    transform_value_output(a.Wv, a.Wo, layout, M, {.output = vec(short_bias)});
  }));
  CHECK(raises(ErrorCode::invalid_shape, "M: made for", [&] {
    transform_value_output(a.Wv, a.Wo, layout, HeadTransform({.head_dim = 3, .heads = 4}));
  }));
  CHECK(raises(ErrorCode::invalid_shape, "Wo_hat",
               [&] { fit_value_bias(a.Wo, vec(a.bv), wrong, vec(a.bv), layout); }));
}

TEST_CASE("what keeps a value and an output projection from taking an M", "[value_output]") {
  const HeadLayout layout{.head_dim = 3, .heads = 4, .kv_heads = 2};
  const HeadTransform dense(layout, random_stack(layout, 5)), diagonal(layout);
  CHECK_FALSE(value_output_fault(AttentionTraits{}));
  CHECK_FALSE(value_output_fault(AttentionTraits{}, dense));
  CHECK_FALSE(value_output_fault(AttentionTraits{.gated_output = true}, diagonal));
  CHECK_THAT(value_output_fault(AttentionTraits{.gated_output = true}, dense)->message(),
             Contains("diagonal M only"));
  for (const AttentionTraits& traits :
       {AttentionTraits{.value_norm = true}, AttentionTraits{.output_norm = true},
        AttentionTraits{.clipped = true}}) {
    CHECK(value_output_fault(traits)->code() == ErrorCode::unsupported);
    CHECK(value_output_fault(traits, diagonal)->message() == value_output_fault(traits)->message());
  }
}
