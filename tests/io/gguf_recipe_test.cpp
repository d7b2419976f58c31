#include "cafeq/io/gguf_recipe.hpp"

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/linalg/input_gram.hpp"
#include "cafeq/model/quantize_model.hpp"
#include "cafeq/pipeline/recipes.hpp"
#include "model/plans.hpp"
#include "support/catch.hpp"
#include "support/error_of.hpp"
#include "support/random.hpp"

using namespace cafeq;
using test::error_of;
using test::Family;
using test::plan_of;
using test::step_of;
using test::tensors_of;

namespace {

AnyRecipe blocks_of(GgufType type) { return GgufRecipe::make(type, recipes::fast<>{}); }

/// Two matrices of a pair, whose rows have so many weights.
std::array<PairedMatrix, 2> pair_of_widths(Index first, Index second) {
  return {PairedMatrix{64, first, Side::input}, PairedMatrix{64, second, Side::output}};
}

std::vector<GgufType> types_of(const std::vector<AnyRecipe>& recipes) {
  std::vector<GgufType> types;
  for (const AnyRecipe& recipe : recipes) types.push_back(recipe.as<GgufRecipe>()->type());
  return types;
}

}  // namespace

TEST_CASE("A type of GGUF that rows do not fit gives way to a finer one") {
  CHECK(detail::legal_type(GgufType::q4_k, 512) == GgufType::q4_k);
  CHECK(detail::legal_type(GgufType::q4_k, 96) == GgufType::q5_0);
  CHECK(detail::legal_type(GgufType::q5_k, 96) == GgufType::q5_1);
  CHECK(detail::legal_type(GgufType::q3_k, 96) == GgufType::iq4_nl);
  CHECK(detail::legal_type(GgufType::q3_k, 48) == GgufType::f16);
  CHECK(detail::legal_type(GgufType::q2_k, 96) == GgufType::iq4_nl);
  CHECK(detail::legal_type(GgufType::q6_k, 96) == GgufType::q8_0);
  CHECK(detail::legal_type(GgufType::q4_0, 48) == GgufType::f16);
  CHECK(detail::legal_type(GgufType::f32, 48) == GgufType::f32);
}

TEST_CASE("Blocks say their type, what they take, and why it is another one than was asked for") {
  const AnyRecipe recipe = blocks_of(GgufType::q4_k);
  CHECK(recipe->name() == "fast");
  CHECK(recipe->grid(8, 512) == "Q4_K");
  CHECK(recipe->grid(8, 96) == "Q5_0");
  CHECK(recipe->transform(8, 512) == "none");
  CHECK(recipe->note(8, 512).empty());
  CHECK(recipe->note(8, 96) == "rows of 96 are no multiple of Q4_K's 256");
  CHECK(recipe->storage_bits(8, 512) == 8 * 8 * 2 * 144);
  CHECK(recipe->storage_bits(8, 96) == 8 * 8 * 3 * 22);
  CHECK(recipe->storage_bits(pair_of_widths(512, 96)) ==
        std::array<std::int64_t, 2>{8 * 64 * 2 * 144, 8 * 64 * 3 * 22});
  CHECK(recipe->grids(pair_of_widths(512, 96)) == std::array<std::string, 2>{"Q4_K", "Q5_0"});
  CHECK(recipe->is_one_a_tensor());
  CHECK_FALSE(recipe->fault());
  CHECK_FALSE(recipe->with_bits(4));
}

TEST_CASE("A matrix becomes blocks of the type, and they tell their own error") {
  const auto W = test::gaussian<float>(6, 64, 1);
  for (const GgufType type : {GgufType::q8_0, GgufType::q4_0, GgufType::f16}) {
    INFO(gguf_type_info(type).name);
    const AnyRecipe recipe = blocks_of(type);
    const QuantizedMatrix result = recipe->quantize(W, {});
    REQUIRE(result.matrix.rows() != nullptr);
    CHECK(result.matrix.quantized() == nullptr);
    CHECK(GgufType(result.matrix.rows()->type) == type);
    CHECK(result.matrix.storage_bits() == recipe->storage_bits(6, 64));

    Matrix<double> hat(6, 64);
    result.matrix.dequantize(hat.view());
    std::vector<std::byte> bytes(std::size_t(*gguf_row_bytes(type, 64)));
    std::vector<float> expected(64);
    for (Index i = 0; i < 6; ++i) {
      gguf::quantize_row(type, W.row(i), bytes);
      gguf::dequantize_row(type, bytes, expected);
      CHECK(std::equal(bytes.begin(), bytes.end(), result.matrix.rows()->row(i).begin()));
      for (Index j = 0; j < 64; ++j) CHECK(hat(i, j) == double(expected[std::size_t(j)]));
    }
    CHECK(result.squared_error / result.squared_norm ==
          Approx(test::relative_error(W.view(), std::as_const(hat).view())));
    CHECK(recipe->trial_error(W, {}) == result.squared_error / result.squared_norm);
  }
}

TEST_CASE("Recipes of types are equal where type, seed and what pairs are like are") {
  CHECK(blocks_of(GgufType::q4_0) == blocks_of(GgufType::q4_0));
  CHECK(blocks_of(GgufType::q4_0) == GgufRecipe::make(GgufType::q4_0, recipes::fast<>{.bits = 3}));
  CHECK_FALSE(blocks_of(GgufType::q4_0) == blocks_of(GgufType::q4_1));
  CHECK_FALSE(blocks_of(GgufType::q4_0) == AnyRecipe(recipes::fast<>{}));
  CHECK_FALSE(blocks_of(GgufType::q4_0) ==
              GgufRecipe::make(GgufType::q4_0, recipes::fast<>{.seed = 1}));
  CHECK_FALSE(blocks_of(GgufType::q4_0) == GgufRecipe::make(GgufType::q4_0, recipes::learned<>{}));
  CHECK(blocks_of(GgufType::q4_0).as<recipes::fast<>>() == nullptr);
  CHECK(blocks_of(GgufType::q4_0).option("seed") == OptionValue(std::uint64_t(0)));
}

TEST_CASE("Two matrices become blocks together where both can be of one type") {
  const auto advice = [](GgufType type, const AnyRecipe& like, Index head_dim, Index first,
                         Index second) {
    return GgufRecipe::make(type, like)->advice(head_dim, pair_of_widths(first, second));
  };
  const AnyRecipe fast = recipes::fast<>{}, learned = recipes::learned<>{};
  CHECK(advice(GgufType::q4_k, fast, 64, 256, 512).form == PairForm::together);
  CHECK(advice(GgufType::q4_k, learned, 16, 256, 512).form == PairForm::together);
  CHECK(advice(GgufType::q4_k, fast, 16, 256, 512).why ==
        "heads of 16 channels gain nothing by it");
  CHECK(advice(GgufType::q4_k, fast, 64, 96, 512).why == "its matrices need different types");
  CHECK(advice(GgufType::q4_0, fast, 64, 48, 40).why == "floats have no use for it");

  const PairAdvice never = advice(GgufType::q4_k, recipes::rtn<>{}, 64, 256, 512);
  CHECK(never.form == PairForm::apart);
  CHECK(never.always);
  CHECK(blocks_of(GgufType::q4_k)->pair_transform() == PairTransform::balanced);
  CHECK(GgufRecipe::make(GgufType::q4_k, learned)->pair_transform() == PairTransform::learned);
}

TEST_CASE("Alternatives are the types of blocks that all rows fit into") {
  const std::array<Index, 2> widths{256, 96};
  const auto few = types_of(blocks_of(GgufType::q4_k)->alternatives(widths));
  const auto all = types_of(blocks_of(GgufType::q4_k)->alternatives(std::span(widths).first(1)));
  CHECK(all.size() > few.size());
  CHECK_FALSE(few.empty());
  for (const GgufType type : few) {
    INFO(gguf_type_info(type).name);
    CHECK(gguf_type_info(type).weights > 1);
    CHECK(gguf_row_bytes(type, 96));
  }
  CHECK(std::find(all.begin(), all.end(), GgufType::q4_k) != all.end());
  CHECK(std::find(few.begin(), few.end(), GgufType::q4_k) == few.end());

  // Rows that fit none keep what takes the place of the type.
  const std::array<Index, 1> odd{40};
  CHECK(types_of(blocks_of(GgufType::q4_k)->alternatives(odd)) == std::vector{GgufType::f16});
}

TEST_CASE("Codes that are chosen together cannot become blocks") {
  const Error error = error_of([] { (void)GgufRecipe::make(GgufType::q4_k, recipes::smallest{}); });
  CHECK(error.code() == ErrorCode::invalid_argument);
  CHECK_THAT(error.message(), Contains("GGUF's Q4_K cannot hold the codes of smallest"));
}

TEST_CASE("A plan says which type takes the place of the one that was asked for") {
  const std::string layer = "model.layers.0.self_attn.", q = layer + "q_proj.weight",
                    v = layer + "v_proj.weight", o = layer + "o_proj.weight";
  auto t = test::llama_tensors({.hidden = 32, .intermediate = 64});
  const Family family{test::llama().config, t.list()};
  const Plan plan =
      plan_of(family, {.recipe = GgufRecipe::make(GgufType::q5_k, recipes::fast<>{})});
  CHECK(step_of(plan, q).recipe.as<GgufRecipe>()->type_for(32) == GgufType::q5_1);
  CHECK_THAT(step_of(plan, q).why, Contains("rows of 32 are no multiple of Q5_K's 256"));
  CHECK_THAT(step_of(plan, v).why,
             Contains("no value/output pair: heads of 8 channels gain nothing by it"));
  const Plan learned =
      plan_of(family, {.recipe = GgufRecipe::make(GgufType::q5_k, recipes::learned<>{})});
  CHECK(tensors_of(step_of(learned, v), learned) == std::set{v, o});

  // Values of 32 columns and outputs of 48 would not have one type.
  const Family uneven{
      test::mistral().config,
      test::llama_tensors({.hidden = 64, .heads = 3, .kv_heads = 1, .head_dim = 16}).list()};
  const std::string config =
      R"({"head_dim": 16, "hidden_size": 64, "intermediate_size": 48, "model_type": "mistral",
    "num_attention_heads": 3,
    "num_hidden_layers": 2, "num_key_value_heads": 1})";
  const Plan apart = plan_of({config, uneven.tensors},
                             {.recipe = GgufRecipe::make(GgufType::q4_0, recipes::fast<>{})});
  CHECK_THAT(
      step_of(apart, v).why,
      Contains("no value/output pair: the other one is kept"));  // fp16 is no smaller than bf16
}

TEST_CASE("Blocks of every type gain in the metric of their inputs, and take no more room") {
  const Index rows = 48, cols = 512;
  const auto W = test::heavy_tailed(rows, cols, 3, 4);
  auto X = test::gaussian<float>(2 * cols, cols, 5);
  for (Index i = 0; i < X.rows(); ++i) {
    for (Index j = 1; j < cols; ++j) X(i, j) += 0.5f * X(i, j - 1);
    X(i, 100) *= 40;
  }
  InputGram inputs(cols, GramKind::whole);
  inputs.add(X);
  const Metric metric = inputs.metric();
  ThreadPool pool(3);
  for (const GgufTypeInfo& info : gguf_types) {
    if (info.weights == 1) continue;
    // A few of them under a sanitizer, which takes long.
    if (test::sanitized && info.type != GgufType::q4_0 && info.type != GgufType::q3_k) continue;
    INFO(info.name);
    const AnyRecipe blind = blocks_of(info.type);
    const auto knowing = blind->in_metric();
    REQUIRE(knowing);
    CHECK((*knowing)->storage_bits(rows, cols) == blind->storage_bits(rows, cols));
    CHECK((*knowing)->advice(64, pair_of_widths(cols, cols)).always);
    const auto hat_of = [&](const QuantizedMatrix& q) {
      Matrix<float> hat(rows, cols);
      q.matrix.dequantize(hat.view());
      CHECK(q.squared_error / q.squared_norm == Approx(relative_error(W, hat)).epsilon(1e-4));
      return hat;
    };
    const Matrix<float> a = hat_of(blind->quantize(W, {})),
                        b = hat_of((*knowing)->quantize(W, metric, {})),
                        c = hat_of((*knowing)->quantize(W, metric, pool));
    CHECK(std::equal(b.data(), b.data() + b.size(), c.data()));
    CHECK(relative_error(W, b, metric, Side::input) <
          0.7 * relative_error(W, a, metric, Side::input));
    const Matrix<float> plain = hat_of((*knowing)->quantize(W, Metric::identity(cols), {}));
    CHECK(std::equal(plain.data(), plain.data() + plain.size(), a.data()));
  }
}
