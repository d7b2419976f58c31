#include "cafeq/model/any_recipe.hpp"

#include "cafeq/linalg/input_gram.hpp"
#include "cafeq/pipeline/recipes.hpp"
#include "support/catch.hpp"
#include "support/error_of.hpp"
#include "support/random.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace {

/// An output projection and its values, of heads of 32.
constexpr std::array<PairedMatrix, 2> outputs_and_values{PairedMatrix{96, 64, Side::input},
                                                         PairedMatrix{64, 80, Side::output}};

/// A recipe that leaves nothing to choose.
struct Fixed {
  static constexpr std::string_view name = "fixed";
  static constexpr std::string_view description = "three bits, whatever a caller wants";
  static constexpr double work = 1;

  auto pipeline(Index, Index) const { return Pipeline{Identity{}, Affine<>{.bits = 3}, Nearest{}}; }
  std::string transform(Index, Index) const { return "none"; }
  PairAdvice pair_advice(Index) const { return {.form = PairForm::balanced}; }
  template <class Self, class F>
  static void options(Self&, F&&) {}
};

std::int64_t option_bits(const AnyRecipe& recipe) {
  return std::get<std::int64_t>(*recipe.option("bits"));
}

}  // namespace

TEST_CASE("A recipe without its type says what the recipe says") {
  const recipes::learned<> learned{.bits = 3};
  const AnyRecipe recipe = learned;
  CHECK(recipe->name() == "learned");
  CHECK(recipe->work() == recipes::learned<>::work);
  CHECK(recipe->grid(64, 64) == "midrise3 row");
  CHECK(recipe->transform(512, 256) == learned.transform(512, 256));
  CHECK(recipe->note(64, 64).empty());
  CHECK(recipe->storage_bits(96, 64) == learned.pipeline(96, 64).storage_bits(96, 64));
  CHECK_FALSE(recipe->is_one_a_tensor());
  CHECK_FALSE(recipe->fault());
  CHECK(AnyRecipe(recipes::fast<>{})->grid(8, 64) == "affine4 g64");
  CHECK(AnyRecipe(recipes::rtn<>{.bits = 2, .group = per_tensor})->grid(8, 64) == "affine2 tensor");
  CHECK(AnyRecipe(recipes::smallest{.bits = 3.1875})->grid(2048, 2048) == "trellis3.125 row8");
}

TEST_CASE("Options by name, in the form that members have") {
  const AnyRecipe fast = recipes::fast<>{.bits = 5, .group = 32, .seed = ~std::uint64_t(0)};
  CHECK(fast.option("bits") == OptionValue(std::int64_t(5)));
  CHECK(fast.option("group") == OptionValue(std::int64_t(32)));
  CHECK(fast.option("seed") == OptionValue(~std::uint64_t(0)));
  CHECK_FALSE(fast.option("window"));
  CHECK(AnyRecipe(recipes::smallest{.bits = 3.5}).option("bits") == OptionValue(3.5));
  CHECK_FALSE(AnyRecipe(Fixed{}).option("bits"));
}

TEST_CASE("Equal recipes are those that give equal results") {
  const AnyRecipe fast = recipes::fast<>{};
  CHECK(fast == AnyRecipe(recipes::fast<>{}));
  CHECK_FALSE(fast == AnyRecipe(recipes::fast<>{.bits = 3}));
  CHECK_FALSE(fast == AnyRecipe(recipes::fast<>{.seed = 1}));
  CHECK_FALSE(fast == AnyRecipe(recipes::rtn<>{.group = 64}));
  CHECK_FALSE(fast == AnyRecipe(recipes::fast<runtime_bits, Midrise<>>{}));
  CHECK_FALSE(AnyRecipe(recipes::smallest{}) == AnyRecipe(recipes::smallest{.window = 10}));
  CHECK_FALSE(AnyRecipe(recipes::learned<>{}) == AnyRecipe(recipes::learned<>{.max_block = 64}));
}

TEST_CASE("A recipe is found again by its type") {
  const AnyRecipe recipe = recipes::fast<>{.bits = 3};
  REQUIRE(recipe.as<recipes::fast<>>() != nullptr);
  CHECK(recipe.as<recipes::fast<>>()->bits == 3);
  CHECK(recipe.as<recipes::rtn<>>() == nullptr);
  CHECK(recipe.as<recipes::fast<runtime_bits, Midrise<>>>() == nullptr);

  const AnyRecipe copy = recipe;
  CHECK(copy.as<recipes::fast<>>() == recipe.as<recipes::fast<>>());
}

TEST_CASE("A matrix is quantized as by the recipe itself, and its error known in its own units") {
  const auto W = heavy_tailed(48, 64, 1, 2);
  const auto check = [&](const auto& recipe) {
    const QuantizedMatrix result = AnyRecipe(recipe)->quantize(W, {});
    const auto expected = quantize(W, recipe);
    REQUIRE(result.matrix.quantized() != nullptr);
    CHECK(result.matrix.rows() == nullptr);
    CHECK(result.matrix.storage_bits() == expected.storage_bits());
    CHECK(result.matrix.storage_bits() == AnyRecipe(recipe)->storage_bits(48, 64));

    Matrix<float> hat(48, 64), expected_hat(48, 64);
    result.matrix.dequantize(hat.view());
    expected.dequantize(expected_hat);
    double error = 0, norm = 0;
    for (Index i = 0; i < W.size(); ++i) {
      CHECK(hat.data()[i] == expected_hat.data()[i]);
      error += std::pow(double(W.data()[i]) - double(hat.data()[i]), 2);
      norm += std::pow(double(W.data()[i]), 2);
    }
    CHECK(result.squared_error == Approx(error).epsilon(1e-5));
    CHECK(result.squared_norm == Approx(norm).epsilon(1e-6));
  };
  check(recipes::rtn<>{.bits = 3, .group = 16});
  check(recipes::fast<>{.seed = 5});
  check(recipes::learned<>{.bits = 3});
  check(recipes::smallest{.bits = 3.5, .window = 10});
}

TEST_CASE("Alternatives have all bits, where a recipe has bits to choose") {
  for (const AnyRecipe& recipe :
       {AnyRecipe(recipes::rtn<>{.group = 32}), AnyRecipe(recipes::fast<>{.seed = 3})}) {
    const auto all = recipe->alternatives({});
    REQUIRE(all.size() == 7);
    for (std::size_t i = 0; i < all.size(); ++i) {
      CHECK(option_bits(all[i]) == std::int64_t(i) + 2);
      CHECK(all[i].option("group") == recipe.option("group"));
      CHECK(all[i].option("seed") == recipe.option("seed"));
      CHECK_FALSE(all[i]->with_bits(3));
    }
  }
  const AnyRecipe fixed = Fixed{};
  REQUIRE(fixed->alternatives({}).size() == 1);
  CHECK(fixed->alternatives({})[0] == fixed);

  const auto other = AnyRecipe(recipes::smallest{.seed = 9})->with_bits(2.75);
  REQUIRE(other);
  CHECK(*other == AnyRecipe(recipes::smallest{.bits = 2.75, .seed = 9}));
}

TEST_CASE("A continuous rate takes the least there is where a small matrix takes more") {
  const AnyRecipe recipe = recipes::smallest{.bits = 2.5};
  const auto W = gaussian<float>(4, 8, 1);
  CHECK(error_of([&] { (void)quantize(W, recipes::smallest{.bits = 2.5}); }).code() ==
        ErrorCode::invalid_argument);
  const QuantizedMatrix result = recipe->quantize(W, {});
  CHECK(result.matrix.storage_bits() == recipe->storage_bits(4, 8));
  CHECK(double(result.matrix.storage_bits()) > 2.5 * 32);
}

TEST_CASE("What is wrong with the options of a recipe") {
  const auto fault = [](const AnyRecipe& recipe) {
    const auto found = recipe->fault();
    return found ? found->message() : "";
  };
  CHECK_THAT(fault(recipes::fast<>{.bits = 9}), Contains("bits"));
  CHECK_THAT(fault(recipes::fast<>{.group = -2}), Contains("group is -2"));
  CHECK_THAT(fault(recipes::learned<>{.max_block = 0}), Contains("max_block is 0"));
  CHECK_THAT(fault(recipes::smallest{.bits = 9.5}),
             Contains("smallest: bits is 9.5, must be 1 to 9"));
  CHECK(fault(recipes::smallest{.bits = 2}).empty());
}

TEST_CASE("Errors of a trial are those of something cheap that behaves alike") {
  const auto W = heavy_tailed(16, 64, 2, 2);
  CHECK(AnyRecipe(recipes::rtn<>{.bits = 3})->trial_error(W, {}) ==
        quantize(W, recipes::rtn<>{.bits = 3}).error(W));
  CHECK(AnyRecipe(recipes::learned<>{.bits = 3})->trial_error(W, {}) ==
        quantize(W, recipes::fast<>{.bits = 3, .group = per_row}).error(W));
}

TEST_CASE("Errors of a trial in a metric are in units of what noise of all the energy comes to") {
  const auto W = heavy_tailed(16, 64, 2, 2);
  const auto X = gaussian(80, 64, 5);
  InputGram inputs(64, GramKind::whole);
  inputs.add(X);
  const Metric metric = inputs.metric();
  double trace = 0, energy = 0;
  for (Index j = 0; j < 64; ++j) trace += metric.to_dense()(j, j);
  for (Index i = 0; i < W.size(); ++i) energy += double(W.data()[i]) * double(W.data()[i]);

  const AnyRecipe fast = recipes::fast<>{.bits = 3, .group = 32};
  const auto check = [&](const AnyRecipe& recipe, const auto& q) {
    Matrix<float> W_hat(16, 64);
    q.dequantize(W_hat.view());
    CHECK(recipe->trial_error(W, metric, {}) ==
          Approx(squared_error(W, W_hat, metric, Side::input) * 64 / (energy * trace)));
  };
  check(fast, quantize(W, recipes::fast<>{.bits = 3, .group = 32}));
  check(*fast->in_metric(), quantize(W, recipes::fast<>{.bits = 3, .group = 32}, metric));
  check(*AnyRecipe(recipes::learned<>{.bits = 3})->in_metric(),
        quantize(W, recipes::fast<>{.bits = 3, .group = per_row}, metric));
  // Noise of the energy of W itself is 1, in any metric.
  const auto E = gaussian(16, 64, 9);
  const Matrix<float> none(16, 64);
  CHECK(squared_error(E, none, metric, Side::input) * 64 / (squared_error(E, none) * trace) ==
        Approx(1).epsilon(0.2));
  CHECK(fast->trial_error(W, Metric::identity(64), {}) == Approx(fast->trial_error(W, {})));
  CHECK(fast->trial_error(none, metric, {}) == 0);
}

TEST_CASE("Bits of codes alone") {
  CHECK(AnyRecipe(recipes::rtn<>{.bits = 3})->code_bits(16, 64) == 3);
  const AnyRecipe smallest = recipes::smallest{.bits = 3.3};
  CHECK(smallest->code_bits(512, 512) ==
        recipes::smallest{.bits = 3.3}.pipeline(512, 512).quantizer.rate.bits());
  CHECK(smallest->code_bits(512, 512) < 3.3);
}

TEST_CASE("Two matrices that meet: what becomes of them, and what they take") {
  const auto advice = [](const AnyRecipe& recipe, Index head_dim) {
    return recipe->advice(head_dim, outputs_and_values);
  };
  CHECK(advice(recipes::rtn<>{}, 64).always);
  CHECK(advice(recipes::rtn<>{}, 64).form == PairForm::apart);
  CHECK(advice(recipes::fast<>{}, 64).form == PairForm::balanced);
  CHECK(advice(recipes::learned<>{}, 31).form == PairForm::balanced);
  CHECK(advice(recipes::learned<>{}, 32).form == PairForm::together);
  CHECK(advice(recipes::smallest{}, 32).form == PairForm::together);
  CHECK_THAT(advice(recipes::smallest{}, 16).why, Contains("heads of 16 channels"));

  CHECK(AnyRecipe(recipes::rtn<>{})->pair_transform() == PairTransform::none);
  CHECK(AnyRecipe(recipes::fast<>{})->pair_transform() == PairTransform::balanced);
  CHECK(AnyRecipe(recipes::learned<>{})->pair_transform() == PairTransform::learned);
  CHECK(AnyRecipe(Fixed{})->pair_transform() == PairTransform::balanced);

  // No transform of their own: codes, a scale a row, the exponent.
  const AnyRecipe learned = recipes::learned<>{.bits = 3};
  CHECK(learned->storage_bits(outputs_and_values) ==
        std::array<std::int64_t, 2>{96 * (64 * 3 + 16) + 16, 64 * (80 * 3 + 16) + 16});
  CHECK(learned->grids(outputs_and_values) ==
        std::array<std::string, 2>{"midrise3 row", "midrise3 row"});

  // Sequences along the outer dimensions, and one budget for both.
  const AnyRecipe smallest = recipes::smallest{.bits = 4};
  const auto bits = smallest->storage_bits(outputs_and_values);
  CHECK(double(bits[0] + bits[1]) <= 4.0 * (96 * 64 + 64 * 80));
  CHECK_THAT(smallest->grids(outputs_and_values)[0], Contains("column"));
  CHECK_THAT(smallest->grids(outputs_and_values)[1], Contains("row"));
}

TEST_CASE("A recipe that rounds no two matrices together says so when it is asked to") {
  const AnyRecipe recipe = recipes::hadamard<>{};
  CHECK_THAT(error_of([&] { (void)recipe->storage_bits(outputs_and_values); }).message(),
             Contains("no recipe that rounds two matrices together is named hadamard"));
}
