#include "cafeq/pipeline/quantize_pair.hpp"
#include "cafeq/core/thread_pool.hpp"
#include "cafeq/pipeline/recipes.hpp"

#include "pair/attention.hpp"
#include "pipeline/dequantized.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace {

const HeadLayout two_by_two{.head_dim = 8, .heads = 4, .kv_heads = 2};

/// Weights whose singular values fall off, as those of trained heads do.
Attention skewed_attention(HeadLayout layout, Index in, Index out, std::uint64_t seed) {
  Attention attention(layout, in, out, seed);
  for (Index i = 0; i < attention.Wv.rows(); ++i)
    for (float& w : attention.Wv.row(i)) w *= std::pow(0.8f, float(i % layout.head_dim));
  for (Index i = 0; i < attention.Wk.rows(); ++i)
    for (float& w : attention.Wk.row(i)) w *= std::pow(0.8f, float(i % layout.head_dim));
  return attention;
}

}  // namespace

TEST_CASE(
    "Learned M beats none, alternating rounding beats nearest, and error() is the error of the "
    "product") {
  for (const HeadLayout layout : {HeadLayout{.head_dim = 16, .heads = 2}, two_by_two,
                                  HeadLayout{.head_dim = 16, .heads = 4, .kv_heads = 1}}) {
    const auto model = skewed_attention(layout, 48, 40, 3);
    INFO(layout.heads << " heads, " << layout.kv_heads << " KV heads");
    const auto plain =
        quantize_value_output(model.Wv, model.Wo, layout, recipes::mse<3, Midrise<3>>{});
    const auto learned = quantize_value_output(model.Wv, model.Wo, layout, recipes::learned<3>{});
    CHECK(learned.nearest_error() < plain.error());
    CHECK(learned.error() < 0.85 * learned.nearest_error());
    const auto value = dequantized(learned.value());
    const auto output = dequantized(learned.output());
    CHECK(learned.error() ==
          Approx(dense_pair_error(model.Wo.view().transposed(), model.Wv.view(),
                                  output.view().transposed(), value.view(), layout))
              .epsilon(1e-3));
    CHECK(learned.bits_per_weight() < 3 + 16.0 / 32 + 0.1);

    const auto query_plain =
        quantize_query_key(model.Wq, model.Wk, layout, recipes::mse<3, Midrise<3>>{});
    const auto query_learned =
        quantize_query_key(model.Wq, model.Wk, layout, recipes::learned<3>{});
    CHECK(query_learned.error() < 0.7 * query_plain.error());
    const auto query = dequantized(query_learned.query());
    const auto key = dequantized(query_learned.key());
    CHECK(query_learned.error() == Approx(dense_pair_error(model.Wq.view(), model.Wk.view(),
                                                           query.view(), key.view(), layout))
                                       .epsilon(1e-3));
  }
}

TEST_CASE("At 8 bits the layer hardly changes, biases included, with and without an output bias") {
  const auto X = gaussian<double>(6, 24, 100);
  for (const bool output_bias : {true, false}) {
    auto model = Attention(two_by_two, 24, 20, 4);
    if (!output_bias) std::fill(model.bo.begin(), model.bo.end(), 0.0f);
    const auto before = model(X);
    const ValueOutputOptions biases{
        .value_bias = vec(model.bv),
        .output_bias = output_bias ? vec(model.bo) : VectorView<float>{}};
    const auto vo =
        quantize_value_output(model.Wv, model.Wo, two_by_two, recipes::learned<8>{}, biases);
    const auto qk = quantize_query_key(model.Wq, model.Wk, two_by_two, recipes::learned<8>{},
                                       {.query_bias = vec(model.bq), .key_bias = vec(model.bk)});
    auto quantized = model;
    quantized.Wv = dequantized(vo.value());
    quantized.Wo = dequantized(vo.output());
    quantized.bv = vo.value_bias();
    if (output_bias) quantized.bo = vo.output_bias();
    CHECK(distance(before, quantized(X)) < 0.02);
    quantized.Wq = dequantized(qk.query());
    quantized.Wk = dequantized(qk.key());
    quantized.bq = qk.query_bias();
    quantized.bk = qk.key_bias();
    CHECK(distance(before, quantized(X)) < 0.03);
    quantized.bq = model.bq;  // the bias of the other basis: the equality above means something
    CHECK(distance(before, quantized(X)) > 0.05);
  }
}

TEST_CASE("Rotary positions: M commutes, scores survive") {
  const auto X = gaussian<double>(6, 24, 100);
  for (const auto pairing : {Rotary::Pairing::half_split, Rotary::Pairing::interleaved})
    for (const Index dims : {8, 4}) {
      const Rotary rotary{.dims = dims, .pairing = pairing};
      const auto model = skewed_attention(two_by_two, 24, 20, 4);
      const auto qk = quantize_query_key(
          model.Wq, model.Wk, two_by_two, recipes::learned<8>{},
          {.query_bias = VectorView<const float>{model.bq.data(), Index(model.bq.size()), 1},
           .key_bias = VectorView<const float>{model.bk.data(), Index(model.bk.size()), 1},
           .traits = {.rotary = rotary}});
      CHECK(commutes(qk.transform(), rotary));
      auto quantized = model;
      quantized.Wq = dequantized(qk.query());
      quantized.Wk = dequantized(qk.key());
      quantized.bq = qk.query_bias();
      quantized.bk = qk.key_bias();
      CHECK(distance(model(X, rotary), quantized(X, rotary)) < 0.02);
      // Balanced scales round better than none, at equal bits.
      const auto plain =
          quantize_query_key(model.Wq, model.Wk, two_by_two, recipes::mse<3, Midrise<3>>{},
                             {.traits = {.rotary = rotary}});
      const auto balanced = quantize_query_key(
          model.Wq, model.Wk, two_by_two, recipes::learned<3>{}, {.traits = {.rotary = rotary}});
      CHECK(balanced.error() < 1.02 * plain.error());
    }
}

TEST_CASE("What is not exact is refused with the reason") {
  const Attention model(two_by_two, 24, 20, 4);
  CHECK_THROWS_WITH(quantize_query_key(model.Wq, model.Wk, two_by_two, recipes::fast<3>{},
                                       {.traits = {.qk_norm = true}}),
                    Contains("normalised"));
  CHECK_THROWS_WITH(quantize_value_output(model.Wv, model.Wo, two_by_two, recipes::fast<3>{},
                                          {.traits = {.gated_output = true}}),
                    Contains("gated"));
  const auto result = try_quantize_query_key(model.Wq, model.Wk, two_by_two, recipes::fast<3>{},
                                             {.traits = {.qk_norm = true}});
  REQUIRE(!result);
  CHECK(result.error().code() == ErrorCode::unsupported);
}

TEST_CASE("Wrong shapes and values are named") {
  Attention model(two_by_two, 24, 20, 4);
  const recipes::fast<3> recipe{};
  CHECK_THROWS_WITH(
      quantize_value_output(model.Wv, model.Wo, {.head_dim = 8, .heads = 4, .kv_heads = 3}, recipe),
      Contains("not a multiple of kv_heads"));
  CHECK_THROWS_WITH(
      quantize_value_output(model.Wv, model.Wo, {.head_dim = 8, .heads = 2, .kv_heads = 2}, recipe),
      Contains("Wo: 32 columns"));
  CHECK_THROWS_WITH(
      quantize_value_output(model.Wv, model.Wo, {.head_dim = 4, .heads = 8, .kv_heads = 2}, recipe),
      Contains("Wv: 16 rows"));
  CHECK_THROWS_WITH(quantize_query_key(model.Wq, model.Wk, {.head_dim = 0}, recipe),
                    Contains("head_dim is 0"));
  std::vector<float> short_bias(3);
  CHECK_THROWS_WITH(quantize_value_output(model.Wv, model.Wo, two_by_two, recipe,
                                          {.value_bias = vec(short_bias)}),
                    Contains("value bias: 3 entries"));
  model.Wk(5, 7) = std::numeric_limits<float>::infinity();
  CHECK_THROWS_WITH(quantize_query_key(model.Wq, model.Wk, two_by_two, recipe),
                    Contains("Wk: row 5, column 7 is inf"));
  const auto result = try_quantize_query_key(model.Wq, model.Wk, two_by_two, recipe);
  REQUIRE(!result);
  CHECK(result.error().code() == ErrorCode::non_finite);
}

TEST_CASE("Pairs of zeros, of one head of one channel, and on several threads") {
  Matrix<float> Wv(8, 5), Wo(6, 8);
  const HeadLayout layout{.head_dim = 4, .heads = 2};
  CHECK(quantize_value_output(Wv, Wo, layout, recipes::learned<3>{}).error() == 0);
  const auto v = gaussian<float>(1, 5, 1);
  const auto o = gaussian<float>(6, 1, 2);
  CHECK(quantize_value_output(v, o, {.head_dim = 1, .heads = 1}, recipes::learned<4>{}).error() <
        0.05);

  const auto model = skewed_attention(two_by_two, 24, 20, 4);
  const auto expected =
      quantize_value_output(model.Wv, model.Wo, two_by_two, recipes::learned<3>{});
  for (const Index threads : {2, 3}) {
    ThreadPool pool(threads);
    CHECK(quantize_value_output(model.Wv, model.Wo, two_by_two, recipes::learned<3>{}, {}, pool)
              .error() == expected.error());
  }
}
