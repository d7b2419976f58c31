// What a caller can get wrong with quantize(), quantize_value_output() and quantize_query_key(),
// and what they say about it. Two programs go through this list: one with exceptions, where each
// function must throw what its `try_` twin returns (returned_errors_test.cpp), and one without,
// where the twin must return before the error handler is called (tests/structure).
#pragma once

#include <limits>
#include <span>
#include <string>
#include <vector>

#include "cafeq/core/matrix.hpp"
#include "cafeq/pipeline/quantize.hpp"
#include "cafeq/pipeline/quantize_pair.hpp"
#include "cafeq/pipeline/recipes.hpp"
#include "cafeq/quant/codebook.hpp"
#include "cafeq/quant/gguf_k.hpp"
#include "cafeq/transform/rotation.hpp"

namespace cafeq::test {

/// Counts the loops that it runs: none for an error that is found before any work.
struct CountingExecutor {
  mutable int loops = 0;
  Index concurrency() const noexcept { return 1; }
  void parallel_for(Index n, Index grain, LoopBody f) const {
    ++loops;
    InlineExecutor{}.parallel_for(n, grain, f);
  }
};

inline Matrix<float> some_weights(Index rows, Index cols) {
  Matrix<float> W(rows, cols);
  for (Index i = 0; i < W.size(); ++i) W.data()[i] = float((i * i + 7 * i) % 31) / 31.0f - 0.4f;
  return W;
}

inline constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

/// Value and output projection of two heads, or query and key, [16, 24] and [24, 16].
struct WrongPair {
  Matrix<float> first = some_weights(24, 16);   ///< output projection
  Matrix<float> second = some_weights(16, 24);  ///< value projection, queries and keys too
  HeadLayout layout{.head_dim = 8, .heads = 2};
};

// A case is f.matrix(message, W, recipe), f.value_output(message, Wv, Wo, layout, recipe, options)
// or f.query_key(message, Wq, Wk, layout, recipe, options).

template <class F>
void wrong_recipes_of_matrices(F&& f) {
  using namespace recipes;
  const auto W = some_weights(16, 24);
  constexpr const char* bits = "quantizer: bits is 1, must be 2 to 8";
  constexpr const char* group = "quantizer: group is -2, must be positive, per_row or per_tensor";

  f.matrix(bits, W, rtn<>{.bits = 1});
  f.matrix(group, W, rtn<>{.group = -2});
  f.matrix(bits, W, mse<>{.bits = 1});
  f.matrix(group, W, mse<>{.group = -2});
  f.matrix(bits, W, hadamard<>{.bits = 1});
  f.matrix(group, W, hadamard<>{.group = -2});
  f.matrix(bits, W, fast<>{.bits = 1});
  f.matrix("quantizer: bits is 9, must be 2 to 8", W, fast<>{.bits = 9});
  f.matrix(group, W, fast<>{.group = -2});

  f.matrix(bits, W, learned<>{.bits = 1});
  f.matrix(group, W, learned<>{.group = -2});
  f.matrix("transform_bits is -1, must not be negative", W, learned<>{.transform_bits = -1});
  f.matrix("transform_bits is nan, must not be negative", W,
           learned<>{.transform_bits = not_a_number});
  f.matrix("max_block is 0, must be positive", W, learned<>{.max_block = 0});

  f.matrix(bits, W, paper<>{.bits = 1});
  f.matrix(group, W, paper<>{.group = -2});
  f.matrix("transform_bits is nan, must not be negative", W,
           paper<>{.transform_bits = not_a_number});
  f.matrix("max_block is -3, must be positive", W, paper<>{.max_block = -3});
  f.matrix("adam: learning_rate is 0, must be positive", W, paper<>{.learning_rate = 0});
  f.matrix("adam: learning_rate is nan, must be positive", W,
           paper<>{.learning_rate = not_a_number});
  f.matrix("adam: learning_rate is inf, must be positive", W,
           paper<>{.learning_rate = std::numeric_limits<double>::infinity()});
  f.matrix("adam: steps is -1, must not be negative", W, paper<>{.steps = -1});

  f.matrix("smallest: 1 bits are fewer than the 1.54167 that 16 x 24 weights take", W,
           smallest{.bits = 1});
  f.matrix("smallest: bits is nan", W, smallest{.bits = not_a_number});
  f.matrix("smallest: bits is 0.5, must be 1 to 9", W, smallest{.bits = 0.5, .or_least = true});
  f.matrix("trellis: window is 11, must be 10, 12 or 14", W, smallest{.bits = 5, .window = 11});
}

template <class F>
void wrong_parts_of_pipelines(F&& f) {
  const auto W = some_weights(16, 24);

  f.matrix("levels: 1 of them, must be 2 to 256", W, Pipeline{Identity{}, Codebook{.levels = {1}}});
  f.matrix("levels: must ascend, but number 2 is 0 after 1", W,
           Pipeline{Identity{}, Codebook{.levels = {-1, 1, 0}}});
  f.matrix("levels: number 1 is nan", W,
           Pipeline{Identity{}, Codebook{.levels = {-1, float(not_a_number)}}});
  f.matrix("codebook: bits is 3, a table of 4 levels has 2", W,
           Pipeline{Identity{}, Codebook{.levels = {-1, 0, 1, 2}, .bits = 3}});
  f.matrix("quantizer: group is 8, in these super-blocks it is 32", W,
           Pipeline{Identity{}, AffineK<4, 32, 6>{.group = 8}});

  f.matrix("trellis: rate is 0 sixteenths of a bit, must be 16 to 80", W,
           Pipeline{Identity{}, Trellis{.rate = {0}}});
  f.matrix("trellis: scale_bits is 2, must be 3 to 8", W,
           Pipeline{Identity{}, Trellis{.scale_bits = 2}});

  f.matrix("ErrorFeedback: sweeps is -1, must not be negative", W,
           Pipeline{Identity{}, Affine<4>{}, ErrorFeedback{.sweeps = -1}});

  f.matrix("DualScaling: power is nan", W,
           Pipeline{DualScaling{.power = not_a_number}, Affine<4>{}});
  f.matrix("DualScaling: rounds is -1, must not be negative", W,
           Pipeline{DualScaling{.rounds = -1} * RandomizedHadamard{}, Affine<4>{}});
  f.matrix("DualScaling: tolerance is nan, must not be negative", W,
           Pipeline{DualScaling{.tolerance = not_a_number}, Affine<4>{}});
  f.matrix("BlockHadamard: block is 0, must be at least 1", W,
           Pipeline{DualScaling{} * BlockHadamard{.block = 0}, Affine<4>{}});
  f.matrix("RandomKronecker: left is 5, must divide the width 24", W,
           Pipeline{RandomKronecker{.left = 5}, Affine<4>{}});
  f.matrix("transform: dimension 16 does not fit 24 columns", W,
           Pipeline{Hadamard(Signs(16, 0)), Affine<4>{}});
  f.matrix("transform: dimension 24 does not fit 16 columns", W,
           Pipeline{Hadamard(Signs(24, 0)), Affine<4>{}, Nearest{}, Side::output});

  using Learned = LearnedBlockDiagonal<Midrise<4>>;
  const auto learned = [&](const char* message, const Learned& transform) {
    f.matrix(message, W, Pipeline{transform, Midrise<4>{}, ErrorFeedback{}});
  };
  learned("block is 0, must be at least 1", {.block = 0});
  learned("quantizer: group is -2, must be positive, per_row or per_tensor",
          {.quantizer = {.group = -2}});
  learned("p-norm: p is 3, must be even, 2 to 64", {.surrogate = {.p = 3}});
  learned("lbfgs: history is 0, must be positive", {.optimizer = {.history = 0}});
  learned("lbfgs: max_iterations is -1, must not be negative",
          {.optimizer = {.max_iterations = -1}});
  learned("optimizer: tolerance is nan, must not be negative",
          {.optimizer = {.tolerance = not_a_number}});
  learned("optimizer: window is 0, must be positive", {.optimizer = {.window = 0}});
  learned("optimizer: gradient_tolerance is nan, must not be negative",
          {.optimizer = {.gradient_tolerance = not_a_number}});
  learned(
      "lbfgs: sufficient_decrease nan and curvature 0.9 must satisfy 0 < sufficient_decrease < "
      "curvature < 1",
      {.optimizer = {.sufficient_decrease = not_a_number}});
  learned("lbfgs: max_search is 0, must be positive", {.optimizer = {.max_search = 0}});
  learned("ErrorFeedback: sweeps is -1, must not be negative", {.rounder = {.sweeps = -1}});
  learned("scaling_power is nan", {.scaling_power = not_a_number});
  learned("itq_rounds is -1, must not be negative", {.itq_rounds = -1});
  learned("als_rounds is -1, must not be negative", {.als_rounds = -1});

  using Published = LearnedBlockDiagonal<Midrise<4>, LogSumExp, Adam>;
  const auto published = [&](const char* message, const Published& transform) {
    f.matrix(message, W, Pipeline{transform, Midrise<4>{}, Nearest{}});
  };
  published("log-sum-exp: t is nan, must be positive", {.surrogate = {.t = float(not_a_number)}});
  published("adam: beta is nan, must lie in [0, 1)", {.optimizer = {.beta1 = not_a_number}});
  published("adam: beta is 1, must lie in [0, 1)", {.optimizer = {.beta2 = 1}});
  published("adam: epsilon is nan, must be positive", {.optimizer = {.epsilon = not_a_number}});
  published("optimizer: tolerance is -1, must not be negative", {.optimizer = {.tolerance = -1}});
}

template <class F>
void wrong_matrices(F&& f) {
  const recipes::fast<4> recipe{};
  Matrix<float> W = some_weights(4, 8);
  f.matrix("W is 0 x 8: there is nothing to quantize", View<float>{W.data(), 0, 8, 8}, recipe);
  f.matrix("W is 4 x 0: there is nothing to quantize", View<float>{W.data(), 4, 0, 8}, recipe);
  f.matrix("W: negative size -1 x 8", View<float>{W.data(), -1, 8, 8}, recipe);
  f.matrix("W: no data for 4 x 8", View<float>{nullptr, 4, 8, 8}, recipe);
  f.matrix("W: elements overlap: 4 x 8 with strides 7 and 1", View<float>{W.data(), 4, 8, 7},
           recipe);

  W(1, 2) = float(not_a_number);
  f.matrix("W: row 1, column 2 is nan", W, recipe);
  f.matrix("W: row 2, column 1 is nan", W.view().transposed(), recipe);
  f.matrix("W: row 1, column 2 is nan", W, recipes::learned<>{});
  f.matrix("W: row 1, column 2 is nan", W, recipes::smallest{.bits = 9, .or_least = true});
  Matrix<double> wide(2, 3);
  wide(0, 1) = -std::numeric_limits<double>::infinity();
  f.matrix("W: row 0, column 1 is -inf", wide, recipe);
}

/// What is wrong with two matrices that meet, whatever the recipe.
template <class F>
void wrong_pairs(F&& f) {
  const recipes::fast<4> recipe{};
  WrongPair p;
  const auto layouts = [&](const char* message, const HeadLayout& layout) {
    f.value_output(message, p.second, p.first, layout, recipe);
    f.query_key(message, p.second, p.second, layout, recipe);
  };
  layouts("layout: head_dim is 0, must be at least 1", {.head_dim = 0, .heads = 2});
  layouts("layout: heads is -2, must be at least 1", {.head_dim = 8, .heads = -2});
  layouts("layout: kv_heads is 0, must be at least 1", {.head_dim = 8, .heads = 2, .kv_heads = 0});
  layouts("layout: heads (2) is not a multiple of kv_heads (3)",
          {.head_dim = 8, .heads = 2, .kv_heads = 3});

  f.value_output("Wv: 16 rows, but kv_heads * head_dim is 1 * 8 = 8", p.second, p.first,
                 {.head_dim = 8, .heads = 2, .kv_heads = 1}, recipe);
  f.value_output("Wo: 16 columns, but heads * head_dim is 4 * 8 = 32", p.second, p.first,
                 {.head_dim = 8, .heads = 4, .kv_heads = 2}, recipe);
  f.query_key("Wq: 16 rows, but heads * head_dim is 4 * 8 = 32", p.second, p.second,
              {.head_dim = 8, .heads = 4, .kv_heads = 2}, recipe);
  f.query_key("Wk: 16 rows, but kv_heads * head_dim is 1 * 8 = 8", p.second, p.second,
              {.head_dim = 8, .heads = 2, .kv_heads = 1}, recipe);
  f.query_key("Wq has 24 columns but Wk has 20", p.second, p.second.view().col_block(0, 20),
              p.layout, recipe);

  f.value_output("Wv is 0 x 24: there is nothing to quantize", View<float>{nullptr, 0, 24, 24},
                 p.first, p.layout, recipe);
  f.value_output("Wo: elements overlap: 24 x 16 with strides 1 and 1", p.second,
                 View<float>{p.first.data(), 24, 16, 1}, p.layout, recipe);
  f.query_key("Wk: no data for 16 x 24", p.second, View<float>{nullptr, 16, 24, 24}, p.layout,
              recipe);

  WrongPair q;
  q.first(3, 4) = float(not_a_number);
  q.second(5, 6) = std::numeric_limits<float>::infinity();
  f.value_output("Wv: row 5, column 6 is inf", q.second, p.first, p.layout, recipe);
  f.value_output("Wo: row 3, column 4 is nan", p.second, q.first, p.layout, recipe);
  f.query_key("Wq: row 5, column 6 is inf", q.second, p.second, p.layout, recipe);
  f.query_key("Wk: row 5, column 6 is inf", p.second, q.second, p.layout, recipe);
}

template <class F>
void wrong_layers(F&& f) {
  const recipes::fast<4> recipe{};
  const WrongPair p;
  const std::vector<float> entries(32, 1.0f);
  std::vector<float> broken(32, 1.0f);
  broken[7] = float(not_a_number);
  const VectorView<const float> shorter{entries.data(), 15, 1}, none{nullptr, 16, 1};
  const VectorView<const float> nan{broken.data(), 16, 1}, wide_nan{broken.data(), 24, 1};

  const auto value_output = [&](const char* message, const ValueOutputOptions& options) {
    f.value_output(message, p.second, p.first, p.layout, recipe, options);
  };
  value_output("value bias: 15 entries, but the matrix has 16 rows", {.value_bias = shorter});
  value_output("value bias: no data for 16 entries", {.value_bias = none});
  value_output("value bias: row 7, column 0 is nan", {.value_bias = nan});
  value_output("output bias: 15 entries, but the matrix has 24 rows", {.output_bias = shorter});
  value_output("output bias: row 7, column 0 is nan", {.output_bias = wide_nan});
  value_output(
      "value/output: the heads' output is gated channel by channel, which does not commute with "
      "what the pair does",
      {.traits = {.gated_output = true}});
  value_output(
      "value/output: values are normalised after their projection, which does not commute with M",
      {.traits = {.value_norm = true}});
  value_output(
      "value/output: the heads' output is normalised ahead of the output projection, which does "
      "not commute with M",
      {.traits = {.output_norm = true}});
  value_output("value/output: values are clipped, which does not commute with M",
               {.traits = {.clipped = true}});

  const auto query_key = [&](const char* message, const QueryKeyOptions& options) {
    f.query_key(message, p.second, p.second, p.layout, recipe, options);
  };
  query_key("query bias: 15 entries, but the matrix has 16 rows", {.query_bias = shorter});
  query_key("query bias: row 7, column 0 is nan", {.query_bias = nan});
  query_key("key bias: no data for 16 entries", {.key_bias = none});
  query_key("key bias: row 7, column 0 is nan", {.key_bias = nan});
  query_key("rotary: dims is 3, must be even and at most head_dim (8)",
            {.traits = {.rotary = Rotary{.dims = 3}}});
  query_key("rotary: dims is 10, must be even and at most head_dim (8)",
            {.traits = {.rotary = Rotary{.dims = 10}}});
  query_key(
      "query/key: queries or keys are normalised after their projection, which does not commute "
      "with M",
      {.traits = {.qk_norm = true}});
  query_key("query/key: queries and keys are clipped, which does not commute with M",
            {.traits = {.clipped = true}});
}

/// A recipe for pairs that is a PairPipeline as it stands.
template <class P>
struct PairOf {
  P pipeline;
  P pair(const PairShape&) const { return pipeline; }
};

template <class F>
void wrong_recipes_of_pairs(F&& f) {
  using namespace recipes;
  const WrongPair p;
  const auto both = [&](const char* message, const auto& recipe) {
    f.value_output(message, p.second, p.first, p.layout, recipe);
    f.query_key(message, p.second, p.second, p.layout, recipe);
  };
  constexpr const char* bits = "quantizer: bits is 1, must be 2 to 8";
  constexpr const char* group = "quantizer: group is -2, must be positive, per_row or per_tensor";
  both(bits, mse<>{.bits = 1});
  both(group, mse<>{.group = -2});
  both(bits, fast<>{.bits = 1});
  both(group, fast<>{.group = -2});
  both(bits, learned<>{.bits = 1});
  both(group, learned<>{.group = -2});
  both(bits, paper<>{.bits = 1});
  both("adam: learning_rate is nan, must be positive", paper<>{.learning_rate = not_a_number});
  both("adam: steps is -1, must not be negative", paper<>{.steps = -1});
  both("smallest: bits is nan", smallest{.bits = not_a_number});
  both("trellis: window is 9, must be 10, 12 or 14", smallest{.window = 9});

  using Own = PairPipeline<Midrise<4>>;
  const auto own = [&](const char* message, const Own& pipeline) {
    both(message, PairOf<Own>{pipeline});
  };
  own("p-norm: p is 1, must be even, 2 to 64", {.surrogate = {.p = 1}});
  own("lbfgs: history is 0, must be positive", {.optimizer = {.history = 0}});
  own("ErrorFeedback: sweeps is -1, must not be negative", {.rounder = {.sweeps = -1}});
  own("alternations is -1, must not be negative", {.alternations = -1});
  own("trial_iterations is -1, must not be negative", {.trial_iterations = -1});
}

/// Every case.
template <class F>
void for_each_wrong_argument(F&& f) {
  wrong_recipes_of_matrices(f);
  wrong_parts_of_pipelines(f);
  wrong_matrices(f);
  wrong_recipes_of_pairs(f);
  wrong_pairs(f);
  wrong_layers(f);
}

/// Good input for every recipe, which must give a value.
template <class F>
void for_each_good_argument(F&& f) {
  using namespace recipes;
  const auto W = some_weights(16, 24);
  f.matrix("", W, rtn<>{});
  f.matrix("", W, mse<>{});
  f.matrix("", W, hadamard<>{});
  f.matrix("", W, fast<>{});
  f.matrix("", W, learned<>{});
  f.matrix("", W, paper<>{.steps = 10});
  f.matrix("", W, smallest{.bits = 5});
  f.matrix("", W, Pipeline{DualScaling{.power = 1e300}, Affine<4>{}});

  const WrongPair p;
  const auto both = [&](const auto& recipe) {
    f.value_output("", p.second, p.first, p.layout, recipe);
    f.query_key("", p.second, p.second, p.layout, recipe);
    f.query_key("", p.second, p.second, p.layout, recipe,
                {.traits = {.rotary = Rotary{.dims = 4}}});
  };
  both(mse<>{});
  both(fast<>{});
  both(learned<>{});
  both(paper<>{.steps = 10});
  both(smallest{.bits = 5});
}

}  // namespace cafeq::test
