// The code of docs/how-to/quantize-attention-pairs.md and docs/how-to/quantize-an-mlp.md.
#include <string>
#include <vector>

#include "cafeq/cafeq.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using cafeq::test::gaussian;
using cafeq::test::heavy_tailed;

TEST_CASE("docs: value and output") {
  const cafeq::Index hidden = 48;
  auto Wv = heavy_tailed(32, hidden, 1);
  auto Wo = heavy_tailed(hidden, 64, 2);
  std::vector<float> bv(32, 0.1f), bo(std::size_t(hidden), 0.2f);
  const auto Wo_before = Wo;
  cafeq::ThreadPool pool(2);

  // [value_output]
  const cafeq::HeadLayout layout{
      .head_dim = 16, .heads = 4, .kv_heads = 2};  // Wv [2 · 16, hidden], Wo [hidden, 4 · 16]
  const cafeq::ValueOutputOptions options{.value_bias = cafeq::as_vector(bv),
                                          .output_bias = cafeq::as_vector(bo)};
  const auto vo =
      cafeq::quantize_value_output(Wv, Wo, layout, cafeq::recipes::learned<4>{}, options, pool);

  cafeq::dequantize(vo.value(), Wv);  // or keep vo.value() and vo.output() packed
  cafeq::dequantize(vo.output(), Wo);
  bv = vo.value_bias();
  bo = vo.output_bias();
  // [value_output end]
  CHECK(vo.error() < 0.02);
  for (const float b : bv) CHECK(b == 0);
  double folded = 0.2;
  for (cafeq::Index j = 0; j < 64; ++j) folded += 0.1 * double(Wo_before(5, j));
  CHECK(double(bo[5]) == Approx(folded).epsilon(1e-5));
}

TEST_CASE("docs: query and key") {
  const cafeq::Index hidden = 48;
  auto Wq = heavy_tailed(64, hidden, 3);
  auto Wk = heavy_tailed(32, hidden, 4);
  const std::vector<float> bq(64, 0.1f), bk(32, -0.1f);
  const cafeq::HeadLayout layout{.head_dim = 16, .heads = 4, .kv_heads = 2};

  // [query_key]
  cafeq::QueryKeyOptions options;
  options.query_bias = cafeq::as_vector(bq);
  options.key_bias = cafeq::as_vector(bk);
  options.traits.rotary = cafeq::Rotary{
      .dims = 16, .pairing = cafeq::Rotary::Pairing::half_split};  // leave empty without RoPE
  const auto qk = cafeq::quantize_query_key(Wq, Wk, layout, cafeq::recipes::learned<4>{}, options);
  // [query_key end]
  CHECK(qk.error() == qk.nearest_error());
  CHECK(qk.query_bias().size() == 64);
  CHECK(cafeq::commutes(qk.transform(), *options.traits.rotary));
  CHECK(qk.error() < 0.05);
  const auto plain = cafeq::quantize_query_key(Wq, Wk, layout, cafeq::recipes::learned<4>{});
  CHECK(plain.error() < qk.error());

  std::string reason;
  // [refused]
  options.traits.qk_norm = true;  // Qwen3, Gemma 3, OLMo 2
  const auto refused =
      cafeq::try_quantize_query_key(Wq, Wk, layout, cafeq::recipes::learned<4>{}, options);
  if (!refused && refused.error().code() == cafeq::ErrorCode::unsupported)
    reason = refused.error().message();
  // [refused end]
  CHECK(reason ==
        "query/key: queries or keys are normalised after their projection, which does not commute "
        "with M");
}

TEST_CASE("docs: an MLP") {
  const cafeq::Index hidden = 64, channels = 128;
  auto gate = gaussian(channels, hidden, 5, 0.02), up = gaussian(channels, hidden, 6, 0.02),
       down = gaussian(hidden, channels, 7, 0.02);
  for (cafeq::Index c = 0; c < channels;
       ++c)  // channels of different strength, as trained ones have
    for (cafeq::Index j = 0; j < hidden; ++j) down(j, c) *= float(1 + c % 16);
  std::vector<float> gain(std::size_t(hidden), 1.5f);
  const auto up_before = up;
  const auto before = cafeq::quantize(down, cafeq::recipes::mse<4>{.group = 32});
  const double error_before = before.error(down);

  // [fold_norm]
  // y = gain ∘ normalised(x) is read by gate and up: both take the gain, and the norm's own becomes
  // 1.
  const cafeq::NormGain<float> norm{
      .gain = cafeq::as_vector(gain)};  // .offset = 1 where the model stores gain - 1 (Gemma)
  cafeq::fold_norm_gain<float>(norm, {{gate.view()}, {up.view()}});
  // [fold_norm end]
  CHECK(gain[3] == 1.0f);
  CHECK(up(3, 4) == Approx(1.5f * up_before(3, 4)));

  // [balance]
  const auto scales =
      cafeq::balance_up_down(up, down);        // row c of up and column c of down get equal norms
  cafeq::transform_up_down(up, down, scales);  // up ← D up, down ← down D⁻¹, in place
  // [balance end]
  const auto balanced = cafeq::quantize(down, cafeq::recipes::mse<4>{.group = 32});
  CHECK(balanced.error(down) < error_before);

  // [permute]
  const auto order =
      cafeq::order_by_column_norm(down);  // neighbours, which share a scale, become alike
  cafeq::permute_channels(gate, up, down, order);
  // [permute end]
  double last = 1e30;
  for (cafeq::Index c = 0; c < channels; ++c) {
    double norm_squared = 0;
    for (cafeq::Index j = 0; j < hidden; ++j)
      norm_squared += double(down(j, c)) * double(down(j, c));
    CHECK(norm_squared <= last);
    last = norm_squared;
  }

  // [mlp]
  const cafeq::recipes::learned<4> recipe;
  const auto q_gate = cafeq::quantize(gate, recipe);
  const auto q_up = cafeq::quantize(up, recipe);
  const auto q_down = cafeq::quantize(down, recipe);
  // [mlp end]
  CHECK(q_gate.error(gate) < 0.01);
  CHECK(q_up.error(up) < 0.01);
  CHECK(q_down.error(down) < 0.01);

  // [relu]
  const cafeq::MlpTraits traits{.gated = false, .activation = cafeq::Activation::relu};
  cafeq::transform_up_down(up, down, scales, {},
                           traits);  // refused for an activation that does not allow it
  // [relu end]
}
